/**
 * The lab of every example, with functions beside its hops:
 *
 *   client ── edge ── fw ────────── ids ── gw ── server
 *                     │ │ │          └── tap0 ── watch:eth0, which only listens
 *                     │ │ └── function2 10.3.0.1 ── 10.3.0.9 router:eth0, which forwards
 *                     └─┴── function0, function1 ── bump, a bridge between the two
 */
import { labTopology, type Topology } from '../../src/lab-topology.js';
import type { Mesh, MeshService } from '../../src/mesh.js';
import { onEitherWay } from './delivery.js';
import { createLab, type TestLab } from './namespaces.js';

const { client, edge, fw, ids, gw, ...others } = labTopology.hosts;

/** An address of ids that its proxy listens on. */
export const proxyAddress = '10.7.0.3';
const wayToProxy = `${proxyAddress}/32 via 10.0.0.3`;
const routerAddress = '10.3.0.9';

const topology: Topology = {
  hosts: {
    client: client ?? {},
    edge: { ...edge, routes: [...(edge?.routes ?? []), wayToProxy] },
    fw: {
      ...fw,
      addresses: { ...fw?.addresses, function2: '10.3.0.1/24' },
      routes: [...(fw?.routes ?? []), wayToProxy],
    },
    ids: { ...ids, addresses: { ...ids?.addresses, lo: `${proxyAddress}/32` } },
    gw: { ...gw, routes: [...(gw?.routes ?? []), wayToProxy] },
    ...others,
    bump: { switches: true },
    router: {
      addresses: { eth0: `${routerAddress}/24` },
      routes: ['default via 10.3.0.1'],
      forwards: true,
    },
    watch: {},
  },
  cables: [
    ...labTopology.cables,
    ['fw:function0', 'bump:near'],
    ['fw:function1', 'bump:far'],
    ['fw:function2', 'router:eth0'],
    ['ids:tap0', 'watch:eth0'],
  ],
};

/** One service for each way that a hop's function gets its packets. */
export const services: Record<'plain' | 'firewall' | 'bump' | 'router' | 'watch' | 'proxy', MeshService> = {
  plain: { nodes: ['fw'], function: 'transit' },
  firewall: { nodes: ['fw'], function: 'stack' },
  bump: { nodes: ['fw'], function: 'inline', device: 'function0', returnDevice: 'function1' },
  router: { nodes: ['fw'], function: 'inline', device: 'function2', via: routerAddress },
  watch: { nodes: ['ids'], function: 'tap', device: 'tap0' },
  proxy: { nodes: ['ids'], function: 'terminate' },
};

export const createFunctionLab = (): Promise<TestLab> => createLab({ topology });

/** What everything from client to server takes: through one service on fw, then ids. */
export const through = (service: keyof typeof services): Mesh['chains'][string] => ({
  hops: [service, 'ids', 'gw'],
  record: 2,
});

/** What a web server says to the client, or curl's message. */
export const fetchPage = (lab: TestLab, place: string): Promise<string> =>
  onEitherWay(lab, 'client', ['curl', '-sS', '--max-time', '1', `http://${place}/`]);
export const greeting = /Hello from the server/;
/** curl's exit codes for a connection that was refused, and for one that got no answer. */
export const refused = /\(7\)/;
export const unanswered = /\(28\)/;
