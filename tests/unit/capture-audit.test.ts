/** What the audit says of packets that are made byte by byte, and of those that the second opinion on the programs judges too. */
import { writeFileSync } from 'node:fs';
import test from 'ava';
import { execa } from 'execa';
import fc from 'fast-check';
import { auditCapture, type CaptureReport } from '../../src/capture-audit.js';
import { readKeys } from '../../src/keys.js';
import type { Mesh } from '../../src/mesh.js';
import { encodePcap, makeFolder } from '../helpers/capture.js';
import { chained } from '../helpers/corpus.js';
import { ethernet, type Ipv4, ipv4, options, recordRoute, sourceRoute, udp } from '../helpers/packet.js';
import { seal } from '../helpers/tag.js';
import { repair } from '../parser/base.js';
import { keysText, makeChainPackets, mesh, rendered } from '../parser/chains.js';
import { DECISION_BYTES, readDecision, writeOpinion } from '../parser/decision.js';
import { expectReasons } from '../parser/expectation.js';

const folder = makeFolder();
test.after.always(() => folder.remove());

const keys = readKeys(keysText, 'keys');
const key = Buffer.from('5a'.repeat(16), 'hex');
const startMs = 1_700_000_001_000;

const audit = (
  packets: readonly Uint8Array[],
  { withKeys = false, linkType = 101, ...filter } = {},
): CaptureReport =>
  auditCapture('test', mesh, withKeys ? keys : null, filter, [encodePcap(packets, { linkType, startMs })]);

/** 10.1.0.10 to 10.9.0.10 by the chain `through`: edge → fw → ids → gw, with two Record Route slots. */
const through = (position: number, fields: Partial<Ipv4> = {}): Buffer =>
  ipv4(chained('through', position, { payload: udp({ sourcePort: 5, destinationPort: 1000 }), ...fields }));

const names = (route: CaptureReport['records'][number]['recorded']): string =>
  route.map(({ node, address }) => node ?? address).join(' ');

test('plain packets, and those with options that are no business of a chain, are read and not judged', (t) => {
  const ends = { source: '10.1.0.10', destination: '10.0.0.2' };
  const report = audit([
    ipv4(ends),
    ipv4({ ...ends, options: options(recordRoute(3)) }),
    ipv4({ ...ends, options: [148, 4, 0, 0] }),
    ipv4({ ...ends, options: [68, 1, 0, 0] }),
  ]);
  t.like(report.capture, { packets: 4, ipv4: 4, sourceRoutes: 0 });
  t.deepEqual([report.records, report.violations], [[], []]);
});

const ways: [
  title: string,
  positions: number[],
  verdict: string,
  recorded: string,
  packets: number,
  reasons: string[],
][] = [
  ['all legs', [1, 1, 1, 2, 2, 2, 3, 3, 4, 4], 'complete', 'edge fw ids gw', 2, []],
  ['the last leg alone', [4], 'complete', 'edge fw ids gw', 1, []],
  ['the first leg', [1, 1], 'partial', '', 2, ['seen_to:edge']],
  ['two legs in the middle', [2, 2, 3], 'partial', 'edge fw', 1, ['seen_to:ids']],
];
for (const [title, positions, verdict, recorded, packets, reasons] of ways) {
  test(`a capture of ${title} gives one record, of the furthest position: ${verdict}`, (t) => {
    const { records, violations } = audit(positions.map((position) => through(position)));
    t.deepEqual(violations, []);
    t.is(records.length, 1);
    const [record] = records;
    t.like(record, { chain: 'through', verdict, packets, reasons, integrity: 'none' });
    t.is(names(record?.recorded ?? []), recorded);
    t.is(names(record?.expected ?? []), 'edge fw ids gw');
    t.deepEqual(
      record?.legs.map((leg) => leg.packets),
      [1, 2, 3, 4].map((position) => positions.filter((other) => other === position).length),
    );
    t.like(record?.flow, {
      source: '10.1.0.10',
      destination: '10.9.0.10',
      sourcePort: 5,
      destinationPort: 1000,
    });
  });
}

