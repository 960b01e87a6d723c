/**
 * Hostile packets and what host fw of tests/helpers/hostile-lab.ts must do with them. The numbers H1, H2 … are stable: other tests
 * and reports call packets by them. Rows that only a test of their own can tell are there: H73, H74 and H76.
 */
import { formatAddress, parseAddress } from '../../src/address.js';
import { headerAt } from '../../src/path.js';
import type { DropReason, NoteReason, OutcomeReason } from '../../src/reasons.js';
import { client, mesh, rendered, server } from '../parser/chains.js';
import { type Ipv4, icmpError, ipv4, options, recordRoute, sourceRoute, udp } from './packet.js';

/** The outcome or drop that must be counted once, and notes beside it. */
type Counted = readonly [OutcomeReason | DropReason, ...NoteReason[]];

export interface CorpusRow {
  h: number;
  title: string;
  /** From the IPv4 header on. */
  packet: Uint8Array;
  broadcast?: true;
  /** On a mesh port; null where the row is about edges only. */
  mesh: Counted | null;
  /** Null where it is about mesh ports only. */
  edge: Counted | null;
}

export const me = '10.0.0.2';
export const neighbour = '10.0.0.3';
/** Behind fw's edge port; a rule takes it, and there is no plain route to it. */
export const unrouted = '10.8.0.10';
/** A rule of fw sends UDP to this port through ids and gw. */
export const chainedPort = Number(
  mesh.rules.find(({ chain }) => chain === 'out')?.match.destinationPorts?.[0] ?? 0,
);

/** The packet of a chain as it arrives at its hop with this position, from 1 on. */
export function chained(name: string, position: number, fields: Partial<Ipv4> = {}): Ipv4 {
  const chain = rendered.chains.find((candidate) => candidate.name === name);
  if (!chain) throw new Error(`no chain ${name}`);
  const header = headerAt(chain.path, position, parseAddress(server) ?? 0);
  return {
    source: client,
    destination: formatAddress(header.destination),
    options: header.options,
    ...fields,
  };
}

/** UDP to fw with these options, padded. */
const routed = (option: Uint8Array, fields: Partial<Ipv4> = {}): Ipv4 => ({
  source: client,
  destination: me,
  options: options(option),
  ...fields,
});

/** UDP that fw would forward to the server, with these options. */
const plain = (option: readonly number[] | Uint8Array, fields: Partial<Ipv4> = {}): Ipv4 => ({
  source: client,
  destination: server,
  options: options(Buffer.from(option)),
  ...fields,
});

const option = (...bytes: number[]): Buffer => Buffer.from(bytes);
const join = (...parts: Uint8Array[]): Buffer => Buffer.concat(parts);
const zeros = (count: number): Buffer => Buffer.alloc(count);
const lsrr = sourceRoute;
const ssrr = (addresses: readonly string[], pointer = 4): Buffer =>
  sourceRoute(addresses, { type: 137, pointer });

const cipso = join(option(134, 10, 0, 0, 0, 3), option(1, 4, 0, 0));
const cipsoWithoutTag = option(134, 6, 0, 0, 0, 3);
const security = join(option(130, 11), zeros(9));
const timestamp = (pointer: number): Buffer => join(option(68, 12, pointer, 0), zeros(8));
const routerAlert = option(148, 4, 0, 0);
const destinationUnreachable = icmpError(3, 1, 0, ipv4({ source: server, destination: client }));

const anyEdge: Counted = ['edge_option'];

let lastId = 0;
/** `edge` where it is not a drop for having options at all. */
function row(
  h: number,
  title: string,
  packet: Ipv4 | Uint8Array,
  mesh: Counted | null,
  edge: Counted | null = anyEdge,
): CorpusRow {
  const bytes = packet instanceof Uint8Array ? packet : ipv4({ id: ++lastId, ...packet });
  return { h, title, packet: bytes, mesh, edge };
}

/** A chain packet of fw with other options, or behind them. */
const beside = (extra: Uint8Array): Ipv4 => routed(join(lsrr([neighbour, server]), extra));

/** With a tag of zeros, without one, and with a key's slot in it. */
const tagged = (packet: Ipv4): Ipv4 => ({
  ...packet,
  options: join(option(158, 12), zeros(10), Buffer.from(packet.options ?? [])),
});
const untagged = (packet: Ipv4): Ipv4 => ({
  ...packet,
  options: Buffer.from(packet.options ?? []).subarray(12),
});
const inSlot = (slot: number, packet: Ipv4): Ipv4 => ({
  ...packet,
  options: Buffer.from(packet.options ?? []).map((byte, at) => (at === 2 ? slot << 6 : byte)),
});

