/** Probes of paths, as host fw of tests/helpers/testbed.ts: where one is sent, on its way, and where it is turned round. */
import test from 'ava';
import { formatAddress, parseAddress } from '../../src/address.js';
import { encode } from '../../src/codec.js';
import { functionNumber } from '../../src/functions.js';
import { enums } from '../../src/layout.js';
import type { Mesh } from '../../src/mesh.js';
import { headerAt, type RenderedPath } from '../../src/path.js';
import { renderMesh } from '../../src/render.js';
import { address, ethernet, type Ipv4, internetChecksum, ipv4, udp } from '../helpers/packet.js';
import { applyMesh, macOf, openTestbed, type Ran, runPacket, type Testbed } from '../helpers/testbed.js';

const mesh: Mesh = {
  version: 1,
  nodes: {
    edge: { address: '10.0.0.1' },
    fw: { address: '10.0.0.2' },
    ids: { address: '10.0.0.3' },
    gw: { address: '10.0.0.4' },
  },
  services: { firewall: { nodes: ['fw'], function: 'stack' } },
  chains: {
    out: { hops: ['ids', 'gw'], record: 1 },
    through: { hops: ['firewall', 'gw'] },
    in: { hops: ['ids', 'fw'], record: 2 },
    over: { hops: ['fw', 'gw'], record: 2 },
  },
  rules: [
    { name: 'out', at: ['fw'], match: { destination: '10.9.0.0/24' }, chain: 'out' },
    { name: 'through', at: ['edge'], match: { destination: '10.9.0.0/24' }, chain: 'through' },
    { name: 'over', at: ['edge'], match: { destination: '10.7.0.0/24' }, chain: 'over' },
    { name: 'in', at: ['edge'], match: { destination: '10.8.0.0/24' }, chain: 'in' },
  ],
};

let bed: Testbed;

test.before(async () => {
  bed = await openTestbed();
  applyMesh(bed, mesh, 'fw');
});

test.after.always(() => bed?.close());

function pathOf(name: string): RenderedPath {
  const chain = renderMesh(mesh).chains.find((candidate) => candidate.name === name);
  if (!chain) throw new Error(`no chain ${name}`);
  return chain.path;
}

const port = enums.lsr_limits.LSR_PROBE_PORT;
const magic = enums.lsr_probe_magic.LSR_PROBE_MAGIC;

function probe(
  path: number,
  fields: {
    destinationPort?: number;
    sourcePort?: number;
    magic?: number;
    turn?: number;
    place?: number;
  } = {},
): Buffer {
  const { turn = 0, place = 0 } = fields;
  const numbers = { path, nonce: [1, 2], number: 3, turn, place };
  const head = encode('lsr_probe', { magic: fields.magic ?? magic, ...numbers });
  const { destinationPort = port, sourcePort = 50_000 } = fields;
  return Buffer.concat([
    udp({ destinationPort, sourcePort, data: 'x'.repeat(head.length) }).subarray(0, 8),
    head,
  ]);
}

const run = (direction: 'ingress' | 'egress', packet: Ipv4, from?: 'edge0'): Ran =>
  runPacket(bed, 'mesh0', direction, ethernet(macOf('mesh0'), ipv4(packet)), from ? { from } : {});

/** As it arrives at a hop of its path, on its way to the last node. */
function arriving(name: string, position: number, end: string, fields: Partial<Ipv4> = {}): Ipv4 {
  const header = headerAt(pathOf(name), position, parseAddress(end) ?? 0);
  const destination = formatAddress(header.destination);
  return {
    source: '10.0.0.1',
    destination,
    options: header.options,
    payload: probe(pathOf(name).id),
    ...fields,
  };
}

test.serial("an agent's probe is sent down the path that it names", (t) => {
  const { counted, frame } = run('egress', {
    source: '10.0.0.2',
    destination: '10.0.0.4',
    payload: probe(pathOf('out').id),
  });
  t.deepEqual(counted, { received: 1, imposed: 1 });
  const header = headerAt(pathOf('out'), 1, parseAddress('10.0.0.4') ?? 0);
  t.is(formatAddress(frame.readUInt32BE(30)), '10.0.0.3');
  t.is(
    frame.subarray(34, 34 + header.options.length).toString('hex'),
    Buffer.from(header.options).toString('hex'),
  );
});

test.serial('a probe of a path that is in no table is dropped', (t) => {
  const { counted } = run('egress', { source: '10.0.0.2', destination: '10.0.0.4', payload: probe(12345) });
  t.deepEqual(counted, { received: 1, no_chain: 1 });
});

const plain: [title: string, packet: Partial<Ipv4>, from?: 'edge0'][] = [
  ['to another port', { payload: probe(pathOf('out').id, { destinationPort: 53 }) }],
  ['without its mark', { payload: probe(pathOf('out').id, { magic: 0 }) }],
  ['to no node', { destination: '10.0.0.99' }],
  ['from another host', {}, 'edge0'],
  ['cut short', { payload: probe(pathOf('out').id).subarray(0, 20) }],
];

for (const [title, fields, from] of plain) {
  test.serial(`a datagram like a probe, ${title}, passes as it is`, (t) => {
    const packet = {
      source: '10.0.0.2',
      destination: '10.0.0.4',
      payload: probe(pathOf('out').id),
      ...fields,
    };
    t.deepEqual(run('egress', packet, from).counted, { received: 1, passed: 1 });
  });
}

