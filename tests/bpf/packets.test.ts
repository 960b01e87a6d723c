/**
 * Packet tables, as host fw:
 *
 *   10.1.0.10 ── edge0 [ fw 10.0.0.2 ] mesh0 ── 10.0.0.1 edge · .3 ids · .4 gw
 *   10.2.0.10 ── strip0
 *
 * 10.9.0.0/24 and 10.0.7.0/24 are behind gw; to all else of 10.9.0.0/16 there is no plain route.
 */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { formatAddress, parseAddress } from '../../src/address.js';
import { decode } from '../../src/codec.js';
import type { Capacities } from '../../src/datapath.js';
import type { Mesh } from '../../src/mesh.js';
import { headerAt, type RenderedPath } from '../../src/path.js';
import { reasons } from '../../src/reasons.js';
import { renderMesh } from '../../src/render.js';
import { functionReasons } from '../helpers/function-reasons.js';
import {
  address,
  ethernet,
  type Ipv4,
  icmpError,
  internetChecksum,
  ipv4,
  options,
  recordRoute,
  sourceRoute,
  tcp,
  udp,
} from '../helpers/packet.js';
import { integrityReasons } from '../helpers/tag.js';
import {
  applyMesh,
  type Context,
  changeRoutes,
  countAll,
  macOf,
  openBeside,
  openTestbed,
  type PortName,
  runPacket,
  sendFrame,
  skbContext,
  type Testbed,
} from '../helpers/testbed.js';

const nodes = {
  edge: { address: '10.0.0.1' },
  fw: { address: '10.0.0.2' },
  ids: { address: '10.0.0.3', addresses: ['10.66.0.3'] },
  gw: { address: '10.0.0.4' },
  far: { address: '10.0.7.7' },
  lost: { address: '10.77.0.1' },
  aside: { address: '10.1.0.77', addresses: ['10.66.0.1'] },
  quiet: { address: '10.0.0.50' },
};

const rule = (name: string, chain: string, match: Mesh['rules'][number]['match']): Mesh['rules'][number] => ({
  name,
  at: ['fw'],
  match,
  chain,
});

/** fw is the edge of out…, a middle hop of through…, and the last hop of in…. */
const mesh: Mesh = {
  version: 1,
  nodes,
  chains: {
    out: { hops: ['ids', 'gw'], record: 1 },
    outStrict: { hops: ['ids', 'gw'], mode: 'strict' },
    outFar: { hops: ['far', 'gw'], mode: 'strict' },
    outLost: { hops: ['lost', 'gw'] },
    outAside: { hops: ['aside', 'gw'] },
    outQuiet: { hops: ['quiet', 'gw'] },
    outWhole: { hops: ['gw', 'ids'], fragments: 'drop' },
    back: { hops: ['edge'] },
    through: { hops: ['edge', 'fw', 'ids', 'gw'], record: 2 },
    throughLost: { hops: ['fw', 'lost'] },
    throughFar: { hops: ['fw', 'far'], mode: 'strict' },
    throughAside: { hops: ['fw', 'aside'] },
    fromAside: { hops: ['aside', 'fw', 'ids'] },
    reportAside: { hops: ['aside', 'fw', 'ids'], record: 2, onDeviation: 'report' },
    inWhole: { hops: ['ids', 'fw'], record: 4, onDeviation: 'drop' },
    in: { hops: ['edge', 'ids', 'fw'], record: 2 },
    inRecorded: { hops: ['fw'], record: 7 },
    everywhere: { hops: ['edge', 'fw'], record: 3 },
    fromTwo: { hops: ['fw', 'gw'], record: 4 },
    endsHere: { hops: ['ids', 'fw'], record: 5 },
    beginsHere: { hops: ['ids', 'edge'], record: 5 },
  },
  rules: [
    rule('out', 'out', { destination: '10.9.0.0/24', protocol: 'udp' }),
    rule('out-tcp', 'out', { destination: '10.9.0.0/24', protocol: 'tcp' }),
    rule('out-strict', 'outStrict', {
      destination: '10.9.1.0/24',
      destinationPorts: ['8000-8999'],
      protocol: 'udp',
    }),
    rule('out-far', 'outFar', { destination: '10.9.2.0/24' }),
    rule('out-lost', 'outLost', { destination: '10.9.3.0/24' }),
    rule('out-aside', 'outAside', { destination: '10.9.4.0/24' }),
    rule('out-quiet', 'outQuiet', { destination: '10.9.6.0/24' }),
    rule('out-whole', 'outWhole', { destination: '10.9.7.0/24' }),
    rule('back', 'back', { destination: '10.1.0.88/32' }),
    rule('everywhere', 'everywhere', { destination: '0.0.0.0/0', dscp: 63 }),
    rule('out-marked', 'out', { destination: '10.9.5.0/24', mark: 7, dscp: 10 }),
    {
      name: 'again',
      at: ['fw'],
      from: ['mesh'] as const,
      match: { destination: '10.9.0.0/24', protocol: 'udp', destinationPorts: [7777] },
      chain: 'out',
    } as Mesh['rules'][number],
    { name: 'from-two', at: ['edge', 'ids'], match: { destination: '10.9.0.0/24' }, chain: 'fromTwo' },
    { name: 'ends', at: ['edge'], match: { destination: '10.9.0.0/24' }, chain: 'endsHere' },
    { name: 'begins', at: ['fw'], match: { destination: '10.6.0.0/24' }, chain: 'beginsHere' },
    { name: 'recorded', at: ['edge'], match: { destination: '10.9.0.0/24' }, chain: 'inRecorded' },
    ...[
      'through',
      'throughLost',
      'throughFar',
      'throughAside',
      'fromAside',
      'reportAside',
      'inWhole',
      'in',
    ].map((chain): Mesh['rules'][number] => ({
      name: chain,
      at: ['edge'],
      match: { destination: '10.9.0.0/24' },
      chain,
    })),
  ].map((entry, index) => ({ ...entry, priority: index + 1 })),
};

const me = '10.0.0.2';
const client = '10.1.0.10';
const server = '10.9.0.10';
const pathOf = (name: string): RenderedPath => {
  const chain = renderMesh(mesh).chains.find((candidate) => candidate.name === name);
  if (!chain) throw new Error(`no chain ${name}`);
  return chain.path;
};

/** The packet of a chain as it arrives at a hop; Record Route entries may be replaced. */
function chained(name: string, position: number, fields: Partial<Ipv4> = {}): Ipv4 {
  const header = headerAt(pathOf(name), position, parseAddress(fields.destination ?? server) ?? 0);
  const { destination: _, ...rest } = fields;
  return { source: client, destination: formatAddress(header.destination), options: header.options, ...rest };
}

