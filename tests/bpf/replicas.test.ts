/** Services with several nodes, as host fw of tests/helpers/testbed.ts, where the chain begins. */
import test from 'ava';
import { formatAddress, parseAddress } from '../../src/address.js';
import { allAvailable } from '../../src/availability.js';
import { chooseSlot } from '../../src/flow-hash.js';
import type { Mesh } from '../../src/mesh.js';
import { pathsOf, renderMesh } from '../../src/render.js';
import { choosePaths } from '../../src/ways.js';
import { ethernet, type Ipv4, ipv4, tcp, udp } from '../helpers/packet.js';
import { applyMesh, ip, macOf, openTestbed, runPacket, type Testbed } from '../helpers/testbed.js';

const replicas = ['a', 'b', 'c', 'd'];
const server = '10.9.0.10';
const mesh: Mesh = {
  version: 1,
  nodes: {
    fw: { address: '10.0.0.2' },
    gw: { address: '10.0.0.4' },
    ...Object.fromEntries(replicas.map((name, i) => [name, { address: `10.4.0.${i + 1}` }])),
  },
  services: { ids: { nodes: replicas, function: 'transit' } },
  chains: { web: { hops: ['ids', 'gw'] } },
  rules: [{ name: 'web', at: ['fw'], match: { destination: '10.9.0.0/24' }, chain: 'web' }],
};
const [chain] = renderMesh(mesh).chains;
if (!chain) throw new Error('the mesh has a chain');

let bed: Testbed;

test.before(async () => {
  bed = await openTestbed();
  ip('route', 'add', '10.4.0.0/24', 'via', '10.0.0.1');
  applyMesh(bed, mesh, 'fw');
});

test.after.always(() => bed?.close());

interface Flow {
  source: string;
  port: number;
  protocol: 6 | 17;
}

const flows = (count: number): Flow[] =>
  Array.from({ length: count }, (_, i) => ({
    source: `10.1.${(i >> 4) & 255}.${1 + (i % 200)}`,
    port: 1024 + ((i * 7) % 60_000),
    protocol: i % 3 === 0 ? 6 : 17,
  }));

/** Sends a packet of a flow out, and tells the first hop that it is sent to, or why none. */
function send({ source, port, protocol }: Flow, fields: Partial<Ipv4> = {}): string {
  const ends = { source, destination: server };
  const payload =
    protocol === 6 ? tcp(ends, { sourcePort: port }) : udp({ sourcePort: port, destinationPort: 80 });
  const frame = ethernet(macOf0, ipv4({ ...ends, protocol, payload, ...fields }));
  const { counted, frame: sent } = runPacket(bed, 'mesh0', 'egress', frame, { from: 'edge0' });
  if (counted.imposed === 1) return formatAddress(sent.readUInt32BE(30));
  return Object.keys(counted)
    .filter((name) => name !== 'received')
    .join();
}

let macOf0 = '';
test.before(() => {
  macOf0 = macOf('mesh0');
});

const slotOf = ({ source, port, protocol }: Flow): number =>
  chooseSlot(
    { address: parseAddress(source) ?? 0, port },
    { address: parseAddress(server) ?? 0, port: 80 },
    protocol,
  );

test.serial('the program sends each flow where its mirror in TypeScript says', (t) => {
  const chosen = choosePaths(chain.ways, () => true);
  const used = new Set<string>();
  for (const flow of flows(2000)) {
    const expected = formatAddress(chosen[slotOf(flow)]?.hops[0]?.address ?? 0);
    t.is(send(flow), expected);
    used.add(expected);
  }
  t.is(used.size, replicas.length);
});

test.serial('fragments of a datagram go one way, whatever their ports', (t) => {
  const ways = flows(50).map((flow) => {
    const first = send({ ...flow, protocol: 17 }, { fragment: 0x2000 });
    const later = send({ ...flow, protocol: 17 }, { fragment: 0x0010, payload: Buffer.alloc(64, flow.port) });
    t.is(later, first);
    return first;
  });
  t.true(new Set(ways).size > 1);
});

test.serial('flows of a replica that is down go to the others, and no other flow moves', (t) => {
  const sample = flows(1000);
  const before = sample.map((flow) => send(flow));
  const down = new Set(
    pathsOf(chain)
      .filter(({ hops }) => hops[0]?.node === 'b')
      .map(({ id }) => id),
  );
  applyMesh(bed, mesh, 'fw', 2, { ...allAvailable, down });
  const after = sample.map((flow) => send(flow));
  t.false(after.includes('10.4.0.2'));
  before.forEach((way, i) => {
    if (way !== '10.4.0.2') t.is(after[i], way);
  });
  t.is(new Set(after).size, replicas.length - 1);
});

test.serial(
  'while a node is drained new connections go past it, and others stay until its time is up',
  (t) => {
    applyMesh(bed, mesh, 'fw', 2);
    const through = flows(400).filter((flow) => flow.protocol === 6 && send(flow) === '10.4.0.2');
    const [old, fresh] = through;
    const datagram = flows(400).find((flow) => flow.protocol === 17 && send(flow) === '10.4.0.2');
    if (!old || !fresh || !datagram) throw new Error('of 400 flows some go to b');
    const drain = (until: number) => ({ ...allAvailable, drained: new Map([['b', until]]) });
    applyMesh(bed, mesh, 'fw', 3, drain(Date.now() + 60_000));
    const segment = (flow: Flow, flags: number): Partial<Ipv4> => ({
      payload: tcp({ source: flow.source, destination: server }, { sourcePort: flow.port, flags }),
    });
    const [syn, ack, synAck] = [0x02, 0x10, 0x12];
    t.is(send(old, segment(old, ack)), '10.4.0.2');
    t.is(send(old, segment(old, synAck)), '10.4.0.2');
    t.is(send(datagram), '10.4.0.2', 'nobody can see where a flow of datagrams begins');
    const moved = send(fresh, segment(fresh, syn));
    t.not(moved, '10.4.0.2');
    t.is(send(fresh, segment(fresh, ack)), moved, 'and is remembered');
    t.is(send(old, segment(old, ack)), '10.4.0.2');
    applyMesh(bed, mesh, 'fw', 4, drain(Date.now() - 1));
    t.false(through.some((flow) => send(flow) === '10.4.0.2'));
    t.not(send(datagram), '10.4.0.2');
    t.is(send(fresh, segment(fresh, ack)), moved);
  },
);

test.serial('a drained node is used where nothing else is left', (t) => {
  const others = pathsOf(chain).filter(({ hops }) => hops[0]?.node !== 'b');
  const down = new Set(others.map(({ id }) => id));
  applyMesh(bed, mesh, 'fw', 5, { down, drained: new Map([['b', 0]]) });
  t.is(send({ source: '10.1.0.10', port: 4000, protocol: 17 }), '10.4.0.2');
});

test.serial('when all are down packets are dropped as unavailable', (t) => {
  applyMesh(bed, mesh, 'fw', 6, { ...allAvailable, down: new Set(pathsOf(chain).map(({ id }) => id)) });
  t.is(send({ source: '10.1.0.10', port: 4000, protocol: 17 }), 'unavailable');
});

test.serial('a chain whose choice is in no table drops its packets', (t) => {
  applyMesh(bed, mesh, 'fw', 7);
  const { choices } = bed.datapath.maps;
  choices.deleteBatch(choices.entries().keys);
  t.is(send({ source: '10.1.0.10', port: 4000, protocol: 17 }), 'no_chain');
});
