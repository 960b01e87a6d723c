import { type Host, labTopology, type Topology } from '../src/lab-topology.js';

/**
 * The lab with other MTUs. Its routes lead through all its hosts, so that plain packets and chained ones go
 * the same way:
 *
 *   client ── edge ── fw ── ids ── gw ── server        back: server ── gw ── edge ── client
 */
export interface Layout {
  name: string;
  topology: Topology;
  /** Addresses of nodes that the lab's mesh document does not name. */
  addresses: Record<string, string>;
}

const { hosts, cables } = labTopology;
const wayToClient = '10.1.0.0/24 via 10.0.0.1';

const change = (name: string, part: Partial<Host>): Host => ({ ...hosts[name], ...part });
const detour: Record<string, Host> = {
  ...hosts,
  edge: change('edge', { routes: ['10.9.0.0/24 via 10.0.0.2'] }),
  fw: change('fw', { routes: ['10.9.0.0/24 via 10.0.0.3', wayToClient] }),
};

const jumbo = 9000;
const meshPorts: Record<string, string[]> = {
  edge: ['mesh0'],
  fw: ['mesh0'],
  ids: ['mesh0'],
  gw: ['mesh0'],
  switch: ['edge', 'fw', 'ids', 'gw'],
};

/** A leg between fw and ids of its own. Answers of ids take it too, as reverse path filters want. */
const narrowFw: Host = {
  ...hosts.fw,
  addresses: { ...hosts.fw?.addresses, narrow0: '10.0.23.1/30' },
  mtus: { narrow0: 1400 },
  routes: ['10.0.0.3/32 via 10.0.23.2', '10.9.0.0/24 via 10.0.23.2', wayToClient],
};
const narrowIds: Host = {
  ...hosts.ids,
  addresses: { ...hosts.ids?.addresses, narrow0: '10.0.23.2/30' },
  mtus: { narrow0: 1400 },
  routes: ['10.0.0.2/32 via 10.0.23.1', '10.1.0.0/24 via 10.0.23.1', '10.9.0.0/24 via 10.0.0.4'],
};

/** 1500 bytes on every cable; 9000 on those of the switch; 1400 on one between fw and ids. */
export const layouts: readonly Layout[] = [
  { name: 'even', topology: { hosts: detour, cables }, addresses: {} },
  {
    name: 'jumbo',
    topology: { hosts: { ...detour, ...widen(meshPorts) }, cables },
    addresses: {},
  },
  {
    name: 'narrow',
    topology: {
      hosts: { ...detour, fw: narrowFw, ids: narrowIds },
      cables: [...cables, ['fw:narrow0', 'ids:narrow0']],
    },
    addresses: { fw: '10.0.23.1', ids: '10.0.23.2' },
  },
];

function widen(ports: Record<string, string[]>): Record<string, Host> {
  return Object.fromEntries(
    Object.entries(ports).map(([name, devices]) => [
      name,
      { ...detour[name], mtus: Object.fromEntries(devices.map((device) => [device, jumbo])) },
    ]),
  );
}