/** As Linux leaves Record Route in a fragment that is not the first. */
function blanked(packet: Ipv4): Ipv4 {
  const bytes = Buffer.from(packet.options ?? []);
  const at = bytes[1] ?? 0;
  return { ...packet, options: bytes.fill(1, at, at + (bytes[at + 1] ?? 0)) };
}

const optionBytes = (name: string): number => pathOf(name).options.length;

/** An error of some router on the way; it quotes 524 bytes, as Linux may quote up to 548. */
const routersError = (type: number, code: number, mtu: number, quoted: Ipv4, length = 524): Ipv4 => ({
  source: '10.0.0.77',
  destination: client,
  protocol: 1,
  payload: icmpError(type, code, mtu, ipv4(quoted).subarray(0, length)),
});

interface Row {
  title: string;
  port: PortName;
  direction?: 'ingress' | 'egress';
  packet?: Ipv4;
  /** Instead of `packet`: the bytes behind the Ethernet header. */
  raw?: Uint8Array;
  type?: number;
  broadcast?: true;
  context?: Context;
  /** The reason that must move by one, and notes beside it. */
  counted: string;
  notes?: string[];
  /** What comes out; the packet as it went in where not given. */
  output?: Ipv4;
  /** The ICMP error that goes back instead of a dropped packet. */
  answer?: Ipv4;
}

/** A packet that came in by a port and that the stack has sent out of mesh0. */
const routedFrom = (from: PortName) => ({ port: 'mesh0', direction: 'egress', context: { from } }) as const;

const tcpEnds = { source: server, destination: client };
const synAck = (mss: number): Buffer =>
  tcp(tcpEnds, {
    sourcePort: 80,
    destinationPort: 4000,
    flags: 0x12,
    options: [1, 1, 2, 4, mss >> 8, mss & 255, 1, 1],
  });
const synFrom88 = (mss: number): Buffer =>
  tcp({ source: '10.1.0.88', destination: server }, { flags: 2, options: [2, 4, mss >> 8, mss & 255] });
const oddSynAck = (mss: number): Buffer =>
  tcp(tcpEnds, {
    sourcePort: 80,
    destinationPort: 4000,
    flags: 0x12,
    options: [1, 2, 4, mss >> 8, mss & 255, 0, 0, 0],
  });

/** The host's own ICMP error. */
const error = (to: string, from: string, type: number, code: number, mtu: number, quoted: Ipv4): Ipv4 => ({
  source: from,
  destination: to,
  protocol: 1,
  tos: 0xc0,
  id: 0,
  fragment: 0x4000,
  payload: icmpError(type, code, mtu, ipv4(quoted).subarray(0, 512)),
});
/** A UDP datagram with the pseudo header's sum in place of its checksum. */
function unfinished(datagram: Buffer): Buffer {
  const pseudo = Buffer.concat([
    address(client),
    address(server),
    Buffer.from([0, 17]),
    datagram.subarray(4, 6),
  ]);
  const bytes = Buffer.from(datagram);
  bytes.writeUInt16BE(~internetChecksum(pseudo) & 0xffff, 6);
  return bytes;
}

/** The error's checksum is right once the device has made that of the quoted datagram, which it does over the quote. */
function finishedLater(packet: Ipv4): Ipv4 {
  const message = Buffer.from(packet.payload ?? []);
  const finished = Buffer.from(message);
  finished.writeUInt16BE(internetChecksum(message.subarray(28)), 28 + 6);
  finished.writeUInt16BE(0, 2);
  message.writeUInt16BE(internetChecksum(finished), 2);
  return { ...packet, payload: message };
}

const full = { fragment: 0x4000, payload: udp({ data: 'x'.repeat(1472) }) };

