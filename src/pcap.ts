import {
  type Capture,
  type CapturedPacket,
  type CaptureInterface,
  damage,
  PACKET_BYTES_MAX,
} from './capture.js';
import type { Cursor } from './capture-bytes.js';

/** Bytes of the file's header behind its magic number, and of each packet's. */
const fileHeader = 20;
const packetHeader = 16;

/** draft-ietf-opsawg-pcap; the magic number has been read. */
export function readPcap(
  cursor: Cursor,
  file: string,
  { little, unitsPerMs }: { little: boolean; unitsPerMs: number },
): Capture {
  const read16 = (bytes: Buffer, at: number): number =>
    little ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at);
  const read32 = (bytes: Buffer, at: number): number =>
    little ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at);
  const header = cursor.take(fileHeader);
  if (!header) throw damage(file, 0, 'the file ends inside its header of 24 bytes');
  const [major, minor] = [read16(header, 0), read16(header, 2)];
  if (major !== 2) throw damage(file, 4, `pcap version ${major}.${minor}; 2.4 is read`);
  // The upper bits tell of a frame check sequence behind each packet, which nobody looks at.
  const linkType = read32(header, 16) & 0xffff;
  const source: CaptureInterface = { index: 0, name: null, linkType, packets: 0 };

  function* readPackets(): Generator<CapturedPacket> {
    for (;;) {
      const begin = cursor.offset;
      const head = cursor.take(packetHeader);
      const kept = head ? read32(head, 8) : 0;
      if (kept > PACKET_BYTES_MAX) {
        const limit = `more than ${PACKET_BYTES_MAX}: the file is damaged here or before`;
        throw damage(file, begin, `packet ${source.packets + 1} has ${kept} bytes, ${limit}`);
      }
      const bytes = head && cursor.take(kept);
      if (!head || !bytes) {
        if (head || cursor.countLeft() > 0) capture.truncatedAt = begin;
        return;
      }
      source.packets++;
      yield {
        number: source.packets,
        time: read32(head, 0) * 1000 + read32(head, 4) / unitsPerMs,
        interface: source,
        bytes,
        length: Math.max(kept, read32(head, 12)),
      };
    }
  }

  const capture: Capture = {
    format: 'pcap',
    interfaces: [source],
    truncatedAt: null,
    packets: readPackets(),
  };
  return capture;
}
