import type { Cursor } from './capture-bytes.js';
import { LsrError } from './errors.js';
import { readPcap } from './pcap.js';
import { readPcapng } from './pcapng.js';

/** What packets were captured on: one for a pcap file; those of all sections for pcapng. */
export interface CaptureInterface {
  /** From 0, over all sections. */
  index: number;
  /** As the file has it; null where it has none. */
  name: string | null;
  /** As in https://www.tcpdump.org/linktypes.html. */
  linkType: number;
  packets: number;
}

export interface CapturedPacket {
  /** From 1, as Wireshark counts. */
  number: number;
  /** ms since 1970; null where the file does not say. */
  time: number | null;
  interface: CaptureInterface;
  /** From the link layer on, as far as it was kept. */
  bytes: Buffer;
  /** Bytes on the wire. */
  length: number;
}

export interface Capture {
  format: 'pcap' | 'pcapng';
  /** Grows while packets are read. */
  interfaces: CaptureInterface[];
  /** Where the last packet, or block, begins, whose end the file does not hold; null where it is whole. */
  truncatedAt: number | null;
  packets: Generator<CapturedPacket>;
}

/** Wireshark takes no longer packet either (WTAP_MAX_PACKET_SIZE_STANDARD). */
export const PACKET_BYTES_MAX = 262_144;

/** The first bytes of a pcap file, big-endian: byte order and unit of its times. */
const pcapMagics: Record<number, { little: boolean; unitsPerMs: number }> = {
  2712847316: { little: false, unitsPerMs: 1000 }, // a1b2c3d4
  3569595041: { little: true, unitsPerMs: 1000 }, // d4c3b2a1
  2712812621: { little: false, unitsPerMs: 1_000_000 }, // a1b23c4d
  1295823521: { little: true, unitsPerMs: 1_000_000 }, // 4d3cb2a1
};
/** The same either way round. */
const pcapngMagic = 0x0a0d0d0a;

/** Packets are read as they are asked for. Throws CAPTURE_UNREADABLE, also while they are read. */
export function openCapture(cursor: Cursor, file: string): Capture {
  const magic = cursor.take(4);
  if (!magic) {
    const what = cursor.countLeft() === 0 ? 'it is empty' : 'it has less than 4 bytes';
    throw damage(file, 0, `${what}; a capture begins with a header of 24 bytes or more`);
  }
  const number = magic.readUInt32BE();
  if (number === pcapngMagic) return readPcapng(cursor, file);
  const variant = pcapMagics[number];
  if (variant) return readPcap(cursor, file, variant);
  throw damage(file, 0, `${magic.toString('hex')} ${describeMagic(magic)}`);
}

function describeMagic(magic: Buffer): string {
  const packed: Record<string, string> = { '1f8b': 'gzip', '28b5': 'zstd', fd37: 'xz', '425a': 'bzip2' };
  const tool = packed[magic.toString('hex', 0, 2)];
  if (tool) return `begins a file packed by ${tool}; unpack it first: ${tool} -dc FILE | lsr-agent audit -`;
  return 'begins neither a pcap (a1b2c3d4 or a1b23c4d, either way round) nor a pcapng file (0a0d0d0a)';
}

export function damage(file: string, offset: number, message: string): LsrError {
  const name = file === '-' ? 'stdin' : file;
  return new LsrError('CAPTURE_UNREADABLE', `${name}, byte ${offset}: ${message}`, { file, offset });
}
