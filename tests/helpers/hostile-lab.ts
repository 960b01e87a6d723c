import type { DropsView } from '../../src/api-schemas.js';
import { callApi } from '../../src/client.js';
import { agentHosts, apiSocket } from '../../src/lab-standing.js';
import type { Topology } from '../../src/lab-topology.js';
import type { Mesh } from '../../src/mesh.js';
import { mesh as chainsMesh, keysText } from '../parser/chains.js';
import { putMesh } from './chains.js';
import { createLab, type TestLab } from './namespaces.js';
import { readDrops } from './wire.js';

/**
 * Host fw with an edge port and two mesh ports, and intruders on both sides. Nobody answers, and nobody asks for MAC addresses: what
 * moves a counter is what a test has sent.
 *
 *   client ── edge0 [ fw ] mesh0 ──┬── edge · ids · gw ── server        intruder ── mesh1 [ fw ]
 *                                  └── intruder (learns nothing to the switch)
 */
export const hostileTopology: Topology = {
  hosts: {
    client: { addresses: { eth0: '10.1.0.10/24' }, routes: ['default via 10.1.0.1'] },
    edge: { addresses: { mesh0: '10.0.0.1/24' }, forwards: true },
    fw: {
      addresses: {
        mesh0: '10.0.0.2/24',
        mesh1: '10.0.5.2/24',
        edge0: '10.1.0.1/24',
        edge1: '10.2.0.1/24',
      },
      routes: ['10.9.0.0/24 via 10.0.0.4', '10.0.7.0/24 via 10.0.0.4'],
      forwards: true,
    },
    ids: { addresses: { mesh0: '10.0.0.3/24' }, routes: ['10.9.0.0/24 via 10.0.0.4'], forwards: true },
    gw: { addresses: { mesh0: '10.0.0.4/24', edge0: '10.9.0.1/24' }, forwards: true },
    server: { addresses: { eth0: '10.9.0.10/24' } },
    intruder: { addresses: { eth0: '10.0.0.66/24', eth1: '10.0.5.66/24' } },
    switch: { switches: true },
  },
  cables: [
    ['client:eth0', 'fw:edge0'],
    ['client:eth1', 'fw:edge1'],
    ['edge:mesh0', 'switch:edge'],
    ['fw:mesh0', 'switch:fw'],
    ['ids:mesh0', 'switch:ids'],
    ['gw:mesh0', 'switch:gw'],
    ['intruder:eth0', 'switch:intruder'],
    ['intruder:eth1', 'fw:mesh1'],
    ['server:eth0', 'gw:edge0'],
  ],
};

/** The chains of tests/parser/chains.ts. */
export const hostileMesh: Mesh = {
  ...chainsMesh,
  rules: [
    ...chainsMesh.rules,
    { name: 'unrouted', at: ['fw'], match: { destination: '10.8.0.0/24' }, chain: 'out', priority: 98 },
    {
      name: 'datagrams',
      at: ['fw'],
      match: { destination: '10.9.0.0/24', protocol: 'udp', destinationPorts: [9] },
      chain: 'out',
      priority: 97,
    },
    {
      name: 'streams',
      at: ['fw'],
      match: { destination: '10.9.0.0/24', protocol: 'tcp' },
      chain: 'out',
      priority: 99,
    },
  ],
};

/** What a changed byte makes of the client's address, on the mesh network. */
const nearClient = '10.0.0.10';

export interface HostileLab extends TestLab {
  /** `host:interface` -> MAC address. */
  macs: Record<string, string>;
}

export async function createHostileLab(): Promise<HostileLab> {
  const lab = await createLab({ topology: hostileTopology, icmp: 'all' });
  try {
    await putMesh(lab, hostileMesh);
    await callApi(apiSocket(lab, 'fw'), {
      method: 'PUT',
      path: '/v1/keys',
      body: keysText,
      contentType: 'application/json',
    });
    const macs = await introduceAll(lab);
    // Netfilter on a bridge, where a machine has it on, drops what is no IPv4 before we see it.
    await lab.on('switch', 'sysctl', '-qew', 'net.bridge.bridge-nf-call-iptables=0');
    await lab.on('switch', 'bridge', 'link', 'set', 'dev', 'intruder', 'learning', 'off');
    return { ...lab, macs };
  } catch (error) {
    await lab.remove();
    throw error;
  }
}

interface Device {
  host: string;
  name: string;
  mac: string;
  address: string | undefined;
}

