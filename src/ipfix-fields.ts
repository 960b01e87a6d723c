import { parseAddress } from './address.js';
import { flattenRoute } from './export-format.js';
import type { PathRecord } from './record.js';

/**
 * The enterprise number for documentation (RFC 5612). The project has none of its own, and the numbers below it may mean
 * something else to others; each export therefore says what they mean (RFC 5610).
 */
export const enterprise = 32473;

export type Value = number | bigint | string;

export interface Field {
  name: string;
  id: number;
  type: keyof typeof dataTypes;
  /** An element of `enterprise`, and what it means. */
  own?: string;
  read(record: PathRecord): Value;
}

/** RFC 5610 §3.1 numbers; bytes, where 65535 says that each value carries its length (RFC 7011 §7). */
export const dataTypes = {
  unsigned8: { code: 1, bytes: 1 },
  unsigned16: { code: 2, bytes: 2 },
  unsigned32: { code: 3, bytes: 4 },
  unsigned64: { code: 4, bytes: 8 },
  string: { code: 13, bytes: 65535 },
} as const;

export const ports: readonly Field[] = [
  { name: 'sourceTransportPort', id: 7, type: 'unsigned16', read: ({ flow }) => flow.sourcePort ?? 0 },
  {
    name: 'destinationTransportPort',
    id: 11,
    type: 'unsigned16',
    read: ({ flow }) => flow.destinationPort ?? 0,
  },
];

const own = (
  id: number,
  name: string,
  meaning: string,
  read: Field['read'],
  type: Field['type'] = 'string',
) => ({ name, id, type, own: meaning, read }) as const;

/** Standard elements have the names of IANA's registry. */
export const fields: readonly Field[] = [
  {
    name: 'flowStartMilliseconds',
    id: 152,
    type: 'unsigned64',
    read: (record) => Date.parse(record.firstSeen),
  },
  { name: 'flowEndMilliseconds', id: 153, type: 'unsigned64', read: (record) => Date.parse(record.lastSeen) },
  {
    name: 'sourceIPv4Address',
    id: 8,
    type: 'unsigned32',
    read: ({ flow }) => parseAddress(flow.source) ?? 0,
  },
  {
    name: 'destinationIPv4Address',
    id: 12,
    type: 'unsigned32',
    read: ({ flow }) => parseAddress(flow.destination) ?? 0,
  },
  { name: 'protocolIdentifier', id: 4, type: 'unsigned8', read: ({ flow }) => flow.protocol },
  { name: 'packetDeltaCount', id: 2, type: 'unsigned64', read: ({ packets }) => packets },
  { name: 'octetDeltaCount', id: 1, type: 'unsigned64', read: ({ bytes }) => bytes },
  { name: 'forwardingStatus', id: 89, type: 'unsigned8', read: readStatus },
  { name: 'flowId', id: 148, type: 'unsigned64', read: ({ id }) => BigInt(`0x${id.slice(0, 16)}`) },
  own(1, 'lsrChain', 'chain, or its segment', ({ chain }) => chain ?? ''),
  own(2, 'lsrVerdict', 'how the way compares with the chain', ({ verdict }) => verdict),
  own(3, 'lsrReasons', 'why, separated by spaces', ({ reasons }) => reasons.join(' ')),
  own(4, 'lsrExpected', 'hops as meant, node=address', ({ expected }) => flattenRoute(expected)),
  own(5, 'lsrRecorded', 'hops as recorded, node=address', ({ recorded }) => flattenRoute(recorded)),
  own(6, 'lsrRecordRoute', 'addresses in Record Route', ({ recordRoute }) => recordRoute.join(' ')),
  own(7, 'lsrGeneration', 'generation of the mesh document', ({ generation }) => generation, 'unsigned32'),
];

/** 64 forwarded, 128 dropped, in both cases without a further reason (RFC 7270 §4.12). */
function readStatus({ verdict, reasons }: PathRecord): number {
  const delivered = reasons.some((reason) => reason === 'reported' || reason.startsWith('unavailable:'));
  if (verdict === 'complete' || delivered) return 64;
  return verdict === 'detour' && !reasons.includes('detour') ? 64 : 128;
}
