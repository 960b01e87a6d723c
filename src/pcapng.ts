import {
  type Capture,
  type CapturedPacket,
  type CaptureInterface,
  damage,
  PACKET_BYTES_MAX,
} from './capture.js';
import type { Cursor } from './capture-bytes.js';
import { type Block, type BlockReader, blockTypes, makeBlockReader } from './pcapng-block.js';

interface Described extends CaptureInterface {
  /** Bytes kept of each packet; 0 for all. */
  snap: number;
  unitsPerMs: number;
  /** ms. */
  timeOffset: number;
}

/** The type of the first block has been read. */
export function readPcapng(cursor: Cursor, file: string): Capture {
  const reader = makeBlockReader(cursor, file);
  const interfaces: Described[] = [];
  /** Where those of this section begin. */
  let begin = 0;
  let count = 0;

  function* readPackets(): Generator<CapturedPacket> {
    for (const block of reader.blocks) {
      if (block.type === blockTypes.section) {
        checkSection(reader, file, block);
        begin = interfaces.length;
      } else if (block.type === blockTypes.interface) {
        interfaces.push(describeInterface(reader, file, block, interfaces.length));
      } else {
        count++;
        yield readPacket(reader, file, block, { interfaces, begin }, count);
      }
    }
  }

  return {
    format: 'pcapng',
    interfaces,
    get truncatedAt() {
      return reader.truncatedAt;
    },
    packets: readPackets(),
  };
}

function requireBytes(file: string, { begin, body }: Block, bytes: number, what: string): void {
  if (body.length < bytes)
    throw damage(file, begin, `${what} has ${body.length} bytes in its block; it needs ${bytes} or more`);
}

function checkSection({ read16 }: BlockReader, file: string, block: Block): void {
  requireBytes(file, block, 12, 'the header of a section');
  const [major, minor] = [read16(block.body, 0), read16(block.body, 2)];
  if (major !== 1) throw damage(file, block.begin + 12, `pcapng version ${major}.${minor}; 1.0 is read`);
}

const optionCodes = { end: 0, name: 2, timeResolution: 9, timeOffset: 14 } as const;

function describeInterface(reader: BlockReader, file: string, block: Block, index: number): Described {
  requireBytes(file, block, 8, 'the description of an interface');
  const { read16, read32, read64 } = reader;
  const { body } = block;
  const described: Described = {
    index,
    name: null,
    linkType: read16(body, 0),
    packets: 0,
    snap: read32(body, 4),
    unitsPerMs: 1000,
    timeOffset: 0,
  };
  for (let at = 8; at + 4 <= body.length; ) {
    const [code, length] = [read16(body, at), read16(body, at + 2)];
    const value = body.subarray(at + 4, at + 4 + length);
    if (code === optionCodes.end || value.length < length) break;
    if (code === optionCodes.name) described.name = value.toString().replace(/\0+$/, '');
    if (code === optionCodes.timeResolution && length === 1) described.unitsPerMs = countUnits(value[0] ?? 6);
    if (code === optionCodes.timeOffset && length === 8) described.timeOffset = Number(read64(value)) * 1000;
    at += 4 + Math.ceil(length / 4) * 4;
  }
  return described;
}

/** if_tsresol: units a second, as a power of ten, or of two with the upper bit set. */
const countUnits = (value: number): number => (value & 0x80 ? 2 ** (value & 0x7f) : 10 ** value) / 1000;

function readPacket(
  { read16, read32 }: BlockReader,
  file: string,
  block: Block,
  section: { interfaces: readonly Described[]; begin: number },
  number: number,
): CapturedPacket {
  const { body, begin, type } = block;
  const isSimple = type === blockTypes.simple;
  const head = isSimple ? 4 : 20;
  requireBytes(file, block, head, `packet ${number}`);
  const index = isSimple ? 0 : type === blockTypes.enhanced ? read32(body, 0) : read16(body, 0);
  const source = section.interfaces[section.begin + index];
  if (!source) {
    const known = `its section has ${section.interfaces.length - section.begin}, numbered from 0`;
    throw damage(file, begin, `packet ${number} is of interface ${index}; ${known}`);
  }
  const length = read32(body, isSimple ? 0 : 16);
  const kept = isSimple ? Math.min(length, source.snap || length) : read32(body, 12);
  const room = Math.min(body.length - head, PACKET_BYTES_MAX);
  if (kept > room)
    throw damage(file, begin, `packet ${number} has ${kept} bytes; its block has room for ${room}`);
  source.packets++;
  const units = isSimple ? null : read32(body, 4) * 2 ** 32 + read32(body, 8);
  return {
    number,
    time: units === null ? null : toTime(units / source.unitsPerMs + source.timeOffset),
    interface: source,
    bytes: body.subarray(head, head + kept),
    length: Math.max(length, kept),
  };
}

/** ECMAScript has no later moments. */
const toTime = (ms: number): number | null => (Math.abs(ms) <= 8.64e15 ? ms : null);
