import { formatAddress, parseAddress } from '../../src/address.js';
import type { Mesh } from '../../src/mesh.js';
import { headerAt } from '../../src/path.js';
import { type RenderedChain, renderMesh } from '../../src/render.js';
import { ethernet, type Ipv4, ipv4 } from './packet.js';
import { type Context, macOf, runPacket, type Testbed } from './testbed.js';

/** Packets at host fw of tests/helpers/testbed.ts, where chains begin, lead over it, through its function, and end. */
export const source = '10.1.0.10';
export const server = '10.9.0.10';
export const mesh: Mesh = {
  version: 1,
  nodes: {
    edge: { address: '10.0.0.1' },
    fw: { address: '10.0.0.2' },
    ids: { address: '10.0.0.3' },
    gw: { address: '10.0.0.4' },
  },
  services: { firewall: { nodes: ['fw'], function: 'stack' } },
  chains: {
    begins: { hops: ['ids', 'gw'], record: 1 },
    over: { hops: ['fw', 'gw'] },
    through: { hops: ['firewall', 'ids', 'gw'] },
    ends: { hops: ['ids', 'fw'] },
  },
  rules: [
    { name: 'begins', at: ['fw'], match: { destination: '10.9.0.0/24' }, chain: 'begins' },
    { name: 'over', at: ['edge'], match: { destination: '10.9.0.0/24' }, chain: 'over' },
    { name: 'through', at: ['edge'], priority: 50, match: { destination: '10.9.0.0/24' }, chain: 'through' },
    { name: 'ends', at: ['edge'], match: { destination: '10.8.0.0/24' }, chain: 'ends' },
  ],
};
const { chains } = renderMesh(mesh);
export const chain = (name: string): RenderedChain => {
  const found = chains.find((candidate) => candidate.name === name);
  if (!found) throw new Error(`no chain ${name}`);
  return found;
};

type Counted = Record<string, number>;

/** As it leaves the stack, having come in at an edge port. */
export function sendOut(bed: Testbed, packet: Partial<Ipv4>, context: Context = { from: 'edge0' }): Counted {
  const frame = ethernet(macOf('mesh0'), ipv4({ source, destination: server, ...packet }));
  return runPacket(bed, 'mesh0', 'egress', frame, context).counted;
}

/** As it arrives at a hop of its chain. */
export function arriveAt(
  bed: Testbed,
  name: string,
  position: number,
  packet: Partial<Ipv4> = {},
  end = server,
): Counted {
  const header = headerAt(chain(name).path, position, parseAddress(end) ?? 0);
  const destination = formatAddress(header.destination);
  const frame = ipv4({ source, destination, options: header.options, ...packet });
  return runPacket(bed, 'mesh0', 'ingress', ethernet(macOf('mesh0'), frame)).counted;
}

export const optionsOf = (name: string, position: number): Uint8Array =>
  headerAt(chain(name).path, position, parseAddress(server) ?? 0).options;
