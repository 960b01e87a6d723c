import type { Capture, CapturedPacket } from './capture.js';
import { makeCursor, readChunks } from './capture-bytes.js';
import { openCapture } from './capture-file.js';
import { type FlowTable, makeFlowTable } from './capture-flows.js';
import { type AuditRecord, groupSightings, listRecords } from './capture-records.js';
import { explainViolations, listViolations, type Violation } from './capture-violations.js';
import { LsrError } from './errors.js';
import { quote, suggest } from './finding.js';
import { makeHeaderTable } from './header-table.js';
import type { Keys } from './keys.js';
import { BASE_HEADER_BYTES } from './limits.js';
import { findIpv4, isKnownLinkType, knownLinkTypes } from './link-layer.js';
import type { Mesh } from './mesh.js';
import type { Explanation } from './reasons.js';
import { type Rendered, renderMesh } from './render.js';
import { makeTagCheck } from './tag-check.js';

/** What a capture holds, and what a mesh says of it. */
export interface CaptureReport {
  capture: {
    file: string;
    format: Capture['format'];
    packets: number;
    ipv4: number;
    /** With a source route, or the tag of one. */
    sourceRoutes: number;
    /** Of agents, with a source route: they ask whether a path is up, and are in no record. */
    probes: number;
    /** IPv4 of which too little was kept to see its options. */
    snapped: number;
    /** Whose integrity tag could not be checked: no keys, no time, or no ports in what was kept. */
    tagsUnchecked: number;
    /** Of too many different headers: not in any record. */
    untold: number;
    /** Offset of the last packet or block, whose end the file does not hold; null where it is whole. */
    truncatedAt: number | null;
    interfaces: { name: string | null; linkType: number; supported: boolean; packets: number }[];
    firstPacket: string | null;
    lastPacket: string | null;
  };
  records: AuditRecord[];
  violations: Violation[];
  /** Of the reasons of violations. */
  explanations: Record<string, Explanation>;
}

export interface AuditFilter {
  chain?: string | undefined;
  verdict?: string | undefined;
}

/** Reads a capture to its end and judges it as the agents of a mesh would. Throws CAPTURE_UNREADABLE. */
export function auditCapture(
  file: string,
  mesh: Mesh,
  keys: Keys | null,
  filter: AuditFilter = {},
  chunks: Iterable<Buffer> = readChunks(file),
): CaptureReport {
  const rendered = renderMesh(mesh);
  requireChain(filter.chain, rendered);
  const capture = openCapture(makeCursor(chunks), file);
  const flows = makeFlowTable(makeHeaderTable(rendered), keys && makeTagCheck(keys));
  const counts = countPackets(capture, flows);
  refuseUnknownLinks(file, capture);
  const rows = [...flows.rows.values()].filter((row) => row !== null);
  const sightings = groupSightings({ mesh: rendered.mesh, rendered }, rows);
  const found = listRecords(sightings);
  const isWanted = ({ chain, verdict }: { chain: string | null; verdict: string | null }): boolean =>
    (filter.chain === undefined || chain === filter.chain) &&
    (filter.verdict === undefined || verdict === filter.verdict);
  const records = found.filter(isWanted);
  const violations = listViolations(sightings, found).filter(isWanted);
  return {
    capture: {
      file: file === '-' ? 'stdin' : file,
      format: capture.format,
      ...counts,
      sourceRoutes: flows.counts.routed,
      probes: flows.counts.probes,
      tagsUnchecked: flows.counts.unchecked,
      untold: flows.counts.untold,
      truncatedAt: capture.truncatedAt,
      interfaces: capture.interfaces.map(({ name, linkType, packets }) => ({
        name,
        linkType,
        supported: isKnownLinkType(linkType),
        packets,
      })),
    },
    records,
    violations,
    explanations: explainViolations(violations),
  };
}

function requireChain(name: string | undefined, { chains }: Rendered): void {
  const names = chains.map((chain) => chain.name);
  if (name === undefined || names.includes(name)) return;
  throw new LsrError('USAGE', `--chain: there is no chain ${quote(name)}${suggest(name, names)}`);
}

function countPackets(capture: Capture, flows: FlowTable) {
  let packets = 0;
  let ipv4 = 0;
  let snapped = 0;
  let first = Number.POSITIVE_INFINITY;
  let last = Number.NEGATIVE_INFINITY;
  for (const packet of capture.packets) {
    packets++;
    if (packet.time !== null) {
      if (packet.time < first) first = packet.time;
      if (packet.time > last) last = packet.time;
    }
    const at = findIpv4(packet.interface.linkType, packet.bytes);
    if (at < 0 || (packet.bytes[at] ?? 0) >> 4 !== 4) continue;
    ipv4++;
    const header = ((packet.bytes[at] ?? 0) & 15) * 4;
    if (header <= BASE_HEADER_BYTES) continue;
    if (at + header <= packet.bytes.length) flows.add(packet, at, header);
    else if (isSnapped(packet)) snapped++;
  }
  return { packets, ipv4, snapped, firstPacket: formatTime(first), lastPacket: formatTime(last) };
}

const isSnapped = ({ bytes, length }: CapturedPacket): boolean => bytes.length < length;

const formatTime = (ms: number): string | null => (Number.isFinite(ms) ? new Date(ms).toISOString() : null);

/** Silence about a capture of which nothing could be read would be taken for a clean one. */
function refuseUnknownLinks(file: string, { interfaces }: Capture): void {
  if (interfaces.length === 0 || interfaces.some(({ linkType }) => isKnownLinkType(linkType))) return;
  const types = [...new Set(interfaces.map(({ linkType }) => linkType))].join(', ');
  throw new LsrError('CAPTURE_UNREADABLE', `${file}: link type ${types}; these are read: ${knownLinkTypes}`);
}
