import type { Cursor } from './capture-bytes.js';
import {
  type Capture,
  type CapturedPacket,
  type CaptureInterface,
  damage,
  PACKET_BYTES_MAX,
} from './capture-file.js';

/** draft-ietf-opsawg-pcapng. */
const blocks = { section: 0x0a0d0d0a, interface: 1, obsolete: 2, simple: 3, enhanced: 6 } as const;
const options = { end: 0, interfaceName: 2, timeResolution: 9, timeOffset: 14 } as const;
const orderMagic = { big: 0x1a2b3c4d, little: 0x4d3c2b1a };

/** Type and length in front of a block's body, and the length again behind it. */
const blockFrame = 12;
/** Of the blocks that are read; others are passed over, however long. A packet's options are what may make it longer. */
const BLOCK_BYTES_MAX = PACKET_BYTES_MAX + 65_536;

interface Described extends CaptureInterface {
  /** Bytes kept of each packet; 0 for all. */
  snap: number;
  unitsPerMs: number;
  /** ms. */
  offset: number;
}

interface Block {
  type: number;
  begin: number;
  body: Buffer;
}

/** The type of the first block has been read. */
export function readPcapng(cursor: Cursor, file: string): Capture {
  let little = false;
  let count = 0;
  /** Of the section. */
  let described: Described[] = [];
  const read16 = (bytes: Buffer, at: number): number =>
    little ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at);
  const read32 = (bytes: Buffer, at: number): number =>
    little ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at);

  /** A block's type is read; null where the file ends. */
  function readBlock(begin: number, typeBytes: Buffer): Block | null {
    const isSection = typeBytes.readUInt32BE() === blocks.section;
    const lengthBytes = cursor.take(4);
    const orderBytes = isSection && lengthBytes ? cursor.take(4) : null;
    if (!lengthBytes || (isSection && !orderBytes)) return null;
    if (orderBytes) {
      const order = orderBytes.readUInt32BE();
      if (order !== orderMagic.big && order !== orderMagic.little)
        throw damage(
          file,
          begin + 8,
          `${orderBytes.toString('hex')} is no byte order; 1a2b3c4d is, or 4d3c2b1a`,
        );
      little = order === orderMagic.little;
    }
    const type = read32(typeBytes, 0);
    const length = read32(lengthBytes, 0);
    const rest = length - blockFrame - (isSection ? 4 : 0);
    if (rest < 0 || length % 4 !== 0)
      throw damage(file, begin + 4, `a block of ${length} bytes; lengths are 12 or more, and divide by 4`);
    const isRead = (Object.values(blocks) as number[]).includes(type);
    if (isRead && length > BLOCK_BYTES_MAX)
      throw damage(file, begin + 4, `a block of ${length} bytes; packets have ${BLOCK_BYTES_MAX} at most`);
    const body = isRead ? cursor.take(rest) : cursor.skip(rest) ? Buffer.alloc(0) : null;
    const again = body && cursor.take(4);
    if (!body || !again) return null;
    if (read32(again, 0) !== length)
      throw damage(file, cursor.offset - 4, `a block of ${length} bytes says ${read32(again, 0)} at its end`);
    return { type, begin, body };
  }

  function requireBytes({ begin, body }: Block, bytes: number, what: string): void {
    if (body.length < bytes)
      throw damage(file, begin, `${what} of ${body.length} bytes; it has ${bytes} or more`);
  }

  function beginSection(block: Block): void {
    requireBytes(block, 12, 'the header of a section');
    const [major, minor] = [read16(block.body, 0), read16(block.body, 2)];
    if (major !== 1) throw damage(file, block.begin + 12, `pcapng version ${major}.${minor}; 1.0 is read`);
    described = [];
  }

  function describeInterface(block: Block): void {
    requireBytes(block, 8, 'the description of an interface');
    const { body } = block;
    const found: Described = {
      ...{ index: capture.interfaces.length, name: null, linkType: read16(body, 0), packets: 0 },
      ...{ snap: read32(body, 4), unitsPerMs: 1000, offset: 0 },
    };
    for (let at = 8; at + 4 <= body.length; ) {
      const [code, length] = [read16(body, at), read16(body, at + 2)];
      const value = body.subarray(at + 4, at + 4 + length);
      if (code === options.end || value.length < length) break;
      if (code === options.interfaceName) found.name = value.toString().replace(/\0+$/, '');
      if (code === options.timeResolution) found.unitsPerMs = readResolution(value[0] ?? 6) / 1000;
      if (code === options.timeOffset && length === 8)
        found.offset = Number(little ? value.readBigInt64LE() : value.readBigInt64BE()) * 1000;
      at += 4 + Math.ceil(length / 4) * 4;
    }
    described.push(found);
    capture.interfaces.push(found);
  }

  function readPacket(block: Block): CapturedPacket {
    const { body, begin, type } = block;
    const isSimple = type === blocks.simple;
    const head = isSimple ? 4 : 20;
    requireBytes(block, head, `packet ${count + 1}: a block`);
    const index = isSimple ? 0 : type === blocks.enhanced ? read32(body, 0) : read16(body, 0);
    const found = described[index];
    if (!found)
      throw damage(
        file,
        begin,
        `packet ${count + 1}: interface ${index} of ${described.length} in its section`,
      );
    const length = read32(body, isSimple ? 0 : 16);
    const kept = isSimple ? Math.min(length, found.snap || length) : read32(body, 12);
    if (kept > PACKET_BYTES_MAX || head + kept > body.length) {
      const room = `its block has room for ${body.length - head}`;
      throw damage(file, begin, `packet ${count + 1} has ${kept} bytes; ${room}`);
    }
    const units = isSimple ? null : read32(body, 4) * 2 ** 32 + read32(body, 8);
    count++;
    found.packets++;
    return {
      number: count,
      time: units === null ? null : toTime(units / found.unitsPerMs + found.offset),
      interface: found,
      bytes: body.subarray(head, head + kept),
      length: Math.max(length, kept),
    };
  }

  function* readPackets(): Generator<CapturedPacket> {
    let typeBytes: Buffer | null = firstType;
    for (let begin = 0; typeBytes; typeBytes = cursor.take(4)) {
      begin = cursor.offset - 4;
      const block = readBlock(begin, typeBytes);
      if (!block) {
        capture.truncatedAt = begin;
        return;
      }
      if (block.type === blocks.section) beginSection(block);
      else if (block.type === blocks.interface) describeInterface(block);
      else if (block.body.length > 0) yield readPacket(block);
    }
    if (cursor.countLeft() > 0) capture.truncatedAt = cursor.offset;
  }

  const firstType = Buffer.from([0x0a, 0x0d, 0x0d, 0x0a]);
  const capture: Capture = {
    format: 'pcapng',
    interfaces: [],
    truncatedAt: null,
    packets: readPackets(),
  };
  return capture;
}

/** if_tsresol: units a second, a power of ten, or of two with the upper bit set. */
const readResolution = (value: number): number => (value & 0x80 ? 2 ** (value & 0x7f) : 10 ** value);

/** ECMAScript has no later moments. */
const toTime = (ms: number): number | null => (Math.abs(ms) <= 8.64e15 ? ms : null);