/** Tells each host the MAC addresses of all others, and the switch where they are. Hosts that are named and do not exist are the intruder. */
async function introduceAll(lab: TestLab): Promise<Record<string, string>> {
  const devices = (
    await Promise.all(Object.keys(hostileTopology.hosts).map((host) => list(lab, host)))
  ).flat();
  const mine = devices.filter(({ address }) => address !== undefined);
  const sink = devices.find(({ host, name }) => host === 'intruder' && name === 'eth0')?.mac ?? '';
  const present = new Set(mine.map(({ address }) => address));
  const absent = [...Object.values(hostileMesh.nodes).map(({ address }) => address), nearClient].filter(
    (address) => !present.has(address),
  );
  await Promise.all(
    mine.map(async ({ host, name, address = '' }) => {
      const near = (other: string): boolean => other !== address && networkOf(other) === networkOf(address);
      const known = [
        ...mine.map((other) => [other.address ?? '', other.mac] as const),
        ...absent.map((other) => [other, sink] as const),
      ].filter(([other]) => near(other));
      for (const [other, mac] of known) {
        await lab.on(host, 'ip', 'neigh', 'replace', other, 'lladdr', mac, 'dev', name, 'nud', 'permanent');
      }
    }),
  );
  for (const [left, right] of hostileTopology.cables) {
    const [host = '', port = ''] = right.split(':');
    const mac = devices.find((device) => `${device.host}:${device.name}` === left)?.mac ?? '';
    if (host === 'switch')
      await lab.on(host, 'bridge', 'fdb', 'replace', mac, 'dev', port, 'master', 'static');
  }
  return Object.fromEntries(devices.map(({ host, name, mac }) => [`${host}:${name}`, mac]));
}

const networkOf = (address: string): string => address.split('.').slice(0, 3).join('.');

async function list(lab: TestLab, host: string): Promise<Device[]> {
  const links: { ifname: string; address: string; addr_info: { family: string; local: string }[] }[] =
    JSON.parse(await lab.on(host, 'ip', '-j', 'address'));
  return links
    .filter(({ ifname }) => ifname !== 'lo')
    .map(({ ifname, address, addr_info }) => ({
      host,
      name: ifname,
      mac: address,
      address: addr_info.find(({ family }) => family === 'inet')?.local,
    }));
}

/** What every agent has counted, by host, and the frames that the switch has given the intruder. */
export interface Views {
  agents: Record<string, DropsView>;
  intruder: number;
}

export async function readViews(lab: TestLab): Promise<Views> {
  const agents = await Promise.all(
    agentHosts.map(async (host) => [host, await readDrops(lab, host)] as const),
  );
  const [link] = JSON.parse(await lab.on('intruder', 'ip', '-j', '-s', 'link', 'show', 'eth0'));
  return { agents: Object.fromEntries(agents), intruder: link.stats64.rx.packets };
}

export type Port = DropsView['interfaces'][number];

export function findPort(view: DropsView | undefined, name: string, direction: Port['direction']): Port {
  const port = view?.interfaces.find((row) => row.interface === name && row.direction === direction);
  if (!port) throw new Error(`no port ${name}`);
  return port;
}

/** What a port has counted between two readings; what did not move is left out. */
export function subtractPort(after: Port, before: Port): Record<string, number> {
  const flat = (port: Port) => ({
    received: port.received,
    ...port.outcomes,
    ...port.drops,
    ...port.notes,
  });
  const earlier: Record<string, number> = flat(before);
  return Object.fromEntries(
    Object.entries(flat(after))
      .map(([name, count]): [string, number] => [name, count - (earlier[name] ?? 0)])
      .filter(([, count]) => count !== 0),
  );
}

/** Frames that agents have sent into the switch, and that agents and intruder have had from it. */
export function weighMesh(after: Views, before: Views): { sent: number; arrived: number } {
  const moved = (direction: Port['direction']) =>
    agentHosts.map((host) =>
      subtractPort(
        findPort(after.agents[host], 'mesh0', direction),
        findPort(before.agents[host], 'mesh0', direction),
      ),
    );
  const sum = (counts: (number | undefined)[]): number => counts.reduce<number>((a, b) => a + (b ?? 0), 0);
  return {
    sent: sum(moved('egress').flatMap(({ own, passed }) => [own, passed])),
    arrived: sum(moved('ingress').map(({ received }) => received)) + after.intruder - before.intruder,
  };
}

/** Reads until `isDone`, and returns what was read; after 5 seconds also without. */
export async function readUntil<T>(read: () => Promise<T>, isDone: (read: T) => boolean): Promise<T> {
  const deadline = Date.now() + 5000;
  for (;;) {
    const seen = await read();
    if (isDone(seen) || Date.now() > deadline) return seen;
  }
}
