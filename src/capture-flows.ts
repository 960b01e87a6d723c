import type { CapturedPacket } from './capture.js';
import type { HeaderTable } from './header-table.js';
import { hasRightChecksum } from './ipv4-header.js';
import { enums } from './layout.js';
import { BASE_HEADER_BYTES } from './limits.js';
import { findPoint, isForMany } from './link-layer.js';
import { hasPorts } from './match.js';
import type { DropReason } from './reasons.js';
import { checkRoute, type RouteCheck } from './route-check.js';
import type { makeTagCheck, TagAnswer } from './tag-check.js';

/** Packets with one header, pointer and Record Route included, of one flow: what they are, and how many, by what came of each. */
export interface Row {
  check: RouteCheck;
  source: number;
  protocol: number;
  sourcePort: number | null;
  destinationPort: number | null;
  /** One for each outcome. A list, as a map for each of a million rows takes seconds of garbage collection. */
  tallies: Tally[];
}

export interface Tally {
  /** To drop them; null: a hop takes them. */
  reason: DropReason | null;
  /** By the point where they were captured: the same packet may pass many of them on one leg. */
  points: { point: number; packets: number; bytes: number }[];
  /** Number of the first packet. */
  first: number;
  firstTime: number | null;
  lastTime: number | null;
  /** At all points. */
  packets: number;
  /** Those whose tag was found right. */
  verified: number;
}

export interface FlowCounts {
  /** With source route or tag. */
  routed: number;
  /** Between agents, to see whether a path carries packets; nobody records them. */
  probes: number;
  /** Whose tags could not be checked. */
  unchecked: number;
  /** For which there was no row left. */
  untold: number;
}

export interface FlowTable {
  /** By header; null: no business of a chain. */
  rows: Map<string, Row | null>;
  counts: FlowCounts;
  /** `at`: of the IPv4 header; `header`: its bytes, which are all there. */
  add(packet: CapturedPacket, at: number, header: number): void;
}

/**
 * So many different headers are told apart: each of as many flows as an agent's table holds, at four hops; that takes 500 MB.
 * Behind them, packets that are in order are not counted by flow, and others by reason.
 */
export const ROWS_MAX = 262_144;
const CHECKS_MAX = 65_536;

/** One lookup a packet: the key is all of its header that a hop looks at. */
export function makeFlowTable(
  table: HeaderTable,
  checkTag: ReturnType<typeof makeTagCheck> | null,
): FlowTable {
  const rows = new Map<string, Row | null>();
  const counts: FlowCounts = { routed: 0, probes: 0, unchecked: 0, untold: 0 };
  const judge = makeJudge(checkTag, counts);
  /** Flows differ in their ports more often than in anything else. */
  const checks = new Map<string, RouteCheck | null>();
  const check = (ip: Buffer, header: number): RouteCheck | null => {
    const key = makeKey(ip, header, header);
    const known = checks.get(key);
    if (known !== undefined) return known;
    const made = checkRoute(table, Buffer.from(ip.subarray(0, header)));
    if (checks.size >= CHECKS_MAX) checks.clear();
    checks.set(key, made);
    return made;
  };

  const add = (packet: CapturedPacket, at: number, header: number): void => {
    const ip = packet.bytes.subarray(at);
    const key = makeKey(ip, header, findEnd(ip, header));
    let row = rows.get(key);
    if (row === undefined) {
      const checked = check(ip, header);
      row = checked && makeRow(checked, ip, header);
      if (rows.size < ROWS_MAX) rows.set(key, row);
    }
    if (!row) return;
    if (isProbe(table, ip, header)) {
      counts.probes++;
      return;
    }
    counts.routed++;
    const length = readLength(ip, packet.length - at, header);
    const { reason, verified } = length === 0 ? tooLong : judge(row.check, packet, ip);
    if (!rows.has(key)) {
      if (reason === null) {
        counts.untold++;
        return;
      }
      row = rows.get(reason) ?? row;
      rows.set(reason, row);
    }
    // The agents count what ends as its sender made it, and what they drop as it came.
    const bytes = reason === null ? length - header + BASE_HEADER_BYTES : length;
    count(row, reason, packet, bytes, verified);
  };
  return { rows, counts, add };
}

const tooLong = { reason: 'total_length', verified: false } as const;

/** Total length; 0 where it is impossible. Of a segment that is yet to be cut, longer than the field holds, it is 0 on the wire. */
function readLength(ip: Buffer, available: number, header: number): number {
  const total = ip.readUInt16BE(2);
  if (total === 0 && available > 0xffff) return available;
  return total < header || total > available ? 0 : total;
}

/** Where the ports end, or the header where there are none. */
function findEnd(ip: Buffer, header: number): number {
  const isFragment = (ip.readUInt16BE(6) & 0x3fff) !== 0;
  return hasPorts(ip[9] ?? 0) && !isFragment ? header + 4 : header;
}

