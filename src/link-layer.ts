import type { CapturedPacket } from './capture.js';

/** Of https://www.tcpdump.org/linktypes.html; 12 is what some systems write for raw IP. */
const linkTypes = { ethernet: 1, rawOld: 12, raw: 101, cooked: 113, ipv4: 228, cooked2: 276 } as const;

export const isKnownLinkType = (linkType: number): boolean =>
  (Object.values(linkTypes) as number[]).includes(linkType);

export const knownLinkTypes = '1 (Ethernet), 101 (raw IP), 113 and 276 (Linux cooked), 228 (IPv4)';

const etherTypes = { ipv4: 0x0800, tag: 0x8100, serviceTag: 0x88a8, oldServiceTag: 0x9100 } as const;

/** Where the IPv4 header begins; -1 where there is none, or it was not kept. */
export function findIpv4(linkType: number, frame: Buffer): number {
  switch (linkType) {
    case linkTypes.ethernet:
      return passTags(frame, 12);
    case linkTypes.cooked:
      return passTags(frame, 14);
    case linkTypes.cooked2:
      return passTags(frame, 0, 20);
    case linkTypes.raw:
    case linkTypes.rawOld:
      return (frame[0] ?? 0) >> 4 === 4 ? 0 : -1;
    case linkTypes.ipv4:
      return 0;
    default:
      return -1;
  }
}

/** `at`: of an EtherType; behind it, or behind the header that it stands in, there may be VLAN tags of 4 bytes. */
function passTags(frame: Buffer, at: number, behind = at + 2): number {
  let type = readType(frame, at);
  let begin = behind;
  while (type === etherTypes.tag || type === etherTypes.serviceTag || type === etherTypes.oldServiceTag) {
    type = readType(frame, begin + 2);
    begin += 4;
  }
  return type === etherTypes.ipv4 && begin < frame.length ? begin : -1;
}

const readType = (frame: Buffer, at: number): number => ((frame[at] ?? 0) << 8) | (frame[at + 1] ?? 0);

/** The frame was for many hosts: a group address, or what Linux tells instead (PACKET_BROADCAST, PACKET_MULTICAST). */
export function isForMany(linkType: number, frame: Buffer): boolean {
  if (linkType === linkTypes.ethernet) return ((frame[0] ?? 0) & 1) === 1;
  const type = readPacketType(linkType, frame);
  return type === 1 || type === 2;
}

/** Outgoing, or where it came from (linux/if_packet.h, PACKET_…); 0 where the capture does not tell. */
function readPacketType(linkType: number, frame: Buffer): number {
  if (linkType === linkTypes.cooked) return readType(frame, 0);
  return linkType === linkTypes.cooked2 ? (frame[10] ?? 0) : 0;
}

/**
 * Tells the points apart at which one capture meets the same packet: its interfaces and, for one on all of a host's
 * ("any"), each of these, in and out.
 */
export function findPoint({ interface: source, bytes }: CapturedPacket): number {
  const { linkType, index } = source;
  const device = linkType === linkTypes.cooked2 && bytes.length >= 8 ? bytes.readUInt32BE(4) : 0;
  // All of them are below 2^53: so many interfaces no file has.
  return ((index % 2 ** 17) * 2 ** 32 + device) * 8 + (readPacketType(linkType, bytes) & 7);
}
