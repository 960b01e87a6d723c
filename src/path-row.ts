import { createHash } from 'node:crypto';
import { formatAddress, parseAddress } from './address.js';
import { LsrError } from './errors.js';
import { explainRecord } from './explanation.js';
import type { FlowRow, Integrity, PathRecord, Verdict } from './record.js';

/** The columns of table `path`, in the order of toColumns. */
export const columns = [
  'id',
  'chain',
  'generation',
  'source',
  'destination',
  'protocol',
  'source_port',
  'destination_port',
  'expected',
  'recorded',
  'record_route',
  'verdict',
  'reasons',
  'packets',
  'bytes',
  'first_seen',
  'last_seen',
  'integrity',
  'arrived_from',
] as const;

export interface PathColumns {
  id: string;
  chain: string | null;
  generation: number;
  source: number;
  destination: number;
  protocol: number;
  source_port: number | null;
  destination_port: number | null;
  expected: string;
  recorded: string;
  record_route: string;
  verdict: Verdict;
  reasons: string;
  packets: number;
  bytes: number;
  first_seen: number;
  last_seen: number;
  integrity: Integrity;
  arrived_from: string | null;
}

/** A row as the upsert binds it. Its id is made of all that tells one record from another. */
export function toColumns(row: FlowRow): (string | number | null)[] {
  const { flow } = row;
  const expected = JSON.stringify(row.expected);
  const recorded = JSON.stringify(row.recorded);
  const recordRoute = JSON.stringify(row.recordRoute);
  const reasons = JSON.stringify(row.reasons);
  const ports = [flow.sourcePort, flow.destinationPort];
  const key = [
    flow.source,
    flow.destination,
    flow.protocol,
    ...ports,
    expected,
    recorded,
    recordRoute,
    reasons,
  ];
  return [
    identify([row.chain, row.generation, row.verdict, row.integrity, ...key]),
    row.chain,
    row.generation,
    toAddress(flow.source),
    toAddress(flow.destination),
    flow.protocol,
    flow.sourcePort,
    flow.destinationPort,
    expected,
    recorded,
    recordRoute,
    row.verdict,
    reasons,
    row.packets,
    row.bytes,
    Date.parse(row.firstSeen),
    Date.parse(row.lastSeen),
    row.integrity,
    row.arrivedFrom && JSON.stringify(row.arrivedFrom),
  ];
}

/** 96 bits of SHA-256: at a billion records two different ones coincide with a chance of 1 in 10^11. */
function identify(key: unknown[]): string {
  return createHash('sha256').update(JSON.stringify(key)).digest('hex').slice(0, 24);
}

function toAddress(text: string): number {
  const address = parseAddress(text);
  if (address === null)
    throw new LsrError('INTERNAL', `a flow carries ${JSON.stringify(text)}, not an IPv4 address`);
  return address;
}

export function toRecord(row: PathColumns): PathRecord {
  const flow: FlowRow = {
    chain: row.chain,
    generation: row.generation,
    flow: {
      source: formatAddress(row.source),
      destination: formatAddress(row.destination),
      protocol: row.protocol,
      sourcePort: row.source_port,
      destinationPort: row.destination_port,
    },
    expected: JSON.parse(row.expected),
    recorded: JSON.parse(row.recorded),
    recordRoute: JSON.parse(row.record_route),
    verdict: row.verdict,
    reasons: JSON.parse(row.reasons),
    packets: row.packets,
    bytes: row.bytes,
    firstSeen: new Date(row.first_seen).toISOString(),
    lastSeen: new Date(row.last_seen).toISOString(),
    integrity: row.integrity,
    arrivedFrom: row.arrived_from === null ? null : JSON.parse(row.arrived_from),
  };
  return { id: row.id, ...flow, explanation: explainRecord(flow) };
}