/** Source, destination, options without the tag's hash, up to `end`; in front what else makes a difference. */
function makeKey(ip: Buffer, header: number, end: number): string {
  const isLater = (ip.readUInt16BE(6) & 0x1fff) !== 0;
  const kind = String.fromCharCode(ip[9] ?? 0, (isLater ? 1 : 0) + (end > header ? 2 : 0));
  const isTagged = ip[20] === enums.lsr_option.LSR_OPTION_INTEGRITY && header >= 32;
  if (!isTagged) return kind + ip.toString('latin1', 12, end);
  return kind + ip.toString('latin1', 12, 24) + ip.toString('latin1', 32, end);
}

function makeRow(check: RouteCheck, ip: Buffer, header: number): Row {
  const isFragment = (ip.readUInt16BE(6) & 0x3fff) !== 0;
  const protocol = ip[9] ?? 0;
  const ported = hasPorts(protocol) && !isFragment && ip.length >= header + 4;
  // As the agents: 0 and 0 are none.
  const hasAny = ported && ip.readUInt32BE(header) !== 0;
  return {
    check,
    source: ip.readUInt32BE(12),
    protocol,
    sourcePort: hasAny ? ip.readUInt16BE(header) : null,
    destinationPort: hasAny ? ip.readUInt16BE(header + 2) : null,
    tallies: [],
  };
}

/** What a hop does with a packet, in the order of walk_route() and visit_hop(). */
function makeJudge(checkTag: ReturnType<typeof makeTagCheck> | null, counts: FlowCounts) {
  const fine = { reason: null, verified: false };
  const drop = (reason: DropReason) => ({ reason, verified: false });
  return ({ faults, prediction, options, hop, final }: RouteCheck, packet: CapturedPacket, ip: Buffer) => {
    if (faults.options) return drop(faults.options);
    const { bytes, interface: source } = packet;
    if (isForMany(source.linkType, bytes)) return drop('layer2_destination');
    if (!hasRightChecksum(ip, BASE_HEADER_BYTES + options.length)) return drop('checksum');
    if (faults.route) return drop(faults.route);
    if (!prediction) return fine;
    const { path, position } = prediction;
    let answer: TagAnswer = null;
    if (path.binding !== 'none' && checkTag) {
      answer = checkTag(toWire(ip, options, hop, final), path, packet.time);
      if (answer === 'unchecked') counts.unchecked++;
      else if (answer) return drop(answer);
    } else if (path.binding !== 'none') counts.unchecked++;
    if (faults.end === 'reflect') return drop('reflect');
    const ttl = ip[8] ?? 0;
    if (position < path.hops.length && ttl <= 1) return drop('ttl');
    if (faults.end) return drop(faults.end);
    if (ttl === 0) return drop('ttl');
    return path.binding !== 'none' && checkTag && answer === null ? { reason: null, verified: true } : fine;
  };
}

/** A masked packet as on the wire; any other as it is. */
function toWire(ip: Buffer, options: Buffer, hop: number, final: number): Buffer {
  const isMasked = ip.readUInt32BE(16) !== hop;
  if (!isMasked) return ip;
  const wire = Buffer.from(ip);
  options.copy(wire, BASE_HEADER_BYTES);
  ip.copy(wire, 24, 24, 32); // the tag's hash is this packet's own
  wire.writeUInt32BE(hop, 16);
  wire.writeUInt32BE(final, 32 + (wire[33] ?? 0) - 4);
  return wire;
}

function count(
  row: Row,
  reason: DropReason | null,
  packet: CapturedPacket,
  bytes: number,
  verified: boolean,
): void {
  const { number, time } = packet;
  let tally = row.tallies.find((one) => one.reason === reason);
  if (!tally) {
    tally = { reason, points: [], first: number, firstTime: time, lastTime: time, packets: 0, verified: 0 };
    row.tallies.push(tally);
  }
  if (time !== null) {
    if (tally.firstTime === null || time < tally.firstTime) tally.firstTime = time;
    if (tally.lastTime === null || time > tally.lastTime) tally.lastTime = time;
  }
  tally.packets++;
  if (verified) tally.verified++;
  const point = findPoint(packet);
  const counted = tally.points.find((one) => one.point === point);
  if (counted) {
    counted.packets++;
    counted.bytes += bytes;
  } else tally.points.push({ point, packets: 1, bytes });
}

const { LSR_PROBE_PORT } = enums.lsr_limits;
const { LSR_PROBE_MAGIC } = enums.lsr_probe_magic;
const udp = 17;

/** recognise() of bpf/probe.h; what was not captured may be one. */
function isProbe(table: HeaderTable, ip: Buffer, header: number): boolean {
  if (ip[9] !== udp || (ip.readUInt16BE(6) & 0x3fff) !== 0 || ip.length < header + 4) return false;
  if (ip.readUInt16BE(header + 2) !== LSR_PROBE_PORT || !table.isOfMesh(ip.readUInt32BE(12))) return false;
  return ip.length < header + 12 || ip.readUInt32BE(header + 8) === LSR_PROBE_MAGIC;
}