test('fragments have no ports; those that are not the first have no Record Route, and a record of their own', (t) => {
  const { options: plain = [] } = chained('through', 4);
  const bytes = Buffer.from(plain);
  bytes.fill(1, bytes[1], (bytes[1] ?? 0) + 11);
  const { records, violations } = audit([
    through(4, { fragment: 0x2000 }),
    through(4, { fragment: 7, options: bytes }),
  ]);
  t.deepEqual(violations, []);
  t.deepEqual(
    records.map(({ packets, verdict, recordRoute, flow }) => [
      packets,
      verdict,
      recordRoute,
      flow.sourcePort,
    ]),
    [
      [1, 'complete', ['10.0.0.1', '10.0.0.2'], null],
      [1, 'complete', [], null],
    ],
  );
});

const lsr = (hops: string[], fields: Partial<Ipv4> = {}, route = {}): Buffer =>
  ipv4({
    source: '10.1.0.10',
    destination: '10.0.0.2',
    options: options(sourceRoute([...hops, '10.9.0.10'], route)),
    ...fields,
  });
const flags = (bytes: Buffer): Buffer =>
  Buffer.concat([Buffer.from('ffffffffffff0200000000010800', 'hex'), bytes]);

const bad: [reason: string, verdict: string | null, packet: Buffer, linkType?: number][] = [
  ['unknown_path', 'forged', lsr(['10.0.0.77'])],
  ['position', 'skipped', through(2, { destination: '10.0.0.3' })],
  ['exhausted', 'truncated', lsr(['10.0.0.3'], {}, { pointer: 12 })],
  [
    'record_mismatch',
    'forged',
    lsr(['10.0.0.77', '10.0.0.3', '10.0.0.4'], {
      destination: '10.0.0.2',
      options: options(
        sourceRoute(['10.0.0.77', '10.0.0.3', '10.0.0.4', '10.9.0.10'], { pointer: 8 }),
        recordRoute(2, ['10.0.0.1']),
      ),
    }),
  ],
  [
    'route_mismatch',
    'forged',
    lsr([], {
      options: options(
        sourceRoute(['10.0.0.1', '10.0.0.3', '10.0.0.77', '10.9.0.10'], { pointer: 8 }),
        recordRoute(2, ['10.0.0.1']),
      ),
    }),
  ],
  ['loop', 'forged', lsr(['10.0.0.2', '10.0.0.4'])],
  ['bad_hop', 'forged', lsr(['224.0.0.1'])],
  ['reflect', 'forged', lsr(['10.1.0.10'])],
  ['reflect', null, through(2, { source: '10.0.0.3' })],
  ['not_my_hop', null, lsr(['10.0.0.3'], { destination: '10.0.0.200' })],
  ['source_martian', null, through(2, { source: '127.0.0.1' })],
  ['source_self', null, through(2, { source: '10.0.0.2' })],
  ['checksum', null, through(2, { checksum: 1 })],
  ['ttl', null, through(2, { ttl: 1 })],
  ['ttl', null, through(4, { ttl: 0 })],
  ['total_length', null, through(2, { totalLength: 2000 })],
  [
    'destination',
    null,
    ipv4({
      ...chained('through', 2),
      options: options(
        sourceRoute(['10.0.0.1', '10.0.0.3', '10.0.0.4', '10.66.0.1'], { pointer: 8 }),
        recordRoute(2, ['10.0.0.1']),
      ),
    }),
  ],
  ['layer2_destination', null, flags(through(2)), 1],
  ['layout', null, lsr(['10.0.0.3'], { options: [1, 131, 7, 4, 10, 9, 0, 10] })],
  ['layout', null, lsr([], { options: [158, 12, ...Array(10).fill(0)] })],
  [
    'duplicate_option',
    null,
    lsr([], { options: options(sourceRoute(['10.9.0.10']), sourceRoute(['10.9.0.10'])) }),
  ],
  ['option_length', null, lsr([], { options: options(sourceRoute(['10.9.0.10'], { length: 6 })) })],
  ['option_overrun', null, lsr([], { options: options(sourceRoute(['10.9.0.10'], { length: 39 })) })],
  ['pointer', null, lsr(['10.0.0.3'], {}, { pointer: 5 })],
  ['record_pointer', null, lsr([], { options: options(sourceRoute(['10.9.0.10']), recordRoute(1, [], 5)) })],
  ['record_length', null, lsr([], { options: [...sourceRoute(['10.9.0.10']), 7, 5, 4, 0, 0] })],
  ['unknown_option', null, lsr([], { options: options(sourceRoute(['10.9.0.10']), Buffer.from([94, 2])) })],
  [
    'forbidden_option',
    null,
    lsr([], { options: options(sourceRoute(['10.9.0.10']), Buffer.from([68, 4, 5, 0])) }),
  ],
  ['forbidden_option', null, lsr([], { options: [222, 7, 4, 10, 0, 0, 2, 0] })],
  ['tag_format', null, lsr([], { options: [158, 4, 0, 0, ...sourceRoute(['10.9.0.10']), 0] })],
  [
    'tag_missing',
    'forged',
    ipv4({ ...chained('sealed', 2), options: Buffer.from(chained('sealed', 2).options ?? []).subarray(12) }),
  ],
];
for (const [row, [reason, verdict, packet, linkType]] of bad.entries()) {
  test(`beside right packets one is found that is to be dropped (row ${row + 1}): ${reason}, ${verdict}`, (t) => {
    const wrap = (bytes: Buffer) => (linkType === 1 ? ethernet('02:00:00:00:00:02', bytes) : bytes);
    const packets = [wrap(through(1)), wrap(through(4)), packet, wrap(through(4))];
    const { records, violations, explanations } = audit(packets, { linkType: linkType ?? 101 });
    t.is(violations.length, 1, JSON.stringify(violations));
    t.like(violations[0], { reason, verdict, packets: 1, firstPacket: 3 });
    t.is(violations[0]?.firstSeen, new Date(startMs).toISOString());
    t.truthy(explanations[reason]?.meaning);
    t.like(
      records.find((record) => record.verdict === 'complete'),
      { packets: 2 },
    );
    t.is(records.length, verdict === null ? 1 : 2);
    if (verdict !== null)
      t.like(
        records.find((record) => record.verdict === verdict),
        { packets: 1, reasons: [reason] },
      );
  });
}

