/** IPv4 headers to start from. */
import { internetChecksum } from '../helpers/packet.js';

/** Those with a meaning in bpf/lsr.h, and one without. */
export const optionTypes = [0, 1, 7, 68, 130, 131, 133, 134, 136, 137, 148, 158, 30, 222];

/** A UDP packet to host fw without options. */
export function makeBase(): Buffer {
  const base = Buffer.alloc(20);
  base.set([0x45, 0, 0, 20, 0x12, 0x34, 0, 0, 64, 17]);
  base.set([10, 1, 0, 10, 10, 0, 0, 2], 12);
  return base;
}

/** Makes the header's checksum right, where there is a header. */
export function repair(packet: Buffer): Buffer {
  const length = ((packet[0] ?? 0) & 15) * 4;
  if (length < 20 || packet.length < length) return packet;
  packet.writeUInt16BE(0, 10);
  packet.writeUInt16BE(internetChecksum(packet.subarray(0, length)), 10);
  return packet;
}
