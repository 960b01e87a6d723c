import type { Capture } from './capture.js';
import { damage } from './capture.js';
import type { Cursor } from './capture-bytes.js';
import { readPcap } from './pcap.js';
import { readPcapng } from './pcapng.js';

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
