import { LsrError } from './errors.js';

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

/** `offset`: of what is wrong, in bytes. */
export function damage(file: string, offset: number, message: string): LsrError {
  const name = file === '-' ? 'stdin' : file;
  return new LsrError('CAPTURE_UNREADABLE', `${name}, byte ${offset}: ${message}`, { file, offset });
}
