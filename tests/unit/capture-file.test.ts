/** Files of scapy, editcap and mergecap, read by us and by tshark; and files that nobody should have made. */
import { readFileSync, writeFileSync } from 'node:fs';
import test from 'ava';
import fc from 'fast-check';
import { LsrError } from '../../src/errors.js';
import { findIpv4 } from '../../src/link-layer.js';
import {
  encodePcap,
  makeFolder,
  makeWithScapy,
  openBytes,
  openFile,
  readWithTshark,
  run,
  type Seen,
} from '../helpers/capture.js';
import { ipv4 } from '../helpers/packet.js';

const folder = makeFolder();
const base = folder.path('base.pcap');

test.before(() => {
  // Through a chain, with other options, without any, no IPv4, padded, in fragments; each 1.25 s behind the one before.
  makeWithScapy(`
ip = lambda **more: IP(src='10.1.0.10', dst='10.0.0.2', **more)
route = IPOption_LSRR(routers=['10.0.0.3', '10.9.0.10'], pointer=4)
packets = [ip(options=[route])/UDP(dport=9)/'x', ip(options=[route, IPOption_RR(routers=['0.0.0.0']*2, pointer=4)])/TCP(dport=80),
  ip(options=IPOption_SSRR(routers=['10.9.0.10'], pointer=4))/ICMP(), ip()/UDP()/'plain', ARP(), IPv6()/UDP(),
  *fragment(ip(options=[route])/UDP()/('y' * 3000), 1000)]
packets = [Ether(src='02:00:00:00:00:01', dst='02:00:00:00:00:02')/p for p in packets]
packets.append(Ether()/Dot1Q(vlan=7)/ip(options=[route])/UDP())
packets.append(Ether(type=0x88a8)/Dot1Q(vlan=7, type=0x8100)/Dot1Q(vlan=8)/ip(options=[route])/UDP())
packets.append(Ether()/ip(options=[route])/Padding('z' * 20))
for i, p in enumerate(packets): p.time = 1700000000.000001 + 1.25 * i
wrpcap('${base}', packets)`);
});

test.after.always(() => folder.remove());

const scapy = (words: string) => (file: string) => {
  makeWithScapy(`${words.replace('OUT', `'${file}'`).replace('IN', `rdpcap('${base}')`)}`);
};
const edit =
  (...words: string[]) =>
  (file: string) => {
    run('editcap', ...words, base, file);
  };

const inner = '[p[IP] for p in IN if IP in p]';
const files: [title: string, make: (file: string) => void][] = [
  ['pcap', edit('-F', 'pcap')],
  ['pcap of nanoseconds', edit('-F', 'nsecpcap')],
  ['pcapng', edit('-F', 'pcapng')],
  ['pcapng with packets cut at 50 bytes', edit('-s', '50', '-F', 'pcapng')],
  ['pcap with packets cut at 40 bytes', edit('-s', '40', '-F', 'pcap')],
  ['big-endian pcap', scapy("w = PcapWriter(OUT, endianness='>'); w.write(IN); w.close()")],
  [
    'big-endian pcap of nanoseconds',
    scapy("w = PcapWriter(OUT, endianness='>', nano=True); w.write(IN); w.close()"),
  ],
  ["scapy's pcapng", scapy('wrpcapng(OUT, IN)')],
  ['raw IP', scapy(`w = PcapWriter(OUT, linktype=101); [w.write(p) for p in ${inner}]; w.close()`)],
  ['IPv4', scapy(`w = PcapWriter(OUT, linktype=228); [w.write(p) for p in ${inner}]; w.close()`)],
  ['cooked', scapy(`wrpcap(OUT, [CookedLinux(proto=0x800)/p for p in ${inner}])`)],
  [
    'cooked, VLAN-tagged',
    scapy(`wrpcap(OUT, [CookedLinux(proto=0x8100)/Dot1Q(vlan=5)/p for p in ${inner}])`),
  ],
  ['cooked v2', scapy(`wrpcap(OUT, [CookedLinuxV2(proto=0x800, ifindex=3)/p for p in ${inner}])`)],
  ['a link type that nobody here reads', edit('-T', 'ieee-802-11')],
  [
    'interfaces of two link types, merged',
    (file) => {
      scapy(`wrpcap(OUT, [CookedLinux(proto=0x800)/p for p in ${inner}])`)(folder.path('part'));
      run('mergecap', '-F', 'pcapng', '-w', file, base, folder.path('part'));
    },
  ],
  [
    'two sections',
    (file) => {
      edit('-F', 'pcapng')(folder.path('first'));
      scapy(`w = PcapNgWriter(OUT); [w.write(p) for p in IN]; w.close()`)(folder.path('second'));
      writeFileSync(file, Buffer.concat(['first', 'second'].map((name) => readFileSync(folder.path(name)))));
    },
  ],
];

