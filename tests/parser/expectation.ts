/**
 * What a port must do with a packet, from what the parser decides about it and from the mesh: the order of
 * walk_route() in bpf/hop.h. Behind the parser several reasons may be right; each has its condition here.
 */
import { containsAddress, type Prefix, parseAddress } from '../../src/address.js';
import { isMartian } from '../../src/ipv4-header.js';
import { headerAt } from '../../src/path.js';
import { pathsOf } from '../../src/render.js';
import { mesh, node, rendered } from './chains.js';
import type { Decision } from './decision.js';

/** A port of tests/helpers/testbed.ts and how the packet meets it. */
export type Place = 'mesh' | 'broadcast' | 'edge' | 'strip' | 'local';

/** What the way to the next hop may still refuse. */
const wayOut = ['no_route', 'not_adjacent', 'not_mesh', 'too_big', 'cannot_fragment', 'resize'];

/** Everything that can happen to a packet without options. */
const plain = ['passed', 'imposed', 'checksum', 'source_martian', 'ttl', 'no_chain', 'fragment', ...wayOut];

/** All that a mesh port can say of a packet with options, but what depends on sizes, memory or fragments. */
export const reasonsOfMesh = [
  'version',
  'ihl',
  'total_length',
  'option_length',
  'tag_format',
  'option_overrun',
  'duplicate_option',
  'record_length',
  'record_pointer',
  'pointer',
  'forbidden_option',
  'unknown_option',
  'passed',
  'checksum',
  'layout',
  'source_martian',
  'source_self',
  'not_my_hop',
  'forwarded',
  'exhausted',
  'bad_hop',
  'reflect',
  'loop',
  'record_mismatch',
  'route_mismatch',
  'unknown_path',
  'tag_missing',
  'key_unknown',
  'key_expired',
  'tag_wrong',
  'position',
  'previous_hop',
  'destination',
  'ttl',
  'advanced',
  'ended',
  'no_route',
  'not_adjacent',
  'not_mesh',
];

const own = ['10.0.0.2', '10.1.0.1', '10.2.0.1'].map((text) => parseAddress(text) ?? 0);
/** Behind an edge port: nothing that it sends on comes in by mesh0. */
const aside = parseAddress(mesh.nodes.aside?.address ?? '') ?? 0;
const me = parseAddress(mesh.nodes[node]?.address ?? '') ?? 0;
const nodes = new Set(Object.values(mesh.nodes).map(({ address }) => parseAddress(address) ?? 0));

interface Prediction {
  head: string;
  known: string;
  address: number;
  next: number;
  /** The hop before; 0 at the first. */
  previous: number;
  destinations: Prefix[];
}

const predictions = predict();

/** `segmented`: as GSO of a kind that the kernel does not resize. */
export function expectReasons(
  place: Place,
  packet: Buffer,
  decision: Decision,
  segmented: boolean,
): readonly string[] {
  const { headerFault, optionFault, layoutFault, checksumRight, hasRoute } = decision;
  if (headerFault) return [headerFault];
  if (decision.headerLength === 20) return guard(place, packet, plain);
  if (place === 'edge') return ['edge_option'];
  if (place === 'local') return decision.classes & classRoute ? ['local_route'] : ['has_options', ...plain];

  if (optionFault) return [optionFault];
  const others = decision.classes || classOther;
  if (place === 'strip') {
    if (others & neverStripped) return ['edge_option'];
    if (others === routerAlert) return guard(place, packet, ['has_options', ...plain]);
    if (!checksumRight) return ['checksum'];
    return [...guard(place, packet, plain), ...(segmented ? ['resize'] : [])];
  }
  if (!hasRoute && decision.hasTag) return ['layout'];
  if (!hasRoute) return others & neverPassed ? ['forbidden_option'] : ['passed'];
  if (place === 'broadcast') return ['layer2_destination'];
  if (!checksumRight) return ['checksum'];
  if (layoutFault) return [layoutFault];
  if (decision.martianSource) return ['source_martian'];
  const source = packet.readUInt32BE(12);
  if (own.includes(source)) return ['source_self'];
  const destination = packet.readUInt32BE(16);
  if (destination === me) return expectAtHop(packet, source, segmented);
  const isLoose = packet[findRoute(packet)] === 131;
  if (!isLoose || !nodes.has(destination)) return ['not_my_hop'];
  return (packet[8] ?? 0) <= 1 ? ['ttl'] : ['forwarded', ...wayOut];
}

/** Bits of `classes`. */
const classRoute = 1 << 0; // masked ones are among them
const routerAlert = 1 << 3;
const classOther = 1 << 6;
/** The policies of strip0: timestamp, labels. */
const neverStripped = (1 << 2) | (1 << 4);
/** The defaults of a mesh port: masked source routes, timestamp, stream id. */
const neverPassed = classRoute | (1 << 2) | (1 << 5);

/** What an edge port says of the addresses of a packet that is otherwise as `then`. */
function guard(place: Place, packet: Buffer, then: readonly string[]): readonly string[] {
  if (place !== 'edge' && place !== 'strip') return then;
  const source = packet.readUInt32BE(12);
  if (own.includes(source) || nodes.has(source)) return ['source_spoof'];
  const toNode = place === 'strip' && nodes.has(packet.readUInt32BE(16));
  if (!toNode || packet[9] === 1) return then; // ICMP is open
  return packet[9] === 6 ? ['infrastructure', ...then] : ['infrastructure'];
}

