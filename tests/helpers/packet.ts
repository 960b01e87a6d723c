/** Builds frames byte by byte; every field can be given a wrong value on purpose. */
export interface Ipv4 {
  source: string;
  destination: string;
  protocol?: number;
  ttl?: number;
  tos?: number;
  id?: number;
  fragment?: number;
  options?: Uint8Array | readonly number[];
  payload?: Uint8Array;
  version?: number;
  ihl?: number;
  totalLength?: number;
  checksum?: number;
}

export function ipv4(fields: Ipv4): Buffer {
  const options = Buffer.from(fields.options ?? []);
  const payload = Buffer.from(fields.payload ?? udp());
  const header = Buffer.alloc(20 + options.length);
  header[0] = ((fields.version ?? 4) << 4) | (fields.ihl ?? header.length / 4);
  header[1] = fields.tos ?? 0;
  header.writeUInt16BE(fields.totalLength ?? header.length + payload.length, 2);
  header.writeUInt16BE(fields.id ?? 0x1234, 4);
  header.writeUInt16BE(fields.fragment ?? 0, 6);
  header[8] = fields.ttl ?? 64;
  header[9] = fields.protocol ?? 17;
  address(fields.source).copy(header, 12);
  address(fields.destination).copy(header, 16);
  options.copy(header, 20);
  header.writeUInt16BE(fields.checksum ?? internetChecksum(header), 10);
  return Buffer.concat([header, payload]);
}

export function ethernet(
  destination: string,
  packet: Uint8Array,
  type = 0x0800,
  source = '02:00:00:00:00:99',
): Buffer {
  const header = Buffer.alloc(14);
  Buffer.from(destination.replaceAll(':', ''), 'hex').copy(header, 0);
  Buffer.from(source.replaceAll(':', ''), 'hex').copy(header, 6);
  header.writeUInt16BE(type, 12);
  return Buffer.concat([header, packet]);
}

export function udp({ sourcePort = 4000, destinationPort = 53, data = 'payload!' } = {}): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt16BE(sourcePort, 0);
  header.writeUInt16BE(destinationPort, 2);
  header.writeUInt16BE(8 + data.length, 4);
  return Buffer.concat([header, Buffer.from(data)]);
}

/** A TCP segment with a right checksum for these ends. */
export function tcp(
  ends: { source: string; destination: string },
  {
    sourcePort = 4000,
    destinationPort = 80,
    flags = 0x10,
    options = [] as readonly number[],
    data = '',
  } = {},
): Buffer {
  const segment = Buffer.alloc(20 + options.length + data.length);
  segment.writeUInt16BE(sourcePort, 0);
  segment.writeUInt16BE(destinationPort, 2);
  segment[12] = (5 + options.length / 4) << 4;
  segment[13] = flags;
  segment.writeUInt16BE(65535, 14);
  Buffer.from(options).copy(segment, 20);
  segment.write(data, 20 + options.length);
  const length = Buffer.alloc(4);
  length.writeUInt16BE(segment.length, 2);
  length[1] = 6;
  const pseudo = Buffer.concat([
    address(ends.source),
    address(ends.destination),
    Buffer.from([0, 6]),
    length.subarray(2),
  ]);
  segment.writeUInt16BE(internetChecksum(Buffer.concat([pseudo, segment])), 16);
  return segment;
}

/** An ICMP error that quotes a packet; `mtu` is 0 but in 3/4 (RFC 1191 §4). */
export function icmpError(type: number, code: number, mtu: number, quoted: Uint8Array): Buffer {
  const message = Buffer.concat([Buffer.from([type, code, 0, 0, 0, 0, mtu >> 8, mtu & 255]), quoted]);
  message.writeUInt16BE(internetChecksum(message), 2);
  return message;
}

/** RFC 1071. */
export function internetChecksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** An LSRR (131) or SSRR (137) with any pointer, length and padding. */
export function sourceRoute(
  addresses: readonly string[],
  { type = 131, pointer = 4, length = 3 + 4 * addresses.length } = {},
): Buffer {
  return Buffer.concat([Buffer.from([type, length, pointer]), ...addresses.map(address)]);
}

export function recordRoute(
  slots: number,
  recorded: readonly string[] = [],
  pointer = 4 + 4 * recorded.length,
): Buffer {
  const option = Buffer.alloc(3 + 4 * slots);
  option.set([7, option.length, pointer]);
  recorded.forEach((text, i) => {
    address(text).copy(option, 3 + 4 * i);
  });
  return option;
}

/** Zero-padded to a multiple of four bytes. */
export function options(...parts: readonly Uint8Array[]): Buffer {
  const bytes = Buffer.concat(parts);
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
}

export const address = (text: string): Buffer => Buffer.from(text.split('.').map(Number));