function readSeen(file: string): Seen[] {
  const capture = openFile(file);
  return [...capture.packets].map(({ number, time, interface: { linkType }, bytes, length }) => {
    const at = findIpv4(linkType, bytes);
    const header = at < 0 ? null : bytes.subarray(at, at + ((bytes[at] ?? 0) & 15) * 4).toString('hex');
    return { number, time, kept: bytes.length, length, header };
  });
}

for (const [title, make] of files) {
  test(`${title}: numbers, times, lengths and IPv4 headers are those that tshark reads`, (t) => {
    const file = folder.path(title.replaceAll(/\W/g, '-'));
    make(file);
    const expected = readWithTshark(file);
    const seen = readSeen(file);
    t.true(expected.length >= 9, String(expected.length));
    t.is(seen.length, expected.length);
    for (const [index, packet] of seen.entries()) {
      const { time, header, ...rest } = packet;
      const { time: told, header: cut, ...others } = expected[index] as Seen;
      t.deepEqual(rest, others);
      t.true(Math.abs((time ?? 0) - (told ?? 0)) < 0.001, `${time} ${told}`);
      // tshark gives up on a header that was cut.
      if (rest.kept === rest.length) t.is(header, cut);
    }
  });
}

const whole = encodePcap([
  ipv4({ source: '10.1.0.10', destination: '10.0.0.2' }),
  ipv4({ source: '10.1.0.10', destination: '10.0.0.3' }),
]);
const packetBytes = 16 + 36;

test('a file that ends inside a packet gives those before, and says where it ends', (t) => {
  for (let length = 24; length < whole.length; length++) {
    const capture = openBytes(whole.subarray(0, length), 7);
    const count = Math.floor((length - 24) / packetBytes);
    t.is([...capture.packets].length, count);
    t.is(capture.truncatedAt, (length - 24) % packetBytes === 0 ? null : 24 + count * packetBytes);
  }
});

test('a pcapng file that ends inside a block gives the packets before, and says where it ends', (t) => {
  const file = folder.path('cut.pcapng');
  edit('-F', 'pcapng')(file);
  const bytes = readFileSync(file);
  const all = [...openBytes(bytes).packets].length;
  let before = 0;
  for (let length = 8; length < bytes.length; length += 3) {
    const capture = openBytes(bytes.subarray(0, length), 100);
    const count = [...capture.packets].length;
    t.true(count >= before && count < all, String(length));
    before = count;
    if (capture.truncatedAt !== null) t.true(capture.truncatedAt < length);
  }
  t.is(before, all - 1);
});

const set = (at: number, ...values: number[]) => {
  const bytes = Buffer.from(whole);
  bytes.set(values, at);
  return bytes;
};
const section = (...words: number[]): Buffer => {
  const bytes = Buffer.alloc(4 * words.length);
  words.forEach((word, index) => {
    bytes.writeUInt32BE(word, 4 * index);
  });
  return bytes;
};
const header = [0x0a0d0d0a, 28, 0x1a2b3c4d, 0x00010000, 0xffffffff, 0xffffffff, 28];
const ethernet = [1, 20, 0x00010000, 0, 20];