export const corpus: readonly CorpusRow[] = [
  row(
    1,
    'UDP without options',
    { source: client, destination: server, payload: udp({ destinationPort: chainedPort }) },
    ['passed'],
    ['passed'],
  ),
  row(2, 'Record Route with 3 slots, alone', plain(recordRoute(3)), ['passed']),
  row(
    3,
    'a full Record Route in a chain',
    chained('through', 2, {
      options: options(
        lsrr(['10.0.0.1', neighbour, '10.0.0.4', server], { pointer: 8 }),
        recordRoute(2, ['10.5.5.5', '10.6.6.6']),
      ),
    }),
    ['advanced', 'record_full'],
  ),
  row(4, 'Record Route with 9 slots, alone', plain(recordRoute(9)), ['passed']),
  row(5, 'Record Route of length 5', plain(option(7, 5, 4, 0, 0)), ['record_length']),
  row(6, 'Record Route with pointer 3', plain(recordRoute(1, [], 3)), ['record_pointer']),
  row(7, 'Record Route of length 2', plain(option(7, 2, 4)), ['record_length']),
  row(8, 'Record Route of length 3, without a slot', plain(option(7, 3, 4)), ['record_length']),
  row(9, 'two Record Routes', plain(join(recordRoute(1), recordRoute(1))), ['duplicate_option']),
  row(10, 'LSRR to me, of a chain', chained('longest', 2), ['advanced']),
  row(10, 'LSRR to me, of no chain', routed(lsrr(['10.0.0.9', server])), ['unknown_path']),
  row(11, 'SSRR, the next hop a neighbour', chained('through-strict', 1), ['advanced']),
  row(12, 'SSRR, the next hop behind a gateway', chained('through-far', 1), ['not_adjacent', 'icmp_sent']),
  row(13, 'SSRR to a stranger', routed(ssrr([server]), { destination: '10.0.0.99' }), ['not_my_hop']),
  row(14, 'LSRR to another node', routed(lsrr([server]), { destination: neighbour }), ['forwarded']),
  row(14, 'LSRR to a stranger', routed(lsrr([server]), { destination: '10.0.0.99' }), ['not_my_hop']),
  row(15, 'an exhausted LSRR to me', routed(lsrr([neighbour, server], { pointer: 12 })), ['exhausted']),
  ...[0, 1, 2, 3].map((length, i) =>
    row(16 + i, `LSRR of length ${length}`, routed(lsrr([neighbour, server], { length })), ['option_length']),
  ),
  row(20, 'LSRR with pointer 0', routed(lsrr([server], { pointer: 0 })), ['pointer']),
  row(21, 'LSRR with pointer 3', routed(lsrr([server], { pointer: 3 })), ['pointer']),
  row(22, 'LSRR of length 7 with pointer 6', routed(lsrr([server], { pointer: 6 })), ['pointer']),
  row(23, 'LSRR with pointer 255', routed(lsrr([server], { pointer: 255 })), ['pointer']),
  row(24, 'LSRR of length 39 in 8 bytes', routed(lsrr([server], { length: 39 })), ['option_overrun']),
  row(25, 'two LSRR of length 3 with pointer 39', routed(option(131, 3, 39, 131, 3, 39)), ['option_length']),
  row(26, 'two LSRR', routed(join(lsrr([server]), lsrr([server]))), ['duplicate_option']),
  row(27, 'LSRR and SSRR', routed(join(lsrr([server]), ssrr([server]))), ['duplicate_option']),
  row(28, 'LSRR and Record Route, of a chain', chained('through', 2), ['advanced']),
  row(29, '8 NOPs', plain(Buffer.alloc(8, 1)), ['passed']),
  row(30, 'a NOP before LSRR', routed(join(option(1), lsrr([server]))), ['layout']),
  row(31, 'a type in the last byte', routed(option(1, 1, 1, 131)), ['option_overrun']),
  ...['224.0.0.5', '255.255.255.255'].map((hop, i) =>
    row(32 + i, `next hop ${hop}`, routed(lsrr([hop, server])), ['bad_hop']),
  ),
  // A hop knows no prefixes; it knows that no chain goes there.
  row(34, "next hop the mesh network's broadcast", routed(lsrr(['10.0.0.255', server])), ['unknown_path']),
  ...['127.0.0.1', '0.0.0.0', '240.0.0.1'].map((hop, i) =>
    row(35 + i, `next hop ${hop}`, routed(lsrr([hop, server])), ['bad_hop']),
  ),
  row(38, 'a next hop without a route', chained('through-lost', 2), ['no_route', 'icmp_sent']),
  row(39, 'ping-pong', routed(lsrr([neighbour, me, neighbour, server])), ['loop']),
  row(40, 'next hop the sender', routed(lsrr([client, server])), ['reflect']),
  row(41, 'my own address as source', chained('through', 2, { source: me }), ['source_self']),
  row(42, 'a multicast source', chained('through', 2, { source: '224.0.0.9' }), ['source_martian']),
  row(43, 'source 127.0.0.1', chained('through', 2, { source: '127.0.0.1' }), ['source_martian']),
  row(44, 'TTL 1', chained('through', 2, { ttl: 1 }), ['ttl', 'icmp_sent']),
  row(45, 'TTL 0', chained('through', 2, { ttl: 0 }), ['ttl', 'icmp_sent']),
  row(45, 'TTL 0 at the last hop', chained('in', 3, { ttl: 0 }), ['ttl']),
  // It is no chain's: what becomes of it is the kernel's to say, and it does not forward it.
  row(46, 'Record Route alone, TTL 1', plain(recordRoute(3), { ttl: 1 }), ['passed']),
  row(47, 'a first fragment with LSRR', chained('through', 2, { fragment: 0x2000 }), ['advanced']),
  row(48, 'IHL 4', { source: client, destination: server, ihl: 4 }, ['ihl'], ['ihl']),
  row(49, 'IHL 0', { source: client, destination: server, ihl: 0 }, ['ihl'], ['ihl']),
  row(
    50,
    'IHL 15 in a packet of 40 bytes',
    { source: client, destination: server, ihl: 15, payload: zeros(20) },
    ['total_length'],
    ['total_length'],
  ),
  ...[20, 60].map((totalLength) =>
    row(
      51,
      `IHL 15 and total length ${totalLength} in a frame of 34 bytes`,
      { source: client, destination: server, ihl: 15, totalLength, payload: zeros(0) },
      ['total_length'],
      ['total_length'],
    ),
  ),
  row(
    52,
    'a total length beyond the frame',
    chained('through', 2, { totalLength: 1000 }),
    ['total_length'],
    ['total_length'],
  ),
  row(
    53,
    'a total length below the header',
    chained('through', 2, { totalLength: 40 }),
    ['total_length'],
    ['total_length'],
  ),
  row(54, 'version 6', chained('through', 2, { version: 6 }), ['version'], ['version']),
  row(55, 'a wrong header checksum', chained('through', 2, { checksum: 1 }), ['checksum']),
  row(
    55,
    'a wrong header checksum without options, for the stack to see',
    { source: client, destination: server, checksum: 1, payload: udp({ destinationPort: chainedPort }) },
    ['passed'],
    ['passed'],
  ),
  row(56, 'option 30 without a chain', plain(join(option(30, 8), zeros(6))), ['passed']),
  row(56, 'option 30 beside LSRR', beside(join(option(30, 8), zeros(6))), ['unknown_option']),
  row(57, 'option 158 that is not ours, beside LSRR', beside(join(option(158, 8), zeros(6))), ['tag_format']),
  row(57, 'option 158 of the right length, alone', plain(join(option(158, 12), zeros(10))), ['layout']),
  row(57, 'option 158 of the right length, beside a route without', tagged(chained('in', 3)), [
    'unknown_option',
  ]),
  row(58, 'a timestamp with 2 slots', plain(timestamp(5)), ['forbidden_option']),
  row(59, 'a timestamp with pointer 4', plain(timestamp(4)), ['forbidden_option']),
  row(60, 'Router Alert without a chain', plain(routerAlert), ['passed']),
  row(60, 'Router Alert beside LSRR', beside(routerAlert), ['forbidden_option']),
  row(61, 'Router Alert of length 2', plain(option(148, 2, 0, 0)), ['option_length']),
  row(62, 'CIPSO without a chain', plain(cipso), ['passed']),
  row(62, 'CIPSO beside LSRR', beside(cipso), ['forbidden_option']),
  row(63, 'CIPSO without a tag', plain(cipsoWithoutTag), ['passed']),
  row(63, 'CIPSO without a tag beside LSRR', beside(cipsoWithoutTag), ['forbidden_option']),
  row(64, 'Security without a chain', plain(security), ['passed']),
  row(64, 'Security beside LSRR', beside(security), ['forbidden_option']),
  row(65, 'Stream Identifier', plain(option(136, 4, 0, 0)), ['forbidden_option']),
  row(
    66,
    'an ICMP error inside a chain',
    chained('through', 2, { protocol: 1, payload: destinationUnreachable }),
    ['advanced'],
  ),
  row(
    66,
    'an ICMP error inside a chain, TTL 1, which nobody answers',
    chained('through', 2, { protocol: 1, payload: destinationUnreachable, ttl: 1 }),
    ['ttl'],
  ),
  { ...row(67, 'LSRR in a broadcast frame', chained('through', 2), ['layer2_destination']), broadcast: true },
  row(
    68,
    'IPIP with LSRR inside',
    { source: client, destination: server, protocol: 4, payload: ipv4(chained('through', 2)) },
    ['passed'],
    ['passed'],
  ),
  row(69, 'a frame of 14 bytes', zeros(0), ['short'], ['short']),
  row(70, '40 bytes of options where a chain would need 20', plain(Buffer.alloc(40, 1)), ['passed']),
  row(71, 'LSRR where a chain would be imposed', plain(lsrr([neighbour, server])), null),
  row(72, 'Record Route where a chain would be imposed', plain(recordRoute(3)), null),
  row(72, 'a timestamp where a chain would be imposed', plain(timestamp(5)), null),
  row(75, 'a path of no chain', routed(lsrr(['10.0.0.9', '10.0.0.8', server])), ['unknown_path']),
  row(
    77,
    'one entry ahead changed',
    chained('through', 2, {
      options: options(
        lsrr(['10.0.0.1', neighbour, '10.0.0.9', server], { pointer: 8 }),
        recordRoute(2, ['10.0.0.1']),
      ),
    }),
    ['route_mismatch'],
  ),
  row(78, 'a hop skipped', chained('through', 3, { destination: me }), ['position']),
  row(
    78,
    'the pointer alone one too far',
    chained('through', 2, {
      options: options(
        lsrr(['10.0.0.1', neighbour, '10.0.0.4', server], { pointer: 12 }),
        recordRoute(2, ['10.0.0.1']),
      ),
    }),
    ['record_mismatch'],
  ),
  row(
    79,
    'a recorded entry that is another than expected',
    chained('through', 2, {
      options: options(
        lsrr(['10.0.0.9', neighbour, '10.0.0.4', server], { pointer: 8 }),
        recordRoute(2, ['10.0.0.1']),
      ),
    }),
    ['record_mismatch'],
  ),
  row(
    79,
    'a recorded entry that no host has',
    chained('through', 2, {
      options: options(
        lsrr(['127.0.0.1', neighbour, '10.0.0.4', server], { pointer: 8 }),
        recordRoute(2, ['10.0.0.1']),
      ),
    }),
    ['bad_hop'],
  ),

  // Right tags, old ones and repeated ones: tests/bpf/integrity.test.ts. No slot of the keys that fw has can sign here.
  row(80, 'no tag where one is required', untagged(chained('sealed', 2)), ['tag_missing']),
  row(81, 'a wrong tag', chained('sealed', 2), ['tag_wrong']),
  row(81, 'a wrong tag where it may be missing', chained('sealed-in', 2), ['tag_wrong']),
  row(82, 'a tag made with the key of an empty slot', inSlot(1, chained('sealed', 2)), ['key_unknown']),
  row(83, 'a tag made with a key that has run out', inSlot(2, chained('sealed', 2)), ['key_expired']),
  row(86, 'a right packet from elsewhere than the hop before', chained('from-aside', 2), ['previous_hop']),

  row(13, 'SSRR to another node', chained('through-strict', 2, { destination: neighbour }), ['not_my_hop']),
  row(87, 'a right chain packet', chained('through', 2), ['advanced']),

  // H89, a node's address from outside: tests/bpf/packets.test.ts has ports that let nothing through to nodes.
  ...[neighbour, me, '10.1.0.1'].map((source) =>
    row(88, `source ${source}, which is one of inside`, { source, destination: server }, null, [
      'source_spoof',
    ]),
  ),
  ...['224.0.0.9', '255.255.255.255', '0.0.0.0', '240.0.0.1'].map((source) =>
    row(
      42,
      `source ${source}, to where it would get a chain at once`,
      { source, destination: unrouted },
      null,
      ['source_martian'],
    ),
  ),
  row(
    55,
    'a wrong checksum, to where it would get a chain at once',
    { source: client, destination: unrouted, checksum: 1 },
    null,
    ['checksum'],
  ),
  row(
    90,
    'an ICMP error that quotes a packet which nobody signed',
    {
      source: '10.0.0.77',
      destination: client,
      protocol: 1,
      payload: icmpError(3, 4, 1400, ipv4(chained('sealed', 3))),
    },
    ['icmp_quote'],
    null,
  ),
];
