import ipaddr from 'ipaddr.js';

/** IPv4 address in host order: 0…0xffffffff. */
export type Address = number;

/** Host bits are zero. */
export interface Prefix {
  address: Address;
  length: number;
}

/** Reads a strict dotted quad; null for anything else, also for `010.0.0.1`, `10.1` and `0x7f.0.0.1`. */
export function parseAddress(text: string): Address | null {
  if (!ipaddr.IPv4.isValidFourPartDecimal(text)) return null;
  return ipaddr.IPv4.parse(text).octets.reduce((sum, octet) => sum * 256 + octet, 0);
}

export function formatAddress(address: Address): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join('.');
}

/** Reads `10.0.0.0/8`, or an address alone as /32; null when host bits are set. */
export function parsePrefix(text: string): Prefix | null {
  const prefix = parseLoosePrefix(text);
  return prefix && prefix.address === maskAddress(prefix.address, prefix.length) ? prefix : null;
}

/** As parsePrefix, but host bits may be set. */
export function parseLoosePrefix(text: string): Prefix | null {
  const [, quad = '', digits = '32'] = /^([^/]+)(?:\/(\d|[12]\d|3[0-2]))?$/.exec(text) ?? [];
  const address = parseAddress(quad);
  return address === null ? null : { address, length: Number(digits) };
}

export function formatPrefix(prefix: Prefix): string {
  return `${formatAddress(prefix.address)}/${prefix.length}`;
}

/** Clears the bits behind the first `length`. */
export function maskAddress(address: Address, length: number): Address {
  return length === 0 ? 0 : (address & (0xffffffff << (32 - length))) >>> 0;
}

export function containsAddress(prefix: Prefix, address: Address): boolean {
  return maskAddress(address, prefix.length) === prefix.address;
}

/** Prefixes overlap exactly when the shorter one contains the other. */
export function overlapPrefixes(a: Prefix, b: Prefix): boolean {
  return a.length <= b.length ? containsAddress(a, b.address) : containsAddress(b, a.address);
}

/** Can be one host: not in 0/8, 127/8 or 224/3 (RFC 1812 §5.3.7), as the data path has it. */
export function isUnicast(address: Address): boolean {
  const first = address >>> 24;
  return first !== 0 && first !== 127 && first < 224;
}

/** 169.254/16 (RFC 3927): no router forwards it. */
export function isLinkLocal(address: Address): boolean {
  return address >>> 16 === 0xa9fe;
}
