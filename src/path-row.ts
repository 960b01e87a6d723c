import { createHash } from 'node:crypto';
import { formatAddress, parseAddress } from './address.js';
import { LsrError } from './errors.js';
import { explainRecord } from './explanation.js';
import type { FlowRow, Integrity, PathRecord, Verdict } from './record.js';

/** What records share by the thousand: a path of a mesh document, and what came of it. A row of table `way`. */
export interface Way {
  chain: string | null;
  generation: number;
  verdict: Verdict;
  integrity: Integrity;
  /** JSON. */
  expected: string;
}

/** The columns of table `record`, in the order of toColumns. */
export const columns = [
  'id',
  'way',
  'source',
  'destination',
  'protocol',
  'source_port',
  'destination_port',
  'recorded',
  'record_route',
  'reasons',
  'arrived_from',
  'packets',
  'bytes',
  'first_seen',
  'last_seen',
] as const;

export interface RecordColumns {
  number: number;
  id: string;
  way: number;
  source: number;
  destination: number;
  protocol: number;
  source_port: number | null;
  destination_port: number | null;
  /** JSON; null where it is what was expected. */
  recorded: string | null;
  record_route: string;
  /** JSON; null where there are none. */
  reasons: string | null;
  arrived_from: string | null;
  packets: number;
  bytes: number;
  first_seen: number;
  last_seen: number;
}

export function toWay({ chain, generation, verdict, integrity, expected }: FlowRow): Way {
  return { chain, generation, verdict, integrity, expected: JSON.stringify(expected) };
}

/** A row as the upsert binds it. Its id is made of all that tells one record from another. */
export function toColumns(row: FlowRow, way: Way, wayNumber: number): (string | number | null)[] {
  const { flow } = row;
  const recorded = JSON.stringify(row.recorded);
  const recordRoute = JSON.stringify(row.recordRoute);
  const reasons = row.reasons.length === 0 ? null : JSON.stringify(row.reasons);
  const ends = [flow.source, flow.destination, flow.protocol, flow.sourcePort, flow.destinationPort];
  return [
    identify([...Object.values(way), ...ends, recorded, recordRoute, reasons]),
    wayNumber,
    toAddress(flow.source),
    toAddress(flow.destination),
    flow.protocol,
    flow.sourcePort,
    flow.destinationPort,
    recorded === way.expected ? null : recorded,
    recordRoute,
    reasons,
    row.arrivedFrom && JSON.stringify(row.arrivedFrom),
    row.packets,
    row.bytes,
    Date.parse(row.firstSeen),
    Date.parse(row.lastSeen),
  ];
}

/** 96 bits of SHA-256: at a billion records two different ones coincide with a chance of 1 in 10^11. */
function identify(key: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(key)).digest('hex').slice(0, 24);
}

function toAddress(text: string): number {
  const address = parseAddress(text);
  if (address === null)
    throw new LsrError('INTERNAL', `a flow carries ${JSON.stringify(text)}, not an IPv4 address`);
  return address;
}

export function toRecord(row: RecordColumns, way: Way): PathRecord {
  const flow: FlowRow = {
    chain: way.chain,
    generation: way.generation,
    flow: {
      source: formatAddress(row.source),
      destination: formatAddress(row.destination),
      protocol: row.protocol,
      sourcePort: row.source_port,
      destinationPort: row.destination_port,
    },
    expected: JSON.parse(way.expected),
    recorded: JSON.parse(row.recorded ?? way.expected),
    recordRoute: JSON.parse(row.record_route),
    verdict: way.verdict,
    reasons: JSON.parse(row.reasons ?? '[]'),
    packets: row.packets,
    bytes: row.bytes,
    firstSeen: new Date(row.first_seen).toISOString(),
    lastSeen: new Date(row.last_seen).toISOString(),
    integrity: way.integrity,
    arrivedFrom: row.arrived_from === null ? null : JSON.parse(row.arrived_from),
  };
  return { id: row.id, ...flow, explanation: explainRecord(flow) };
}
