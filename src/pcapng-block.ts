import { damage, PACKET_BYTES_MAX } from './capture.js';
import type { Cursor } from './capture-bytes.js';

/** draft-ietf-opsawg-pcapng. */
export const blockTypes = { section: 0x0a0d0d0a, interface: 1, obsolete: 2, simple: 3, enhanced: 6 } as const;

const orderMagic = { big: 0x1a2b3c4d, little: 0x4d3c2b1a };

/** Type and length in front of a block's body, and the length again behind it. */
const frameBytes = 12;
/** Of the blocks that are read; others are passed over, however long. A packet's options are what may make it longer. */
const BLOCK_BYTES_MAX = PACKET_BYTES_MAX + 65_536;

export interface Block {
  type: number;
  /** Offset of its first byte. */
  begin: number;
  /** Of a section without its byte order. */
  body: Buffer;
}

export interface BlockReader {
  /** Those that are read, one after the other; ends with the file. */
  blocks: Generator<Block>;
  /** Of the block whose end the file does not hold; null where there is none. */
  truncatedAt: number | null;
  /** In the byte order of the section. */
  read16(bytes: Buffer, at: number): number;
  read32(bytes: Buffer, at: number): number;
  read64(bytes: Buffer): bigint;
}

/** The first block's type has been read. */
export function makeBlockReader(cursor: Cursor, file: string): BlockReader {
  let little = false;

  function readOrder(begin: number): boolean {
    const bytes = cursor.take(4);
    if (!bytes) return false;
    const order = bytes.readUInt32BE();
    little = order === orderMagic.little;
    if (little || order === orderMagic.big) return true;
    throw damage(file, begin + 8, `${bytes.toString('hex')} is no byte order; 1a2b3c4d is, or 4d3c2b1a`);
  }

  /** Null where the file ends. */
  function readBlock(begin: number, typeBytes: Buffer): Block | null {
    const isSection = typeBytes.readUInt32BE() === blockTypes.section;
    const lengthBytes = cursor.take(4);
    if (!lengthBytes || (isSection && !readOrder(begin))) return null;
    const type = reader.read32(typeBytes, 0);
    const length = reader.read32(lengthBytes, 0);
    const rest = length - frameBytes - (isSection ? 4 : 0);
    if (rest < 0 || length % 4 !== 0)
      throw damage(file, begin + 4, `a block of ${length} bytes; lengths are 12 or more, and divide by 4`);
    const isRead = knownTypes.includes(type);
    if (isRead && length > BLOCK_BYTES_MAX)
      throw damage(file, begin + 4, `a block of ${length} bytes; packets have ${BLOCK_BYTES_MAX} at most`);
    const body = isRead ? cursor.take(rest) : cursor.skip(rest) ? Buffer.alloc(0) : null;
    const again = body && cursor.take(4);
    if (!body || !again) return null;
    const said = reader.read32(again, 0);
    if (said === length) return { type, begin, body };
    throw damage(file, cursor.offset - 4, `a block of ${length} bytes says ${said} at its end`);
  }

  function* readBlocks(): Generator<Block> {
    let typeBytes: Buffer | null = Buffer.from([0x0a, 0x0d, 0x0d, 0x0a]);
    for (; typeBytes; typeBytes = cursor.take(4)) {
      const begin = cursor.offset - 4;
      const block = readBlock(begin, typeBytes);
      if (!block) {
        reader.truncatedAt = begin;
        return;
      }
      if (knownTypes.includes(block.type)) yield block;
    }
    if (cursor.countLeft() > 0) reader.truncatedAt = cursor.offset;
  }

  const reader: BlockReader = {
    blocks: readBlocks(),
    truncatedAt: null,
    read16: (bytes, at) => (little ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at)),
    read32: (bytes, at) => (little ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at)),
    read64: (bytes) => (little ? bytes.readBigInt64LE() : bytes.readBigInt64BE()),
  };
  return reader;
}

const knownTypes: readonly number[] = Object.values(blockTypes);