test('a stranger in Record Route makes a detour, also where the capture ends before the last leg', (t) => {
  const stray = (position: number, record: string[]): Buffer => {
    const bytes = Buffer.from(chained('through', position).options ?? []);
    recordRoute(2, record).copy(bytes, bytes[1]);
    return through(position, { options: bytes });
  };
  const whole = audit([through(1), stray(2, ['10.66.6.6']), stray(4, ['10.66.6.6', '10.0.0.2'])]);
  t.is(whole.records.length, 1, JSON.stringify(whole.records));
  t.like(whole.records[0], { verdict: 'detour', reasons: ['record_route:10.66.6.6'], firstPacket: 3 });
  t.like(whole.violations[0], { verdict: 'detour', reason: 'record_route:10.66.6.6', packets: 1 });
  const part = audit([stray(2, ['10.66.6.6'])]);
  t.like(part.records[0], { verdict: 'detour', reasons: ['record_route:10.66.6.6', 'seen_to:fw'] });
});

test('masked at a function of its hop a packet is that hop’s; at any other it is refused', (t) => {
  const served: Mesh = {
    ...mesh,
    services: { wall: { nodes: ['fw'], function: 'stack' } },
    chains: { ...mesh.chains, through: { hops: ['edge', 'wall', 'ids', 'gw'], record: 2 } },
  };
  const mask = (position: number): Buffer => {
    const packet = through(position);
    const length = packet[21] ?? 0;
    const hop = Buffer.from(packet.subarray(16, 20));
    packet.copy(packet, 16, 20 + length - 4, 20 + length);
    hop.copy(packet, 20 + length - 4);
    packet[20] = 222;
    packet[20 + length] = 30;
    return repair(packet);
  };
  const report = auditCapture('test', served, null, {}, [
    encodePcap([through(2), mask(2), through(3), mask(3)]),
  ]);
  t.deepEqual(
    report.violations.map(({ reason, firstPacket }) => [reason, firstPacket]),
    [['forbidden_option', 4]],
  );
  t.is(report.records.length, 1);
  t.like(report.records[0], { verdict: 'partial', packets: 1 });
});