/** By slot of the key, as keysText has them: nobody here signs with any. */
const withoutKey = ['tag_wrong', 'key_unknown', 'key_expired', 'key_unknown'];

/** Only what the mesh predicts byte for byte may advance or end here. */
function expectAtHop(packet: Buffer, source: number, segmented: boolean): readonly string[] {
  const at = findRoute(packet);
  const length = packet[at + 1] ?? 0;
  const pointer = packet[at + 2] ?? 0;
  const ttl = packet[8] ?? 0;
  const entries = Array.from({ length: (length - 3) / 4 }, (_, i) => packet.readUInt32BE(at + 3 + 4 * i));
  const final = entries.at(-1) ?? 0;
  if (pointer > length) return ['exhausted'];
  const { head, known } = describe(packet);
  const alike = predictions.get(`${head} ${known}`);
  if (!alike) return explain(packet, entries, source);
  const found = alike.find(({ address }) => address === me);
  if (!found) return ['position'];
  if (found.previous === aside) return ['previous_hop'];
  if (at > 20) return [withoutKey[(packet[22] ?? 0) >> 6] ?? ''];
  if (found.next === source || final === source) return ['reflect'];
  if (found.next !== 0) return ttl <= 1 ? ['ttl'] : ['advanced', ...wayOut];
  const allowed = found.destinations.some((prefix) => containsAddress(prefix, final)) && !isMartian(final);
  if (!allowed) return ['destination'];
  return ttl === 0 ? ['ttl'] : segmented ? ['ended', 'resize'] : ['ended'];
}

/** Every reason whose condition holds. Entries that no chain may have come first, then how far it is like a path. */
function explain(packet: Buffer, entries: readonly number[], source: number): readonly string[] {
  const visited = [me, ...entries.slice(0, -1)];
  const forbidden = [
    entries.some(isMartian) && 'bad_hop',
    entries.includes(source) && 'reflect',
    new Set(visited).size < visited.length && 'loop',
  ].filter((reason) => reason !== false);
  if (forbidden.length > 0) return forbidden;

  const { head, known } = describe(packet);
  const passed = 8 * ((packet[findRoute(packet) + 2] ?? 0) / 4 - 1); // hex digits of the entries before the pointer
  const alike = [...predictions.values()].flat().filter((path) => path.head === head);
  const mismatches = [
    passed < known.length &&
      alike.some((path) => path.known.slice(passed) === known.slice(passed)) &&
      'record_mismatch',
    passed > 0 &&
      alike.some((path) => path.known.slice(0, passed) === known.slice(0, passed)) &&
      'route_mismatch',
    predictions.has(
      `${head.startsWith('12 ') ? head.replace('12', '0') : head.replace('0', '12')} ${known}`,
    ) && (head.startsWith('12 ') ? 'unknown_option' : 'tag_missing'),
  ].filter((reason) => reason !== false);
  return mismatches.length > 0 ? mismatches : ['unknown_path'];
}

/** Behind an integrity option, where there is one. */
function findRoute(packet: Buffer): number {
  return packet[20] === 158 ? 32 : 20;
}

/** What a prediction fixes: the tag's length, type, length, pointer and Record Route's length; and all entries but the destination. */
function describe(packet: Buffer): { head: string; known: string } {
  const at = findRoute(packet);
  const length = packet[at + 1] ?? 0;
  const behind = at + length;
  const end = ((packet[0] ?? 0) & 15) * 4;
  const later = (packet.readUInt16BE(6) & 0x1fff) !== 0;
  const record = end - behind < 4 ? 0 : later ? countNops(packet, behind, end) : (packet[behind + 1] ?? 0);
  return {
    head: [at - 20, packet[at], length, packet[at + 2], record].join(' '),
    known: packet.subarray(at + 3, behind - 4).toString('hex'),
  };
}

function countNops(packet: Buffer, from: number, end: number): number {
  let at = from;
  while (at < end && packet[at] === 1) at++;
  return at - from;
}

/** The paths that visit this host or begin here, at each of their hops; two may differ in that hop alone. */
function predict(): Map<string, Prediction[]> {
  const found = new Map<string, Prediction[]>();
  for (const [{ name, destinations }, path] of rendered.chains.flatMap((chain) =>
    pathsOf(chain).map((path) => [chain, path] as const),
  )) {
    const begins = mesh.rules.some((rule) => rule.chain === name && rule.at.includes(node));
    if (!begins && !path.hops.some((hop) => hop.node === node)) continue;
    path.hops.forEach(({ address }, index) => {
      const options = Buffer.from(headerAt(path, index + 1, 0).options);
      const base = Buffer.alloc(20);
      base[0] = 0x45 + options.length / 4;
      const described = describe(Buffer.concat([base, options]));
      const key = `${described.head} ${described.known}`;
      const next = path.hops[index + 1]?.address ?? 0;
      const previous = path.hops[index - 1]?.address ?? 0;
      const others = found.get(key) ?? [];
      found.set(key, [...others, { ...described, address, next, previous, destinations }]);
    });
  }
  return found;
}