const damaged: [title: string, bytes: Buffer, message: RegExp][] = [
  ['an empty file', Buffer.alloc(0), /byte 0: it is empty; a capture begins with a header/],
  ['three bytes', Buffer.alloc(3), /less than 4 bytes/],
  ['text', Buffer.from('hello'), /68656c6c begins neither a pcap/],
  ['a gzip file', Buffer.from('1f8b0800', 'hex'), /packed by gzip; unpack it first: gzip -dc FILE/],
  ['a pcap header that is cut', whole.subarray(0, 23), /ends inside its header of 24 bytes/],
  ['pcap version 3', set(4, 3), /byte 4: pcap version 3\.4; 2\.4 is read/],
  [
    'a packet of 4 GiB',
    set(24 + 8, 255, 255, 255, 255),
    /byte 24: packet 1 has 4294967295 bytes, more than 262144/,
  ],
  ['no byte order', section(0x0a0d0d0a, 28, 7), /byte 8: 00000007 is no byte order; 1a2b3c4d is/],
  ['a block of 8 bytes', section(...header, 6, 8), /byte 32: a block of 8 bytes; lengths are 12 or more/],
  ['a block of 33 bytes', section(...header, 6, 33), /33 bytes; lengths are 12 or more, and divide by 4/],
  ['a packet block of 4 GiB', section(...header, 6, 0xfffffffc), /byte 32: a block of 4294967292 bytes/],
  [
    'two lengths that differ',
    section(...header, 1, 20, 0x00010000, 0, 24),
    /byte 44: a block of 20 bytes says 24/,
  ],
  ['pcapng version 2', section(...header.with(3, 0x00020000)), /byte 12: pcapng version 2\.0; 1\.0 is read/],
  [
    'an interface that is not described',
    section(...header, ...ethernet, 6, 32, 3, 0, 0, 0, 0, 32),
    /interface 3; its section has 1/,
  ],
  [
    'an interface of another section',
    section(...header, ...ethernet, ...header, 6, 32, 0, 0, 0, 0, 0, 32),
    /interface 0; its section has 0/,
  ],
  [
    'a packet longer than its block',
    section(...header, ...ethernet, 6, 36, 0, 0, 0, 5, 5, 0, 36),
    /packet 1 has 5 bytes; its block has room for 4/,
  ],
  [
    'a packet block of 12 bytes',
    section(...header, ...ethernet, 6, 12, 12),
    /packet 1 has 0 bytes in its block; it needs 20/,
  ],
];
for (const [title, bytes, message] of damaged) {
  test(`${title} is refused, and the message says where and what would be right`, (t) => {
    const error = t.throws(() => [...openBytes(bytes).packets], { instanceOf: LsrError });
    t.is(error?.code, 'CAPTURE_UNREADABLE');
    t.regex(error?.message ?? '', message);
  });
}

test('if_tsresol, if_tsoffset and simple packets without a time are read', (t) => {
  const option = (code: number, length: number, ...words: number[]) => [code * 65536 + length, ...words];
  const describe = (...options: number[]) => {
    const length = 20 + 4 * options.length;
    return [1, length, 101 * 65536, 2, ...options, length];
  };
  const capture = openBytes(
    section(
      ...header,
      ...describe(...option(9, 1, 0x83000000), ...option(14, 8, 0, 100)), // eighths of a second, from 100 s on
      ...describe(...option(9, 1, 0x09000000)),
      ...[6, 32, 0, 0, 12, 0, 0, 32],
      ...[6, 32, 1, 1, 0, 0, 0, 32],
      ...[3, 20, 5, 0x45000000, 20],
      ...[6, 32, 0, 0xffffffff, 0xffffffff, 0, 0, 32],
    ),
    5,
  );
  const seen = [...capture.packets].map(({ time, bytes, length }) => [time, bytes.length, length]);
  t.deepEqual(seen, [
    [101_500, 0, 0],
    [4294.967296, 0, 0],
    [null, 2, 5],
    [null, 0, 0],
  ]);
});

test('whatever is changed in a file, and in pieces of any size, reading ends with packets or with CAPTURE_UNREADABLE', (t) => {
  const file = folder.path('fuzz.pcapng');
  edit('-F', 'pcapng')(file);
  const seeds = [whole, readFileSync(file), readFileSync(base)];
  const change = fc.record({ at: fc.nat(400), value: fc.integer({ min: 0, max: 255 }) });
  const property = fc.property(
    fc.constantFrom(...seeds),
    fc.array(change, { maxLength: 6 }),
    fc.nat(4000),
    fc.integer({ min: 1, max: 300 }),
    (seed, changes, length, size) => {
      const bytes = Buffer.from(seed.subarray(0, Math.max(length, 30)));
      for (const { at, value } of changes) bytes[at % bytes.length] = value;
      try {
        for (const { interface: source, bytes: kept, time } of openBytes(bytes, size).packets) {
          findIpv4(source.linkType, kept);
          if (time !== null) new Date(time).toISOString();
        }
      } catch (error) {
        if (!(error instanceof LsrError)) throw error;
      }
    },
  );
  t.notThrows(() => fc.assert(property, { numRuns: 20_000 }));
});