const sealedChain = rendered.chains.find(({ name }) => name === 'sealed');
function sealed(ageMs: number, changes: Partial<Ipv4> = {}, slot = 0, with_ = key): Buffer {
  if (!sealedChain) throw new Error('no chain sealed');
  const { id: path, binding } = sealedChain.path;
  const packet = chained('sealed', 2, {
    fragment: 0x4000,
    payload: udp({ sourcePort: 5, destinationPort: 1006 }),
  });
  const epoch = BigInt(Math.floor((startMs - 500 - ageMs) / 2000));
  const signature = {
    key: with_,
    slot,
    chain: sealedChain.number,
    path,
    binding,
    destination: '10.9.0.10',
    epoch,
  };
  return ipv4({ ...seal(packet, signature), ...changes });
}
const tags: [title: string, packet: Buffer, reason: string | null][] = [
  ['right', sealed(0), null],
  ['of the epoch before', sealed(2000), null],
  ['older', sealed(6000), 'tag_age'],
  ['of the future', sealed(-2000), 'tag_age'],
  ['much older', sealed(60_000), 'tag_wrong'],
  ['with another key', sealed(0, {}, 0, Buffer.alloc(16, 1)), 'tag_wrong'],
  ['of an empty slot', sealed(0, {}, 1), 'key_unknown'],
  ['of a key that ran out', sealed(0, {}, 2, Buffer.from('6b'.repeat(16), 'hex')), 'key_expired'],
  ['of another source', sealed(0, { source: '10.1.0.11' }), 'tag_wrong'],
  ['of other ports', sealed(0, { payload: udp({ sourcePort: 6, destinationPort: 1006 }) }), 'tag_wrong'],
];
for (const [title, packet, reason] of tags) {
  test(`with keys, a tag that is ${title}: ${reason ?? 'verified'}; without, it is not checked`, (t) => {
    const report = audit([packet], { withKeys: true });
    t.deepEqual(
      report.violations.map((violation) => violation.reason),
      reason === null ? [] : [reason],
    );
    t.is(report.records[0]?.integrity, reason === null ? 'verified' : 'none');
    t.is(report.capture.tagsUnchecked, 0);
    const unchecked = audit([packet]);
    t.deepEqual(unchecked.violations, []);
    t.is(unchecked.records[0]?.integrity, 'none');
    t.is(unchecked.capture.tagsUnchecked, 1);
  });
}

test('a packet that is cut inside its options is counted and not judged', (t) => {
  const bytes = encodePcap([through(4), through(4)], { snap: 30 });
  const { capture, records, violations } = auditCapture('test', mesh, null, {}, [bytes]);
  t.like(capture, { packets: 2, ipv4: 2, snapped: 2, sourceRoutes: 0 });
  t.deepEqual([records, violations], [[], []]);
});

/** What is no drop, or only to be told from where a frame came. */
const notSeen = new Set([
  'advanced',
  'ended',
  'passed',
  'no_route',
  'not_adjacent',
  'not_mesh',
  'too_big',
  'cannot_fragment',
  'resize',
  'previous_hop',
]);

test('of packets changed at random that come to host fw, the audit says what its programs must say', (t) => {
  const seeds = makeChainPackets().filter((packet) => packet.readUInt32BE(16) === 0x0a000002);
  let dropped = 0;
  const change = fc.record({ at: fc.integer({ min: 0, max: 59 }), value: fc.integer({ min: 0, max: 255 }) });
  const property = fc.property(
    fc.constantFrom(...seeds),
    fc.array(change, { maxLength: 4 }),
    (seed, changes) => {
      const packet = Buffer.from(seed);
      for (const { at, value } of changes) packet[at % Math.min(60, packet.length)] = value;
      repair(packet);
      const output = new DataView(new ArrayBuffer(DECISION_BYTES));
      writeOpinion(output, 0, packet, false);
      const decision = readDecision(Buffer.from(output.buffer), 0);
      const isBroken = decision.headerFault !== null && decision.headerFault !== 'total_length';
      if (isBroken || packet.readUInt32BE(16) !== 0x0a000002) return;
      if ([0x0a010001, 0x0a020001].includes(packet.readUInt32BE(12))) return; // fw's own, that the mesh document does not name
      const { violations, capture } = audit([packet], { withKeys: true });
      if (capture.sourceRoutes === 0) return;
      // A stranger in Record Route is no drop.
      const reason = violations.find(({ verdict }) => verdict !== 'detour')?.reason ?? null;
      const expected = expectReasons('mesh', packet, decision, false);
      const isRight =
        reason === null
          ? expected.some((name) => notSeen.has(name))
          : expected.includes(reason) ||
            expected.includes('previous_hop') ||
            (reason === 'destination' && expected.includes('advanced'));
      if (reason !== null) dropped++;
      if (!isRight) throw new Error(`${packet.toString('hex')}: ${reason}, not ${expected.join(', ')}`);
    },
  );
  t.notThrows(() => fc.assert(property, { numRuns: 20_000 }));
  t.true(dropped > 5000, `${dropped} were dropped`);
});

