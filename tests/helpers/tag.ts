import { type Binding, countTagBytes } from '../../src/path.js';
import type { DropReason } from '../../src/reasons.js';
import { siphash } from '../../src/siphash.js';
import { address, type Ipv4 } from './packet.js';

/** Those that only tests/bpf/integrity.test.ts meets. */
export const integrityReasons: readonly DropReason[] = [
  'tag_format',
  'tag_missing',
  'key_unknown',
  'key_expired',
  'tag_age',
  'tag_wrong',
  'replay',
  'icmp_quote',
  'no_key',
];

export interface Signature {
  key: Uint8Array;
  slot: number;
  chain: number;
  path: number;
  binding: Binding;
  /** The final destination. */
  destination: string;
  /** Epochs of 2 s since 1970. */
  epoch: bigint;
}

/** What an edge signs with at this moment: as of half a second ago. */
export const epochNow = (): bigint => BigInt(Math.floor((Date.now() - 500) / 2000));

/** The packet with the number and the tag of its integrity option filled in. */
export function seal(packet: Ipv4, signature: Signature): Ipv4 {
  const options = Buffer.from(packet.options ?? []);
  if (countTagBytes(signature) === 0) throw new Error('this path has no tag');
  options.writeUInt16BE((signature.slot << 14) | signature.chain, 2);
  siphash(signature.key, cover(packet, options, signature)).copy(options, 4);
  return { ...packet, options };
}

/** The 32 bytes that a tag is made of. */
function cover(packet: Ipv4, options: Buffer, { path, binding, destination, epoch }: Signature): Buffer {
  const covered = Buffer.alloc(32);
  const payload = Buffer.from(packet.payload ?? []);
  const protocol = packet.protocol ?? 17;
  options.copy(covered, 0, 0, 4);
  covered.writeUInt32BE(path, 4);
  address(packet.source).copy(covered, 8);
  address(destination).copy(covered, 12);
  if (binding === 'ports' && packet.fragment === 0x4000 && [6, 17, 132, 136].includes(protocol))
    payload.copy(covered, 16, 0, 4);
  covered.writeUInt8(protocol, 20);
  covered.writeBigUInt64BE(epoch, 24);
  return covered;
}