const outcomes: Row[] = [
  {
    title: "a router's 3/4 about a packet of a chain is translated, its MTU too",
    port: 'mesh0',
    packet: routersError(3, 4, 1400, chained('through', 3, { ttl: 60, ...full })),
    counted: 'passed',
    notes: ['icmp_translated'],
    output: routersError(
      3,
      4,
      1400 - optionBytes('through'),
      {
        source: client,
        destination: server,
        ttl: 60,
        ...full,
      },
      524 - optionBytes('through'),
    ),
  },
  {
    title: 'so is one that comes along the reversed source route',
    port: 'mesh0',
    packet: {
      ...routersError(11, 0, 0, chained('through', 3, { ttl: 1 })),
      destination: '10.0.0.2',
      options: options(sourceRoute(['10.0.0.1', client])),
    },
    counted: 'passed',
    notes: ['icmp_translated'],
    output: routersError(11, 0, 0, { source: client, destination: server, ttl: 1 }),
  },
  ...Object.entries({
    'has a wrong checksum': { checksum: 1 },
    'comes from an address of no host': { source: '127.0.0.1' },
    'comes from this host': { source: '10.0.0.2' },
  }).map(
    ([what, fields]): Row => ({
      title: `an error that ${what} is not translated, and left to the stack`,
      port: 'mesh0',
      packet: { ...routersError(3, 4, 1400, chained('through', 3)), ...fields },
      counted: 'passed',
    }),
  ),
  {
    title: 'an error about a chain that is in no table is left alone',
    port: 'mesh0',
    packet: routersError(3, 4, 1400, {
      ...chained('through', 3),
      options: options(sourceRoute(['10.0.0.9', '10.0.0.3', server], { pointer: 8 })),
    }),
    counted: 'passed',
  },
  {
    title: 'an error to somebody else than the source of the quoted packet is left alone',
    port: 'mesh0',
    packet: { ...routersError(3, 4, 1400, chained('through', 3)), destination: '10.1.0.11' },
    counted: 'passed',
  },
  {
    title: 'a plain packet on a mesh port passes',
    port: 'mesh0',
    packet: { source: server, destination: client },
    counted: 'passed',
  },
  {
    title: 'a plain packet that no rule speaks of passes an edge port',
    port: 'edge0',
    packet: { source: client, destination: '10.8.0.1' },
    counted: 'passed',
  },
  {
    title: 'a plain packet to all hosts of the network takes no chain',
    port: 'edge0',
    broadcast: true,
    packet: { source: client, destination: '10.9.1.10', payload: udp({ destinationPort: 8080 }) },
    counted: 'passed',
  },
  {
    title: 'an error to all hosts of the network is not translated',
    port: 'mesh0',
    broadcast: true,
    packet: routersError(3, 4, 1400, chained('through', 3)),
    counted: 'passed',
  },
  {
    title: 'what this host asks for a MAC address passes',
    port: 'mesh0',
    direction: 'egress',
    raw: Buffer.alloc(28),
    type: 0x0806,
    counted: 'passed',
  },
  {
    title: 'another EtherType passes untouched',
    port: 'edge0',
    raw: Buffer.alloc(46, 0x60),
    type: 0x86dd,
    counted: 'passed',
  },
  {
    title: 'a tagged frame passes untouched',
    port: 'edge0',
    raw: Buffer.concat([Buffer.from([0, 5, 8, 0]), ipv4({ source: client, destination: server })]),
    type: 0x8100,
    counted: 'passed',
  },
  {
    title: 'multicast passes untouched',
    port: 'edge0',
    packet: { source: client, destination: '239.1.1.1' },
    counted: 'passed',
  },
  {
    title: 'Record Route alone passes a mesh port',
    port: 'mesh0',
    packet: { source: client, destination: server, options: options(recordRoute(9)) },
    counted: 'passed',
  },
  {
    title: 'NOPs alone pass a mesh port',
    port: 'mesh0',
    packet: { source: client, destination: server, options: Buffer.alloc(40, 1) },
    counted: 'passed',
  },
  {
    title: 'a security label without a chain is left alone',
    port: 'mesh0',
    packet: { source: client, destination: server, options: [130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] },
    counted: 'passed',
  },
  {
    title: 'what the stack will send out of a managed port is left to it first',
    port: 'edge0',
    packet: { source: client, destination: server },
    counted: 'passed',
  },
  {
    title: 'the edge imposes source route and Record Route, once the stack has routed the packet',
    ...routedFrom('edge0'),
    packet: { source: client, destination: server },
    counted: 'imposed',
    output: chained('out', 1),
  },
  {
    title: 'an option that may pass an edge port does so',
    port: 'strip0',
    packet: { source: '10.2.0.10', destination: '224.0.0.22', options: [148, 4, 0, 0] },
    counted: 'passed',
  },
  {
    title: 'what an edge port lets through to the nodes of the mesh passes: a protocol',
    port: 'strip0',
    packet: { source: '10.2.0.10', destination: '10.0.0.3', protocol: 1, payload: Buffer.from([8, 0, 0, 0]) },
    counted: 'passed',
  },
  {
    title: 'and a port',
    port: 'strip0',
    packet: {
      source: '10.2.0.10',
      destination: '10.0.0.3',
      protocol: 6,
      payload: tcp({ source: '10.2.0.10', destination: '10.0.0.3' }, { destinationPort: 22 }),
    },
    counted: 'passed',
  },
  {
    title: "a packet to this host's own address takes no chain",
    port: 'strip0',
    packet: { source: '10.2.0.10', destination: '10.1.0.1' },
    counted: 'passed',
  },
  {
    title: 'what has no plain route is imposed at once, strictly here, and its TTL counted down',
    port: 'edge0',
    packet: { source: client, destination: '10.9.1.10', payload: udp({ destinationPort: 8999 }) },
    counted: 'imposed',
    output: chained('outStrict', 1, {
      ttl: 63,
      destination: '10.9.1.10',
      payload: udp({ destinationPort: 8999 }),
    }),
  },
  {
    title: 'a port just outside the range does not match',
    port: 'edge0',
    packet: { source: client, destination: '10.9.1.10', payload: udp({ destinationPort: 9000 }) },
    counted: 'passed',
  },
  {
    title: 'a fragment takes the way of a rule with ports, whatever its own',
    port: 'edge0',
    packet: {
      source: client,
      destination: '10.9.1.10',
      fragment: 0x2000,
      payload: udp({ destinationPort: 53 }),
    },
    counted: 'imposed',
    output: chained('outStrict', 1, {
      ttl: 63,
      destination: '10.9.1.10',
      fragment: 0x2000,
      payload: udp({ destinationPort: 53 }),
    }),
  },
  {
    title: 'a fragment of another protocol does not',
    port: 'edge0',
    packet: { source: client, destination: '10.9.1.10', fragment: 0x2000, protocol: 132 },
    counted: 'passed',
  },
  {
    title: 'the first fragment has Record Route',
    ...routedFrom('edge0'),
    packet: { source: client, destination: server, fragment: 0x2000 },
    counted: 'imposed',
    output: chained('out', 1, { fragment: 0x2000 }),
  },
  {
    title: 'a later fragment has NOPs in its place',
    ...routedFrom('edge0'),
    packet: { source: client, destination: server, fragment: 0x2001 },
    counted: 'imposed',
    output: blanked(chained('out', 1, { fragment: 0x2001 })),
  },
  {
    title: 'a hop advances a later fragment',
    port: 'mesh0',
    packet: blanked(chained('through', 2, { fragment: 0x0001 })),
    counted: 'advanced',
    output: blanked(chained('through', 3, { ttl: 63, fragment: 0x0001 })),
  },
  {
    title: 'the last hop strips a later fragment',
    port: 'mesh0',
    packet: blanked(chained('in', 3, { fragment: 0x0001 })),
    counted: 'ended',
    output: { source: client, destination: server, fragment: 0x0001 },
  },
  {
    title: 'a next hop whose MAC address is unknown is noted',
    port: 'edge0',
    packet: { source: client, destination: '10.9.6.1' },
    counted: 'imposed',
    notes: ['neighbour_pending'],
    output: chained('outQuiet', 1, { ttl: 63, destination: '10.9.6.1' }),
  },
  {
    title: 'fwmark and DSCP match together',
    port: 'edge0',
    context: { mark: 7 },
    packet: { source: client, destination: '10.9.5.1', tos: 40 },
    counted: 'imposed',
    output: chained('out', 1, { ttl: 63, tos: 40, destination: '10.9.5.1' }),
  },
  {
    title: 'another fwmark does not match',
    port: 'edge0',
    context: { mark: 6 },
    packet: { source: client, destination: '10.9.5.1', tos: 40 },
    counted: 'passed',
  },
  {
    title: "a local socket's packet is imposed at egress, its TTL untouched",
    port: 'mesh0',
    direction: 'egress',
    packet: { source: '10.0.0.2', destination: server },
    counted: 'imposed',
    output: chained('out', 1, { source: '10.0.0.2' }),
  },
  {
    title: 'a strip port takes options out and then classifies',
    port: 'strip0',
    packet: { source: '10.2.0.10', destination: server, options: options(recordRoute(3)) },
    counted: 'passed',
    notes: ['stripped'],
    output: { source: '10.2.0.10', destination: server },
  },
  {
    title: 'a hop advances and records',
    port: 'mesh0',
    packet: chained('through', 2),
    counted: 'advanced',
    output: chained('through', 3, { ttl: 63 }),
  },
  {
    title: 'a packet from elsewhere than the hop before goes on where its chain says `onDeviation: report`',
    port: 'mesh0',
    packet: chained('reportAside', 2),
    counted: 'advanced',
    notes: ['reported'],
    output: chained('reportAside', 3, { ttl: 63 }),
  },
  {
    title: 'a full Record Route is not written, and the packet advances',
    port: 'mesh0',
    counted: 'advanced',
    notes: ['record_full'],
    packet: {
      ...chained('through', 2),
      options: options(
        sourceRoute(['10.0.0.1', '10.0.0.3', '10.0.0.4', server], { pointer: 8 }),
        recordRoute(2, ['10.5.5.5', '10.6.6.6']),
      ),
    },
    output: {
      ...chained('through', 3, { ttl: 63 }),
      options: options(
        sourceRoute(['10.0.0.1', '10.0.0.2', '10.0.0.4', server], { pointer: 12 }),
        recordRoute(2, ['10.5.5.5', '10.6.6.6']),
      ),
    },
  },
  {
    title: 'the last hop strips all options and restores the destination',
    port: 'mesh0',
    packet: chained('in', 3),
    counted: 'ended',
    output: { source: client, destination: server },
  },
  {
    title: 'a source route to another node of the mesh is forwarded, and Record Route written',
    port: 'mesh0',
    counted: 'forwarded',
    packet: {
      source: client,
      destination: '10.0.0.4',
      options: options(sourceRoute([server]), recordRoute(1)),
    },
    output: {
      source: client,
      destination: '10.0.0.4',
      ttl: 63,
      options: options(sourceRoute([server]), recordRoute(1, ['10.0.0.2'])),
    },
  },
  {
    title: 'a SYN of the way back is clamped',
    port: 'mesh0',
    packet: { source: server, destination: client, protocol: 6, fragment: 0x4000, payload: synAck(1460) },
    counted: 'passed',
    notes: ['mss_clamped'],
    output: { source: server, destination: client, protocol: 6, fragment: 0x4000, payload: synAck(1440) },
  },
  {
    title: 'so is one that ends its chain here',
    port: 'mesh0',
    packet: chained('in', 3, { source: '10.1.0.88', protocol: 6, payload: synFrom88(1460) }),
    counted: 'ended',
    notes: ['mss_clamped'],
    output: { source: '10.1.0.88', destination: server, protocol: 6, payload: synFrom88(1452) },
  },
  {
    title: 'an MSS at an odd offset is clamped with a right checksum',
    port: 'mesh0',
    packet: { source: server, destination: client, protocol: 6, payload: oddSynAck(1460) },
    counted: 'passed',
    notes: ['mss_clamped'],
    output: { source: server, destination: client, protocol: 6, payload: oddSynAck(1440) },
  },
  {
    title: 'a smaller MSS stays',
    port: 'mesh0',
    packet: { source: server, destination: client, protocol: 6, payload: synAck(1400) },
    counted: 'passed',
  },
];