test.serial('at the end of its path a probe is turned round', (t) => {
  const { counted, frame, action } = run('ingress', arriving('in', 2, '10.0.0.2', { ttl: 7 }));
  t.deepEqual(counted, { received: 1, probed: 1 });
  t.is(action, 7);
  const answer = { source: '10.0.0.2', destination: '10.0.0.1', ttl: 64 };
  const payload = probe(pathOf('in').id, { sourcePort: port, destinationPort: 50_000 });
  t.is(frame.subarray(14).toString('hex'), ipv4({ ...answer, payload }).toString('hex'));
  t.is(bed.datapath.maps.flows_even.entries().count, 0, 'and is no flow');
});

const { LSR_TURN_NEVER, LSR_TURN_BEFORE, LSR_TURN_BEHIND, LSR_TURN_END } = enums.lsr_turn;
const turns: [name: string, position: number, end: string, turn: number, place: number, outcome: string][] = [
  ['over', 1, '10.0.0.4', 1, LSR_TURN_BEFORE, 'probed'],
  ['over', 1, '10.0.0.4', 1, LSR_TURN_BEHIND, 'probed'],
  ['over', 1, '10.0.0.4', 2, LSR_TURN_BEFORE, 'advanced'],
  ['over', 1, '10.0.0.4', 2, LSR_TURN_BEHIND, 'advanced'],
  ['over', 1, '10.0.0.4', 0, LSR_TURN_BEFORE, 'advanced'],
  ['over', 1, '10.0.0.4', 1, LSR_TURN_NEVER, 'advanced'],
  ['over', 1, '10.0.0.4', 1, LSR_TURN_END, 'advanced'],
  ['over', 1, '10.0.0.4', 1, 0xffff, 'advanced'],
  ['through', 1, '10.0.0.4', 1, LSR_TURN_BEFORE, 'probed'],
  ['through', 1, '10.0.0.4', 1, LSR_TURN_BEHIND, 'to_stack'],
  ['in', 2, '10.0.0.2', 2, LSR_TURN_BEFORE, 'probed'],
  ['in', 2, '10.0.0.2', 1, LSR_TURN_BEFORE, 'probed'],
];

/** UDP with the checksum that its addresses ask for (RFC 768). */
function withChecksum(datagram: Buffer, source: string, destination: string): Buffer {
  const sealed = Buffer.from(datagram);
  sealed.writeUInt16BE(0, 6);
  const pseudo = Buffer.concat([
    address(source),
    address(destination),
    Buffer.from([0, 17, 0, sealed.length]),
  ]);
  sealed.writeUInt16BE(internetChecksum(Buffer.concat([pseudo, sealed])) || 0xffff, 6);
  return sealed;
}

for (const [name, position, end, turn, place, outcome] of turns) {
  test.serial(
    `a probe of ${name} to be turned at hop ${turn}, place ${place}: ${outcome} at hop ${position}`,
    (t) => {
      const sent = withChecksum(probe(pathOf(name).id, { turn, place }), '10.0.0.1', end);
      const { counted, frame } = run('ingress', arriving(name, position, end, { payload: sent }));
      t.deepEqual(counted, { received: 1, [outcome]: 1 });
      t.is(bed.datapath.maps.traffic.entries().count, 0, 'and is no traffic');
      if (outcome !== 'probed') return;
      const answer = { source: '10.0.0.2', destination: '10.0.0.1', ttl: 64 };
      const back = probe(pathOf(name).id, { sourcePort: port, destinationPort: 50_000, turn, place });
      const payload = withChecksum(back, answer.source, answer.destination);
      t.is(frame.subarray(14).toString('hex'), ipv4({ ...answer, payload }).toString('hex'));
    },
  );
}

test.serial('no client has a packet of its own turned round', (t) => {
  const payload = probe(pathOf('over').id, { turn: 1, place: LSR_TURN_BEFORE });
  const { counted } = run('ingress', arriving('over', 1, '10.7.0.1', { source: '10.1.0.10', payload }));
  t.deepEqual(counted, { received: 1, advanced: 1 });
  t.is(bed.datapath.maps.traffic.entries().count, 1, 'and counts as traffic');
});

const refused: [title: string, fields: Partial<Ipv4>, reason: string][] = [
  ['a probe from nobody of the mesh', { source: '10.1.0.10' }, 'destination'],
  ['what is no probe, to the last node itself', { payload: udp() }, 'destination'],
  ['a fragment of a probe', { fragment: 0x2000 }, 'destination'],
];

for (const [title, fields, reason] of refused) {
  test.serial(`dropped at the end: ${title}`, (t) => {
    t.deepEqual(run('ingress', arriving('in', 2, '10.0.0.2', fields)).counted, { received: 1, [reason]: 1 });
  });
}

test.serial('a function that is unwell gets no probes, and all else', (t) => {
  const { functions } = bed.datapath.maps;
  const key = Buffer.alloc(4);
  key.writeUInt32LE(functionNumber('firewall'));
  const value = functions.get(key);
  if (!value) throw new Error('the firewall is a function of this host');
  t.deepEqual(run('ingress', arriving('through', 1, '10.0.0.4')).counted, { received: 1, to_stack: 1 });
  const unwell = Buffer.from(value);
  unwell.writeUInt32LE(1, unwell.length - 4);
  functions.put(key, unwell);
  t.deepEqual(run('ingress', arriving('through', 1, '10.0.0.4')).counted, { received: 1, unwell: 1 });
  const other = arriving('through', 1, '10.9.0.10', { source: '10.1.0.10', payload: udp() });
  t.deepEqual(run('ingress', other).counted, { received: 1, to_stack: 1 });
  functions.put(key, value);
});