const meshPath = folder.path('mesh.json');
writeFileSync(meshPath, JSON.stringify(mesh));
const capturePath = folder.path('capture.pcap');
writeFileSync(capturePath, encodePcap([through(1), through(4), lsr(['10.0.0.77'])]));
const cleanPath = folder.path('clean.pcap');
writeFileSync(cleanPath, encodePcap([through(1), through(4)]));
const textPath = folder.path('text');
writeFileSync(textPath, 'hello');
const cli = (...words: string[]) =>
  execa(process.execPath, ['--import', 'tsx', 'src/cli.ts', 'audit', ...words], {
    reject: false,
    env: { NO_COLOR: '1' },
  });

const uses: [words: string[], exitCode: number, printed: RegExp][] = [
  [
    [cleanPath, '--mesh', meshPath],
    0,
    /2 packets, 2 IPv4, 2 with source routes; records: 1; no violations\n[\s\S]*complete +edge → fw → ids → gw +1/,
  ],
  [
    [capturePath, '--mesh', meshPath],
    1,
    /unknown_path: 1 packets; first packet 3 at \S+, udp 10.1.0.10:4000 → 10.9.0.10:53, to fw\n {2}a well-formed/,
  ],
  [[capturePath, '--mesh', meshPath, '--chain', 'through'], 0, /records: 1; no violations/],
  [[capturePath, '--mesh', meshPath, '--verdict', 'forged'], 1, /records: 1; violations: 1 packets/],
  [[textPath, '--mesh', meshPath], 2, /text, byte 0: 68656c6c begins neither/],
  [[folder.path('none'), '--mesh', meshPath], 2, /there is no such file/],
  [[capturePath, '--mesh', textPath], 2, /text/],
  [[capturePath], 2, /required option '--mesh <file>'/],
  [[capturePath, '--mesh', meshPath, '--chain', 'thruogh'], 2, /there is no chain "thruogh".*through/],
  [[capturePath, '--mesh', meshPath, '--verdict', 'fine'], 2, /Allowed choices are complete, partial/],
  [['-', '--mesh', '-'], 2, /cannot both be standard input/],
];
for (const [words, exitCode, printed] of uses) {
  test(`lsr-agent audit ${words.join(' ').replaceAll(folder.path(''), '')} exits with ${exitCode}`, async (t) => {
    const { stdout, stderr, exitCode: code } = await cli(...words);
    t.is(code, exitCode, stderr);
    t.regex(exitCode === 2 ? stderr : stdout, printed);
  });
}

test('from standard input, and as JSON, it is the same', async (t) => {
  const { stdout, exitCode } = await execa(
    process.execPath,
    ['--import', 'tsx', 'src/cli.ts', 'audit', '-', '--mesh', meshPath, '--json'],
    { reject: false, inputFile: capturePath },
  );
  t.is(exitCode, 1);
  const report: CaptureReport = JSON.parse(stdout);
  t.like(report.capture, {
    file: 'stdin',
    format: 'pcap',
    packets: 3,
    interfaces: [{ linkType: 101, packets: 3 }],
  });
  t.deepEqual(
    report.violations.map(({ reason }) => reason),
    ['unknown_path'],
  );
});