const routed = (option: Uint8Array, fields: Partial<Ipv4> = {}): Ipv4 => ({
  source: client,
  destination: me,
  options: options(option),
  ...fields,
});

const drops: Row[] = [
  {
    title: 'the end of a chain to everywhere, to an address of no host',
    port: 'mesh0',
    packet: chained('everywhere', 2, { destination: '127.0.0.1' }),
    counted: 'destination',
  },
  {
    title: 'a packet from the node that it would go on to',
    port: 'mesh0',
    packet: chained('through', 2, { source: '10.0.0.3' }),
    counted: 'reflect',
  },
  {
    title: 'version 6 under EtherType IPv4',
    port: 'edge0',
    packet: { source: client, destination: server, version: 6 },
    counted: 'version',
  },
  {
    title: 'a header length of 16',
    port: 'edge0',
    packet: { source: client, destination: server, ihl: 4 },
    counted: 'ihl',
  },
  {
    title: 'a header length of 0',
    port: 'mesh0',
    packet: { source: client, destination: server, ihl: 0 },
    counted: 'ihl',
  },
  {
    title: 'a total length below the header',
    port: 'edge0',
    packet: { source: client, destination: server, totalLength: 19 },
    counted: 'total_length',
  },
  {
    title: 'a total length beyond the frame',
    port: 'mesh0',
    packet: { source: client, destination: server, totalLength: 65535 },
    counted: 'total_length',
  },
  {
    title: 'header length 60 in a packet of 40',
    port: 'mesh0',
    packet: { source: client, destination: server, ihl: 15 },
    counted: 'total_length',
  },
  {
    title: 'options on an edge port',
    port: 'edge0',
    packet: { source: client, destination: server, options: options(recordRoute(3)) },
    counted: 'edge_option',
  },
  ...[me, '10.1.0.1', '10.0.0.3', '10.66.0.1'].map(
    (source): Row => ({
      title: `source ${source}, of this host or of the mesh, on an edge port`,
      port: 'edge0',
      packet: { source, destination: server },
      counted: 'source_spoof',
    }),
  ),
  {
    title: 'what the port does not let through to a node of the mesh',
    port: 'strip0',
    packet: { source: '10.2.0.10', destination: '10.0.0.3' },
    counted: 'infrastructure',
  },
  {
    title: 'a port of a node that is not open, and nor is the node itself',
    port: 'strip0',
    packet: {
      source: '10.2.0.10',
      destination: me,
      protocol: 6,
      payload: tcp({ source: '10.2.0.10', destination: me }, { destinationPort: 23 }),
    },
    counted: 'infrastructure',
  },
  {
    title: 'a label, which is not stripped',
    port: 'strip0',
    packet: {
      source: '10.2.0.10',
      destination: '10.8.0.1',
      options: [130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    },
    counted: 'edge_option',
  },
  {
    title: 'a timestamp beside what may be stripped',
    port: 'strip0',
    packet: {
      source: '10.2.0.10',
      destination: '10.8.0.1',
      options: options(recordRoute(3), Buffer.from([68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
    },
    counted: 'edge_option',
  },
  {
    title: 'an option that may pass, in a packet that belongs into a chain',
    port: 'strip0',
    packet: { source: '10.2.0.10', destination: '10.9.3.1', options: [148, 4, 0, 0] },
    counted: 'has_options',
  },
  {
    title: 'a right packet that came in elsewhere than from the hop before',
    port: 'mesh0',
    packet: chained('fromAside', 2),
    counted: 'previous_hop',
  },
  ...(
    [
      ['a wrong checksum', { checksum: 1 }, 'checksum'],
      ['options that are broken', { options: [131, 3, 39, 131, 3, 39, 0, 0] }, 'option_length'],
      [
        'a label',
        { options: options(sourceRoute(['10.0.0.1', client]), Buffer.from([134, 6, 0, 0, 0, 1])) },
        'forbidden_option',
      ],
      ['a stranger as its destination', { destination: '10.0.0.99' }, 'not_my_hop'],
    ] as const
  ).map(
    ([what, fields, counted]): Row => ({
      title: `an error along the reversed source route, with ${what}`,
      port: 'mesh0',
      packet: {
        ...routersError(11, 0, 0, chained('through', 3, { ttl: 1 })),
        destination: '10.0.0.2',
        options: options(sourceRoute(['10.0.0.1', client])),
        ...fields,
      },
      counted,
    }),
  ),
  {
    title: 'a strict route to another node',
    port: 'mesh0',
    packet: { ...chained('throughFar', 1), destination: '10.0.0.3' },
    counted: 'not_my_hop',
  },
  {
    title: 'a right chain packet on an edge port',
    port: 'edge0',
    packet: chained('through', 2),
    counted: 'edge_option',
  },
  {
    title: 'a source route of a local socket',
    port: 'mesh0',
    direction: 'egress',
    packet: { source: me, destination: '10.0.0.3', options: options(sourceRoute([server])) },
    counted: 'local_route',
  },
  {
    title: 'a chain packet in a broadcast frame',
    port: 'mesh0',
    broadcast: true,
    packet: chained('through', 2),
    counted: 'layer2_destination',
  },
  {
    title: 'a chain packet with a wrong checksum',
    port: 'mesh0',
    packet: chained('through', 2, { checksum: 1 }),
    counted: 'checksum',
  },
  ...[0, 1, 2, 3, 5, 8].map(
    (length): Row => ({
      title: `a source route of length ${length}`,
      port: 'mesh0',
      packet: routed(sourceRoute(['10.0.0.3', server], { length })),
      counted: 'option_length',
    }),
  ),
  {
    title: 'a Router Alert of length 2',
    port: 'mesh0',
    packet: routed(Buffer.from([148, 2, 0, 0])),
    counted: 'option_length',
  },
  {
    title: 'a source route longer than the header',
    port: 'mesh0',
    packet: routed(sourceRoute([server], { length: 39 })),
    counted: 'option_overrun',
  },
  {
    title: 'an option type in the last byte',
    port: 'mesh0',
    packet: routed(Buffer.from([1, 1, 1, 131])),
    counted: 'option_overrun',
  },
  {
    title: 'two source routes',
    port: 'mesh0',
    packet: routed(Buffer.concat([sourceRoute([server]), sourceRoute([server], { type: 137 })])),
    counted: 'duplicate_option',
  },
  {
    title: 'two Record Routes',
    port: 'mesh0',
    packet: routed(Buffer.concat([recordRoute(1), recordRoute(1)])),
    counted: 'duplicate_option',
  },
  {
    title: 'a timestamp',
    port: 'mesh0',
    packet: routed(Buffer.from([68, 4, 5, 0])),
    counted: 'forbidden_option',
  },
  {
    title: 'a label beside a source route',
    port: 'mesh0',
    packet: routed(Buffer.concat([sourceRoute([server]), Buffer.from([134, 6, 0, 0, 0, 1])])),
    counted: 'forbidden_option',
  },
  {
    title: 'an unknown option beside a source route',
    port: 'mesh0',
    packet: routed(Buffer.concat([sourceRoute([server]), Buffer.from([30, 4, 0, 0])])),
    counted: 'unknown_option',
  },
  {
    title: 'a NOP before the source route',
    port: 'mesh0',
    packet: routed(Buffer.concat([Buffer.from([1]), sourceRoute([server])])),
    counted: 'layout',
  },
  {
    title: 'bytes behind the end of the options',
    port: 'mesh0',
    packet: routed(Buffer.concat([sourceRoute([server]), Buffer.from([0, 0, 0, 0, 1])])),
    counted: 'layout',
  },
  {
    title: 'padding that is not zero',
    port: 'mesh0',
    packet: {
      ...chained('through', 2),
      options: chained('through', 2).options?.map((byte, i, all) => (i === all.length - 1 ? 1 : byte)) ?? [],
    },
    counted: 'layout',
  },
  ...[0, 3, 6, 16, 255].map(
    (pointer): Row => ({
      title: `a pointer of ${pointer}`,
      port: 'mesh0',
      packet: routed(sourceRoute(['10.0.0.3', server], { pointer })),
      counted: 'pointer',
    }),
  ),
  {
    title: 'an exhausted source route',
    port: 'mesh0',
    packet: routed(sourceRoute(['10.0.0.3', server], { pointer: 12 })),
    counted: 'exhausted',
  },
  {
    title: 'a Record Route with half a slot',
    port: 'mesh0',
    packet: routed(Buffer.from([7, 5, 4, 0, 0])),
    counted: 'record_length',
  },
  {
    title: 'a Record Route of length 2',
    port: 'mesh0',
    packet: routed(Buffer.from([7, 2, 4])),
    counted: 'record_length',
  },
  {
    title: 'a Record Route pointer of 3',
    port: 'mesh0',
    packet: routed(recordRoute(1, [], 3)),
    counted: 'record_pointer',
  },
  ...['224.0.0.9', '127.0.0.1', '0.0.0.0', '255.255.255.255'].map(
    (source): Row => ({
      title: `source ${source}`,
      port: 'mesh0',
      packet: chained('through', 2, { source }),
      counted: 'source_martian',
    }),
  ),
  ...[me, '10.1.0.1'].map(
    (source): Row => ({
      title: `this host's own address ${source} as source`,
      port: 'mesh0',
      packet: chained('through', 2, { source }),
      counted: 'source_self',
    }),
  ),
  {
    title: 'a source route to a host outside the mesh',
    port: 'mesh0',
    packet: routed(sourceRoute([server]), { destination: '10.0.0.99' }),
    counted: 'not_my_hop',
  },
  ...['224.0.0.5', '255.255.255.255', '127.0.0.1', '0.0.0.0', '240.0.0.1'].map(
    (hop): Row => ({
      title: `an entry ${hop}`,
      port: 'mesh0',
      packet: routed(sourceRoute([hop, server])),
      counted: 'bad_hop',
    }),
  ),
  {
    title: 'ping-pong',
    port: 'mesh0',
    packet: routed(sourceRoute(['10.0.0.3', me, '10.0.0.3', server])),
    counted: 'loop',
  },
  {
    title: 'a route through its own sender',
    port: 'mesh0',
    packet: routed(sourceRoute([client, server])),
    counted: 'reflect',
  },
  {
    title: 'a path of this mesh that leads back to its sender',
    port: 'mesh0',
    packet: chained('through', 2, { source: server }),
    counted: 'reflect',
  },
  {
    title: 'a path that nobody rendered',
    port: 'mesh0',
    packet: routed(sourceRoute(['10.0.0.9', '10.0.0.8', server])),
    counted: 'unknown_path',
  },
  {
    title: 'one entry ahead changed',
    port: 'mesh0',
    packet: {
      ...chained('through', 2),
      options: options(
        sourceRoute(['10.0.0.1', '10.0.0.3', '10.0.0.9', server], { pointer: 8 }),
        recordRoute(2, ['10.0.0.1']),
      ),
    },
    counted: 'route_mismatch',
  },
  {
    title: 'one recorded entry changed',
    port: 'mesh0',
    packet: {
      ...chained('through', 2),
      options: options(
        sourceRoute(['10.0.0.9', '10.0.0.3', '10.0.0.4', server], { pointer: 8 }),
        recordRoute(2, ['10.0.0.1']),
      ),
    },
    counted: 'record_mismatch',
  },
  {
    title: 'a hop skipped',
    port: 'mesh0',
    packet: { ...chained('in', 2), destination: me },
    counted: 'position',
  },
  {
    title: 'a destination that no rule of the chain allows',
    port: 'mesh0',
    packet: chained('in', 3, { destination: '10.8.0.10' }),
    counted: 'destination',
  },
  ...[1, 0].map(
    (ttl): Row => ({
      title: `TTL ${ttl} at a hop`,
      port: 'mesh0',
      packet: chained('through', 2, { ttl }),
      counted: 'ttl',
      answer: error(client, me, 11, 0, 0, { source: client, destination: server, ttl }),
    }),
  ),
  {
    title: 'TTL 1 at the edge',
    port: 'edge0',
    packet: { source: client, destination: '10.9.1.10', ttl: 1, payload: udp({ destinationPort: 8000 }) },
    counted: 'ttl',
    answer: error(client, '10.1.0.1', 11, 0, 0, {
      source: client,
      destination: '10.9.1.10',
      ttl: 1,
      payload: udp({ destinationPort: 8000 }),
    }),
  },
  {
    title: 'TTL 1 in an ICMP error, about which there is no other',
    port: 'mesh0',
    packet: chained('through', 2, { ttl: 1, protocol: 1, payload: Buffer.from([3, 1, 0, 0, 0, 0, 0, 0]) }),
    counted: 'ttl',
  },
  {
    title: 'TTL 1 in a later fragment, about which there is no error',
    port: 'mesh0',
    packet: blanked(chained('through', 2, { ttl: 1, fragment: 1 })),
    counted: 'ttl',
  },
  {
    title: 'a fragment of a chain that wants none',
    port: 'edge0',
    packet: { source: client, destination: '10.9.7.1', fragment: 0x2000 },
    counted: 'fragment',
  },
  {
    title: 'Record Route in a later fragment',
    port: 'mesh0',
    packet: chained('through', 2, { fragment: 1 }),
    counted: 'layout',
  },
  { title: 'TTL 0 at the last hop', port: 'mesh0', packet: chained('in', 3, { ttl: 0 }), counted: 'ttl' },
  {
    title: 'a local packet with options that belongs into a chain',
    port: 'mesh0',
    direction: 'egress',
    packet: { source: me, destination: server, options: options(recordRoute(3)) },
    counted: 'has_options',
  },
  {
    title: 'no route to the first hop',
    port: 'edge0',
    packet: { source: client, destination: '10.9.3.1' },
    counted: 'no_route',
    answer: error(client, '10.1.0.1', 3, 0, 0, { source: client, destination: '10.9.3.1' }),
  },
  {
    title: 'no route to the next hop',
    port: 'mesh0',
    packet: chained('throughLost', 1),
    counted: 'no_route',
    answer: error(client, me, 3, 0, 0, { source: client, destination: server }),
  },
  {
    title: 'a strict first hop behind a gateway',
    port: 'edge0',
    packet: { source: client, destination: '10.9.2.1' },
    counted: 'not_adjacent',
    answer: error(client, '10.1.0.1', 3, 5, 0, { source: client, destination: '10.9.2.1' }),
  },
  {
    title: 'a strict next hop behind a gateway',
    port: 'mesh0',
    packet: chained('throughFar', 1),
    counted: 'not_adjacent',
    answer: error(client, me, 3, 5, 0, { source: client, destination: server }),
  },
  {
    title: 'a first hop behind an edge port',
    port: 'strip0',
    packet: { source: '10.2.0.10', destination: '10.9.4.1' },
    counted: 'not_mesh',
  },
  {
    title: 'a next hop behind an edge port',
    port: 'mesh0',
    packet: chained('throughAside', 1),
    counted: 'not_mesh',
  },
  {
    title: 'no room for the options under the MTU of the edge',
    ...routedFrom('edge0'),
    packet: { source: client, destination: server, ...full },
    counted: 'too_big',
    answer: error(client, '10.1.0.1', 3, 4, 1480, { source: client, destination: server, ...full }),
  },
  {
    title: 'no room for the options of a local packet; its source is told as if by the destination',
    port: 'mesh0',
    direction: 'egress',
    packet: { source: me, destination: server, ...full },
    counted: 'too_big',
    answer: error(me, server, 3, 4, 1480, { source: me, destination: server, ...full }),
  },
  {
    title: "no room for the options of a packet that this host's NAT has rewritten; the NAT is told",
    ...routedFrom('edge0'),
    packet: { source: me, destination: server, ...full },
    counted: 'too_big',
    answer: error(me, server, 3, 4, 1480, { source: me, destination: server, ...full }),
  },
  {
    title: 'a chain packet beyond the MTU of the next leg',
    port: 'mesh0',
    packet: chained('through', 2, full),
    counted: 'too_big',
    answer: error(client, me, 3, 4, 1500 - optionBytes('through'), {
      source: client,
      destination: server,
      ...full,
    }),
  },
  {
    title: 'a packet that is too big and whose checksum the device is still to make',
    ...routedFrom('edge0'),
    packet: { source: client, destination: server, fragment: 0x4000, payload: unfinished(full.payload) },
    counted: 'too_big',
    answer: finishedLater(
      error(client, '10.1.0.1', 3, 4, 1480, {
        source: client,
        destination: server,
        fragment: 0x4000,
        payload: unfinished(full.payload),
      }),
    ),
  },
  {
    title: 'segments without DF that are too big',
    ...routedFrom('edge0'),
    context: { from: 'edge0', gsoSize: 1472 },
    packet: { source: client, destination: server, payload: udp({ data: 'x'.repeat(2 * 1472) }) },
    counted: 'cannot_fragment',
    answer: error(client, '10.1.0.1', 3, 4, 1480, {
      source: client,
      destination: server,
      payload: udp({ data: 'x'.repeat(2 * 1472) }),
    }),
  },
  {
    title: 'GSO of a kind that cannot be resized',
    ...routedFrom('edge0'),
    context: { from: 'edge0', gsoSize: 100 },
    packet: { source: client, destination: server, payload: Buffer.alloc(1000) },
    counted: 'resize',
  },
];

let bed: Testbed;
let macOfMesh: string;

test.before(async () => {
  bed = await openTestbed();
  applyMesh(bed, mesh, 'fw');
  macOfMesh = macOf('mesh0');
});

test.after.always(() => bed?.close());

function runRow(row: Row): ReturnType<typeof runPacket> & { sent: Buffer } {
  const mac = row.broadcast ? 'ff:ff:ff:ff:ff:ff' : macOf(row.port);
  const sent = ethernet(
    mac,
    row.raw ?? ipv4(row.packet ?? { source: client, destination: server }),
    row.type,
  );
  return { sent, ...runPacket(bed, row.port, row.direction ?? 'ingress', sent, row.context) };
}

const actions: Record<string, number> = {
  passed: -1,
  own: -1,
  ended: -1,
  imposed: 7,
  advanced: 7,
  forwarded: 7,
};
const covered = new Set<string>();

for (const row of [...outcomes, ...drops]) {
  const drop = drops.includes(row);
  test.serial(`${drop ? 'dropped: ' : ''}${row.title}`, (t) => {
    const { action, frame, counted, sent } = runRow(row);
    t.deepEqual(counted, {
      received: 1,
      [row.counted]: 1,
      ...Object.fromEntries((row.notes ?? []).map((note) => [note, 1])),
      ...(row.answer && { icmp_sent: 1 }),
    });
    t.is(action, row.answer ? 7 : (actions[row.counted] ?? 2));
    const output = row.output ?? row.answer;
    if (output || !drop) {
      const expected = output ? ethernet(macOf(row.port), ipv4(output)) : sent;
      // What goes up this host's own stack has its MAC addresses swapped.
      t.is(frame.subarray(14).toString('hex'), expected.subarray(14).toString('hex'));
    }
    for (const reason of Object.keys(counted)) covered.add(reason);
  });
}

test.serial('dropped: a rule whose chain is not in the tables', (t) => {
  const { chains } = bed.datapath.maps;
  const { keys, values } = chains.entries();
  chains.deleteBatch(keys);
  const { counted } = runRow({
    title: '',
    ...routedFrom('edge0'),
    packet: { source: client, destination: server },
    counted: '',
  });
  chains.putBatch(keys, values);
  t.deepEqual(counted, { received: 1, no_chain: 1 });
  covered.add('no_chain');
});

test.serial(
  'a path that ends here is told from one that begins here and differs in its last hop alone',
  (t) => {
    const packet = chained('endsHere', 2);
    t.deepEqual(runRow({ title: '', port: 'mesh0', packet, counted: '' }).counted, { received: 1, ended: 1 });
  },
);

test.serial('a chain that begins at several nodes is taken from any of them', (t) => {
  const packet = chained('fromTwo', 1);
  t.deepEqual(runRow({ title: '', port: 'mesh0', packet, counted: '' }).counted, {
    received: 1,
    advanced: 1,
  });
});

for (const slots of [0, 1, 2, 6, 7]) {
  test.serial(`a flow keeps the ${slots} addresses that its packets recorded`, (t) => {
    const { flows_even: flows } = bed.datapath.maps;
    flows.deleteBatch(flows.entries().keys);
    const recorded = Array.from({ length: slots }, (_, i) => `10.0.5.${i + 1}`);
    const packet = {
      ...chained('inRecorded', 1),
      options: options(sourceRoute([server]), recordRoute(7, recorded)),
    };
    t.deepEqual(runRow({ title: '', port: 'mesh0', packet, counted: '' }).counted, { received: 1, ended: 1 });
    const { keys, count } = flows.entries();
    const key = decode('lsr_flow_key', keys);
    t.is(count, 1);
    t.deepEqual(key.record.slice(0, key.recorded).map(formatAddress), recorded);
    t.true(key.record.slice(key.recorded).every((address) => address === 0));
  });
}

const detours: [recorded: string[], counted: string][] = [
  [[], 'ended'],
  [['10.0.0.3', '10.0.0.2'], 'ended'],
  [['10.66.0.3'], 'ended'],
  [['10.66.6.6'], 'detour'],
  [['10.0.0.3', '10.66.6.6'], 'detour'],
  [['10.0.0.3', '10.0.0.2', '10.66.0.3', '10.0.0.4'], 'detour'],
];
for (const [recorded, counted] of detours) {
  test.serial(
    `with \`onDeviation: drop\` a record of ${recorded.join(', ') || 'nobody'} is: ${counted}`,
    (t) => {
      const { deviations_even: deviations } = bed.datapath.maps;
      deviations.deleteBatch(deviations.entries().keys);
      const route = sourceRoute(['10.0.0.3', server], { pointer: 8 });
      const packet = { ...chained('inWhole', 2), options: options(route, recordRoute(4, recorded)) };
      const run = runRow({ title: '', port: 'mesh0', packet, counted: '' });
      t.deepEqual(run.counted, { received: 1, [counted]: 1 });
      t.is(deviations.entries().count, counted === 'detour' ? 1 : 0);
      if (counted === 'detour') covered.add('detour');
    },
  );
}

test.serial('where its neighbour is known, a hop takes packets from its MAC address only', (t) => {
  const { datapath, ports } = bed;
  datapath.setPorts(ports.map((port) => ({ ...port, previousHop: 'neighbour' })));
  const send = (source: string): Record<string, number> =>
    runPacket(bed, 'mesh0', 'ingress', ethernet(macOfMesh, ipv4(chained('through', 2)), 0x0800, source))
      .counted;
  t.deepEqual(send('02:00:00:00:00:01'), { received: 1, advanced: 1 });
  t.deepEqual(send('02:00:00:00:00:03'), { received: 1, previous_hop: 1 });
  changeRoutes('neigh', 'del', '10.0.0.1', 'dev', 'mesh0');
  t.deepEqual(send('02:00:00:00:00:03'), { received: 1, advanced: 1 });
  changeRoutes(
    'neigh',
    'replace',
    '10.0.0.1',
    'lladdr',
    '02:00:00:00:00:01',
    'dev',
    'mesh0',
    'nud',
    'permanent',
  );
  datapath.setPorts(ports.map((port) => ({ ...port, previousHop: 'off' })));
  const { counted } = runRow({ title: '', port: 'mesh0', packet: chained('fromAside', 2), counted: '' });
  t.deepEqual(counted, { received: 1, advanced: 1 });
  datapath.setPorts(ports);
});

/** What is counted of packets of so many flows that end, and as many that have no TTL left, with tables of these sizes. */
function countFlows(capacities: Capacities, flows: number): Record<string, number> {
  const small = openBeside(bed, capacities);
  try {
    applyMesh(small, mesh, 'fw');
    for (let sourcePort = 1; sourcePort <= flows; sourcePort++) {
      for (const ttl of [64, 0]) {
        const packet = chained('in', 3, { ttl, payload: udp({ sourcePort }) });
        runPacket(small, 'mesh0', 'ingress', ethernet(macOfMesh, ipv4(packet)));
      }
    }
    const counted = Object.entries(countAll(small, 'mesh0', 'ingress'));
    return Object.fromEntries(counted.filter(([, count]) => count > 0));
  } finally {
    small.close();
  }
}

test.serial('what a full flow table has no room for is counted, and delivered', (t) => {
  const all = { received: 60, ended: 30, ttl: 30 };
  t.deepEqual(countFlows({ flows_even: 30 }, 30), all);
  t.deepEqual(countFlows({ flows_even: 20 }, 30), { ...all, flow_lost: 10 });
  covered.add('flow_lost');
});

test.serial('what a full event buffer has no room for is counted, and the packets are not affected', (t) => {
  const all = { received: 120, ended: 60, ttl: 60 };
  t.deepEqual(countFlows({}, 60), all);
  const { event_lost: lost = 0, ...others } = countFlows({ events: 4096 }, 60);
  t.deepEqual(others, all);
  t.true(lost > 10, `${lost} lost`);
  covered.add('event_lost');
});

test.serial('on the wire: a frame that ends inside its header is dropped as short', (t) => {
  const before = countAll(bed, 'edge0', 'ingress');
  sendFrame('edge0p', Buffer.concat([ethernet(macOf('edge0'), Buffer.alloc(10, 0x45))]));
  const after = countAll(bed, 'edge0', 'ingress');
  t.is((after.short ?? 0) - (before.short ?? 0), 1);
  covered.add('short');
});

/** The same frame with an IEEE 802.1Q tag. */
const tag = (frame: Buffer, vlan: number): Buffer =>
  Buffer.concat([frame.subarray(0, 12), Buffer.from([0x81, 0, vlan >> 8, vlan & 255]), frame.subarray(12)]);

for (const [vlan, outcome] of [
  [0, 'advanced'],
  [5, 'passed'],
] as const) {
  test.serial(`on the wire: a packet of a chain in VLAN ${vlan} is ${outcome}`, (t) => {
    const before = countAll(bed, 'mesh0', 'ingress');
    sendFrame('mesh0p', tag(ethernet(macOfMesh, ipv4(chained('through', 2))), vlan));
    const after = countAll(bed, 'mesh0', 'ingress');
    t.is((after[outcome] ?? 0) - (before[outcome] ?? 0), 1);
  });
}

test.serial('on the wire: no mark that a packet comes with makes it one of ours', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'lsr-mark-'));
  const object = join(folder, 'mark.o');
  for (const mark of [0x15c0, 0x15c1, 0x15c2, 0x15c3, 0x15c4, 0x15c5]) {
    const input = `#include <linux/bpf.h>
      __attribute__((section("tc"), used)) int mark(struct __sk_buff *skb) { skb->tc_index = ${mark}; return -1; }`;
    const include = `-I/usr/include/${execFileSync('gcc', ['-print-multiarch'], { encoding: 'utf8' }).trim()}`;
    execFileSync('clang', ['-O2', '-target', 'bpf', include, '-x', 'c', '-c', '-', '-o', object], { input });
    execFileSync('tc', ['qdisc', 'add', 'dev', 'edge0p', 'clsact']);
    execFileSync('tc', ['filter', 'add', 'dev', 'edge0p', 'egress', 'bpf', 'da', 'obj', object, 'sec', 'tc']);
    const before = countAll(bed, 'mesh0', 'egress');
    sendFrame('edge0p', ethernet(macOf('edge0'), ipv4({ source: client, destination: server })));
    const after = countAll(bed, 'mesh0', 'egress');
    execFileSync('tc', ['qdisc', 'del', 'dev', 'edge0p', 'clsact']);
    t.is((after.imposed ?? 0) - (before.imposed ?? 0), 1, mark.toString(16));
  }
  rmSync(folder, { recursive: true });
});

test.serial('on the wire: what has ended its chain here is not sent down another', (t) => {
  const before = countAll(bed, 'mesh0', 'egress');
  const payload = udp({ destinationPort: 7777 });
  sendFrame('mesh0p', ethernet(macOfMesh, ipv4(chained('in', 3, { payload }))));
  sendFrame('mesh0p', ethernet(macOfMesh, ipv4({ source: client, destination: server, payload })));
  const after = countAll(bed, 'mesh0', 'egress');
  const moved = (name: string): number => (after[name] ?? 0) - (before[name] ?? 0);
  t.deepEqual({ passed: moved('passed'), imposed: moved('imposed') }, { passed: 1, imposed: 1 });
});

test.serial('on the wire: what a program redirects passes egress as its own', (t) => {
  const before = countAll(bed, 'mesh0', 'egress');
  sendFrame('edge0p', ethernet(macOf('edge0'), ipv4({ source: client, destination: server })));
  const after = countAll(bed, 'mesh0', 'egress');
  t.is((after.own ?? 0) - (before.own ?? 0), 1);
  covered.add('own');
});

test.serial('on the wire: a packet without DF that is too big is cut in two', (t) => {
  const before = countAll(bed, 'mesh0', 'egress');
  const packet = { source: client, destination: server, payload: full.payload };
  sendFrame('edge0p', ethernet(macOf('edge0'), ipv4(packet)));
  const after = countAll(bed, 'mesh0', 'egress');
  for (const [name, count] of Object.entries({ imposed: 1, fragmented: 1, sliced: 2, own: 2 })) {
    t.is((after[name] ?? 0) - (before[name] ?? 0), count, name);
    covered.add(name);
  }
});

test.serial('errors are limited, and what is not sent is counted', (t) => {
  const before = countAll(bed, 'mesh0', 'ingress');
  const data = ethernet(macOfMesh, ipv4(chained('through', 2, { ttl: 1 })));
  const context = skbContext(bed.ports.find(({ name }) => name === 'mesh0')?.link.index ?? 0);
  for (let i = 0; i < 300; i++) bed.programs.ingress.testRun({ data, context });
  const after = countAll(bed, 'mesh0', 'ingress');
  const [sent = 0, limited = 0] = ['icmp_sent', 'icmp_limited'].map(
    (name) => (after[name] ?? 0) - (before[name] ?? 0),
  );
  t.is(sent + limited, 300);
  t.true(sent >= 1 && limited >= 1, `${sent} sent, ${limited} limited`);
  covered.add('icmp_limited');
});

test.serial('every reason has a row', (t) => {
  const missing = reasons.map(({ name }) => name).filter((name) => !covered.has(name));
  t.deepEqual(missing.sort(), [...integrityReasons, ...functionReasons].sort());
});

test('packets are built with right checksums', (t) => {
  t.is(internetChecksum(ipv4({ source: client, destination: server }).subarray(0, 20)), 0);
  t.is(address(client).length, 4);
});
