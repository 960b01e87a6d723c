/**
 * A second opinion on IPv4 headers, from RFC 791 §3.1 and the grammar of a chain packet: an integrity option or none,
 * exactly one source route behind it; Record Route, if any, right behind it; less than four zero bytes behind that. It names the first
 * fault in the order of the options, then what is wrong with them as a whole.
 */
import type { DropReason } from './reasons.js';

export interface Option {
  kind: 'nop' | 'tag' | 'route' | 'record' | 'forbidden' | 'unknown';
  /** From the first option byte on. */
  at: number;
  type: number;
  length: number;
  /** Of a source route or Record Route: where the next address goes, from 4. */
  pointer: number;
}

export interface Header {
  source: number;
  destination: number;
  /** Bytes. */
  length: number;
  headerLength: number;
  fragment: number;
  ttl: number;
  protocol: number;
  dscp: number;
  checksumRight: boolean;
}

export interface OptionList {
  /** Those before the first fault. */
  options: Option[];
  fault: DropReason | null;
  /** Where the list ends: at its fault, at End of Option List, or with the header. */
  end: number;
  /** End of Option List was met. */
  ended: boolean;
}

export interface Layout {
  fault: DropReason | null;
  /** Bytes of the NOPs that a router left in the place of Record Route; 0 without. */
  blank: number;
}

/** `segmented`: a GSO packet, whose total length may be too long for its field, and is 0 then. */
export function readHeader(bytes: Uint8Array, segmented = false): Header | DropReason {
  if (bytes.length < 20) return 'short';
  const [first = 0, tos = 0] = bytes;
  if (first >> 4 !== 4) return 'version';
  const headerLength = (first & 15) * 4;
  if (headerLength < 20) return 'ihl';
  const total = read16(bytes, 2);
  const length = segmented && total === 0 ? bytes.length : total;
  if (length < headerLength || length > bytes.length) return 'total_length';
  return {
    source: read32(bytes, 12),
    destination: read32(bytes, 16),
    length,
    headerLength,
    fragment: read16(bytes, 6),
    ttl: bytes[8] ?? 0,
    protocol: bytes[9] ?? 0,
    dscp: tos >> 2,
    checksumRight: hasRightChecksum(bytes, headerLength),
  };
}

/** `field`: all bytes behind the base header. */
export function listOptions(field: Uint8Array): OptionList {
  const options: Option[] = [];
  let at = 0;
  while (at < field.length) {
    const type = field[at] ?? 0;
    if (type === 0) return { options, fault: null, end: at, ended: true };
    const option = nameOption(field, at);
    const fault = findFault(option, field.length - at, options);
    if (fault) return { options, fault, end: at, ended: false };
    options.push(option);
    at += option.length;
  }
  return { options, fault: null, end: at, ended: false };
}

/** Whether the options, which have no fault of their own, are together those of a chain packet. */
export function judgeLayout(field: Uint8Array, list: OptionList, fragment: number): Layout {
  const kinds = list.options.map(({ kind }) => kind);
  if (kinds.includes('forbidden')) return { fault: 'forbidden_option', blank: 0 };
  if (kinds.includes('unknown')) return { fault: 'unknown_option', blank: 0 };
  const rest = field.subarray(list.end);
  const padded = rest.length < 4 && rest.every((byte) => byte === 0);
  // Record Route is not copied into the fragments that have an offset; Linux puts NOPs there.
  const later = (fragment & 0x1fff) !== 0;
  const [first, ...others] = kinds[0] === 'tag' ? kinds.slice(1) : kinds;
  const blank = later && others.every((kind) => kind === 'nop') ? others.length : 0;
  const complete =
    others.length === 0 ||
    (later ? blank > 0 && isListLength(blank) : others.length === 1 && others[0] === 'record');
  return first === 'route' && complete && padded ? { fault: null, blank } : { fault: 'layout', blank: 0 };
}

/** No host has it: this network, loopback, multicast, reserved, broadcast (RFC 1812 §5.3.7). */
export const isMartian = (address: number): boolean =>
  address < 0x01000000 || (address >= 0x7f000000 && address < 0x80000000) || address >= 0xe0000000;

const kindsByType = new Map<number, Option['kind']>([
  [1, 'nop'],
  [131, 'route'],
  [137, 'route'],
  [7, 'record'],
  [68, 'forbidden'], // timestamp
  [130, 'forbidden'], // security
  [133, 'forbidden'], // extended security
  [134, 'forbidden'], // CIPSO
  [136, 'forbidden'], // stream id
  [222, 'forbidden'], // a source route, masked
  [148, 'forbidden'], // Router Alert
  [158, 'tag'], // integrity
]);

function nameOption(field: Uint8Array, at: number): Option {
  const type = field[at] ?? 0;
  const kind = kindsByType.get(type) ?? 'unknown';
  const length = kind === 'nop' ? 1 : (field[at + 1] ?? 0);
  return { kind, at, type, length, pointer: field[at + 2] ?? 0 };
}

function findFault(option: Option, room: number, before: readonly Option[]): DropReason | null {
  const { kind, type, length, pointer } = option;
  if (kind === 'nop') return null;
  if (room === 1) return 'option_overrun';
  if (length < 2) return kind === 'record' ? 'record_length' : 'option_length';
  if (length > room) return 'option_overrun';
  if (type === 148 && length !== 4) return 'option_length'; // RFC 2113 §2.1
  if (kind !== 'route' && kind !== 'record' && kind !== 'tag') return null;
  if (before.some((other) => other.kind === kind)) return 'duplicate_option';
  if (kind === 'tag') return length === 12 ? null : 'tag_format';
  if (!isListLength(length)) return kind === 'route' ? 'option_length' : 'record_length';
  if (isListPointer(pointer, length)) return null;
  return kind === 'route' ? 'pointer' : 'record_pointer';
}

/** Three bytes in front of one address or more. */
const isListLength = (length: number): boolean => length > 3 && (length - 3) % 4 === 0;

/** At one of the addresses, or right behind the last. */
function isListPointer(pointer: number, length: number): boolean {
  const places = (length - 3) / 4 + 1;
  return pointer % 4 === 0 && pointer / 4 >= 1 && pointer / 4 <= places;
}

/** RFC 1071: with its checksum in it, a header adds up to 0xffff. */
export function hasRightChecksum(bytes: Uint8Array, headerLength: number): boolean {
  let sum = 0;
  for (let at = 0; at < headerLength; at += 2) sum += read16(bytes, at);
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  return sum === 0xffff;
}

const read16 = (bytes: Uint8Array, at: number): number => (bytes[at] ?? 0) * 256 + (bytes[at + 1] ?? 0);
const read32 = (bytes: Uint8Array, at: number): number => read16(bytes, at) * 65536 + read16(bytes, at + 2);
