/**
 * The integrity option, as host fw of tests/helpers/testbed.ts: it is written as TypeScript would write it, and
 * nothing that it covers can be changed.
 */
import test, { type ExecutionContext } from 'ava';
import { formatAddress, parseAddress } from '../../src/address.js';
import { decode, encode, encodeIndex } from '../../src/codec.js';
import { KeyRing } from '../../src/key-ring.js';
import { type Keys, readKeys } from '../../src/keys.js';
import type { Mesh } from '../../src/mesh.js';
import { headerAt } from '../../src/path.js';
import type { DropReason } from '../../src/reasons.js';
import { type RenderedChain, renderMesh } from '../../src/render.js';
import { ethernet, type Ipv4, icmpError, internetChecksum, ipv4, tcp, udp } from '../helpers/packet.js';
import { epochNow, integrityReasons, type Signature, seal } from '../helpers/tag.js';
import { applyMesh, macOf, openTestbed, runPacket, type Testbed } from '../helpers/testbed.js';

const client = '10.1.0.10';
const server = '10.9.0.10';
const mesh: Mesh = {
  version: 1,
  nodes: {
    edge: { address: '10.0.0.1' },
    fw: { address: '10.0.0.2' },
    ids: { address: '10.0.0.3' },
    gw: { address: '10.0.0.4' },
  },
  integrity: 'require',
  chains: {
    out: { hops: ['ids', 'gw'], record: 1 },
    through: { hops: ['edge', 'fw', 'ids', 'gw'] },
    byAddress: { hops: ['edge', 'fw', 'gw'], binding: 'addresses' },
    in: { hops: ['edge', 'ids', 'fw'] },
    twin: { hops: ['edge', 'ids', 'fw'] },
    once: { hops: ['edge', 'fw', 'ids'], duplicates: 'drop' },
    either: { hops: ['edge', 'fw'], integrity: 'verify' },
    open: { hops: ['ids', 'fw', 'gw'], integrity: 'off' },
  },
  rules: [],
};
mesh.rules = Object.keys(mesh.chains).map((chain, index) => ({
  name: chain,
  at: [chain === 'out' ? 'fw' : 'edge'],
  match: { destination: '10.9.0.0/24' },
  chain,
  priority: index + 1,
}));
const { chains } = renderMesh(mesh);

const secret = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex');
const otherSecret = Buffer.from('8f'.repeat(16), 'hex');
const hourAgo = new Date(Date.now() - 3_600_000).toISOString();
/** Slot 1 signs, slot 2 has run out, slot 3 is another key, slot 0 is empty. */
const keysText = JSON.stringify({
  sending: 1,
  keys: [
    { slot: 1, key: secret.toString('hex') },
    { slot: 2, key: secret.toString('hex'), until: hourAgo },
    { slot: 3, key: otherSecret.toString('hex') },
  ],
});
const keys: Keys = readKeys(keysText, 'keys');

let bed: Testbed;
let ring: KeyRing;

test.before(async () => {
  bed = await openTestbed();
  applyMesh(bed, mesh, 'fw');
  ring = new KeyRing(bed.datapath.maps);
  ring.write(keys);
});

test.after.always(() => bed?.close());

function chainOf(name: string): RenderedChain {
  const chain = chains.find((candidate) => candidate.name === name);
  if (!chain) throw new Error(`no chain ${name}`);
  return chain;
}

/** A packet of a chain as it arrives at a hop, with a right tag but for what `changes` says. */
function sealed(
  name: string,
  position: number,
  fields: Partial<Ipv4> = {},
  changes: Partial<Signature> = {},
): Ipv4 {
  const { path, number } = chainOf(name);
  const header = headerAt(path, position, parseAddress(server) ?? 0);
  const packet = {
    source: client,
    options: header.options,
    fragment: 0x4000,
    payload: udp(),
    ...fields,
    destination: formatAddress(header.destination),
  };
  return seal(packet, {
    key: secret,
    slot: 1,
    chain: number,
    path: path.id,
    binding: path.binding,
    destination: server,
    epoch: epochNow(),
    ...changes,
  });
}

const met = new Set<string>();
const send = (packet: Ipv4): Record<string, number> => sendBytes(ipv4(packet));

function sendBytes(bytes: Uint8Array, direction: 'ingress' | 'egress' = 'ingress'): Record<string, number> {
  const context = direction === 'egress' ? ({ from: 'edge0' } as const) : {};
  const { counted } = runPacket(bed, 'mesh0', direction, ethernet(macOf('mesh0'), bytes), context);
  for (const reason of Object.keys(counted)) met.add(reason);
  return counted;
}

/** Away from where epochs change, for clocks are read more than once. */
async function waitForMiddleOfEpoch(): Promise<void> {
  while (Math.abs((Date.now() % 2000) - 1200) > 400) await new Promise((resolve) => setTimeout(resolve, 20));
}

const accepted: [title: string, packet: () => Ipv4, outcome: string][] = [
  ['a UDP datagram with DF', () => sealed('through', 2), 'advanced'],
  [
    'a datagram without DF, covered without its ports',
    () => sealed('through', 2, { fragment: 0 }),
    'advanced',
  ],
  ['a fragment', () => sealed('through', 2, { fragment: 0x2000 }), 'advanced'],
  ['a later fragment', () => sealed('through', 2, { fragment: 5 }), 'advanced'],
  [
    'ICMP',
    () => sealed('through', 2, { protocol: 1, payload: Buffer.from([8, 0, 0, 0, 0, 0, 0, 0]) }),
    'advanced',
  ],
  [
    'TCP, by its addresses',
    () => sealed('byAddress', 2, { protocol: 6, payload: tcp({ source: client, destination: server }) }),
    'advanced',
  ],
  ['at the end', () => sealed('in', 3), 'ended'],
  [
    'of the epoch before',
    () => sealed('in', 3, {}, { epoch: BigInt(Math.floor(Date.now() / 2000)) - 1n }),
    'ended',
  ],
  ['where a tag may be missing', () => sealed('either', 2), 'ended'],
  ['signed with the key of another slot', () => sealed('in', 3, {}, { key: otherSecret, slot: 3 }), 'ended'],
];

for (const [title, packet, outcome] of accepted) {
  test.serial(`a right tag is accepted: ${title}`, async (t) => {
    await waitForMiddleOfEpoch();
    t.deepEqual(send(packet()), { received: 1, [outcome]: 1 });
  });
}

const epoch = (offset: number) => ({ epoch: BigInt(Math.floor(Date.now() / 2000) + offset) });
const untagged = (packet: Ipv4): Ipv4 => ({
  ...packet,
  options: Buffer.from(packet.options ?? []).subarray(12),
});
const tagged = (packet: Ipv4): Ipv4 => ({
  ...packet,
  options: Buffer.concat([Buffer.from([158, 12]), Buffer.alloc(10), Buffer.from(packet.options ?? [])]),
});

const refused: [title: string, packet: () => Ipv4, reason: string][] = [
  ['no tag where one is required', () => untagged(sealed('in', 3)), 'tag_missing'],
  [
    'a wrong tag where none is required',
    () => sealed('either', 2, {}, { chain: 99 - 1, key: otherSecret }),
    'tag_wrong',
  ],
  ['a tag where the chain has none', () => tagged({ ...plainOpen(), payload: udp() }), 'unknown_option'],
  ['a tag of 8 bytes', () => ({ ...sealed('in', 3), options: [158, 8, 0, 0, 0, 0, 0, 0] }), 'tag_format'],
  ['an empty slot', () => sealed('in', 3, {}, { slot: 0 }), 'key_unknown'],
  ['a key that has run out', () => sealed('in', 3, {}, { slot: 2 }), 'key_expired'],
  ['another key', () => sealed('in', 3, {}, { key: otherSecret }), 'tag_wrong'],
  [
    'another chain of the same path, on the way',
    () => sealed('through', 2, {}, { path: chainOf('in').path.id }),
    'tag_wrong',
  ],
  ['the next epoch', () => sealed('in', 3, {}, epoch(1)), 'tag_age'],
  ...[-2, -3, -4, -5].map((offset): [string, () => Ipv4, string] => [
    `epoch ${offset}`,
    () => sealed('in', 3, {}, epoch(offset)),
    'tag_age',
  ]),
  ['an epoch long ago', () => sealed('in', 3, {}, epoch(-6)), 'tag_wrong'],
  ['other ports', () => ({ ...sealed('through', 2), payload: udp({ destinationPort: 54 }) }), 'tag_wrong'],
  [
    'DF taken off, so that the ports are not covered',
    () => ({ ...sealed('through', 2), fragment: 0 }),
    'tag_wrong',
  ],
];

function plainOpen(): Ipv4 {
  const header = headerAt(chainOf('open').path, 2, parseAddress(server) ?? 0);
  return { source: client, destination: formatAddress(header.destination), options: header.options };
}

for (const [title, packet, reason] of refused) {
  test.serial(`refused: ${title}`, async (t) => {
    await waitForMiddleOfEpoch();
    t.deepEqual(send(packet()), { received: 1, [reason]: 1 });
  });
}

for (const [name, position] of [
  ['through', 2],
  ['byAddress', 2],
  ['in', 3],
] as const) {
  test.serial(`no bit that a tag covers can be turned: chain ${name}`, async (t) => {
    await waitForMiddleOfEpoch();
    const right = Buffer.from(ipv4(sealed(name, position)));
    const header = ((right[0] ?? 0) & 15) * 4;
    const ports = chainOf(name).path.binding === 'ports' ? [0, 1, 2, 3].map((at) => header + at) : [];
    const covered = [9, ...range(12, 16), ...range(20, header), ...ports];
    const outcome = position === 3 ? 'ended' : 'advanced';
    t.deepEqual(sendBytes(right), { received: 1, [outcome]: 1 });
    for (const at of covered) {
      for (let bit = 0; bit < 8; bit++) {
        const changed = Buffer.from(right);
        changed[at] = (changed[at] ?? 0) ^ (1 << bit);
        changed.writeUInt16BE(0, 10);
        changed.writeUInt16BE(internetChecksum(changed.subarray(0, header)), 10);
        const counted = sendBytes(changed);
        t.true(isDropped(counted), `byte ${at}, bit ${bit}: ${JSON.stringify(counted)}`);
      }
    }
    t.log(`${covered.length * 8} bits`);
  });
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);
const outcomes = ['passed', 'own', 'imposed', 'advanced', 'forwarded', 'ended', 'sliced'];
const isDropped = (counted: Record<string, number>): boolean =>
  counted.received === 1 && outcomes.every((outcome) => counted[outcome] === undefined);

test.serial('the edge writes the tag that TypeScript would write', async (t) => {
  for (const fragment of [0x4000, 0]) {
    await waitForMiddleOfEpoch();
    const packet: Ipv4 = { source: client, destination: server, fragment, payload: udp() };
    const { frame, counted } = runPacket(bed, 'mesh0', 'egress', ethernet(macOf('mesh0'), ipv4(packet)), {
      from: 'edge0',
    });
    t.deepEqual(counted, { received: 1, imposed: 1 });
    const expected = ipv4({ ...sealed('out', 1, { fragment }) });
    t.is(frame.subarray(14).toString('hex'), Buffer.from(expected).toString('hex'));
  }
});

test.serial('without a key that holds the edge sends nothing un-tagged', async (t) => {
  const impose = (): Record<string, number> =>
    sendBytes(ipv4({ source: client, destination: server, payload: udp() }), 'egress');
  for (const sending of [0, 2]) {
    ring.write({ ...keys, sending });
    t.deepEqual(impose(), { received: 1, no_key: 1 });
  }
  ring.write(keys);
  t.deepEqual(impose(), { received: 1, imposed: 1 });
});

test.serial('a hop that takes no packet twice takes each packet once', async (t) => {
  await waitForMiddleOfEpoch();
  const twice = (packet: Ipv4): Record<string, number>[] => [send(packet), send(packet)];
  const first = { received: 1, advanced: 1 };
  const replay = { received: 1, replay: 1 };
  t.deepEqual(twice(sealed('through', 2)), [first, first], 'elsewhere it may come again');
  t.deepEqual(twice(sealed('once', 2, { id: 1 })), [first, replay]);
  t.deepEqual(
    twice(sealed('once', 2, { id: 2 })),
    [first, replay],
    'sent again, it has another identification',
  );
  t.deepEqual(twice(sealed('once', 2, { id: 2, payload: udp({ data: 'other' }) })), [first, replay]);
  t.deepEqual(twice(sealed('once', 2, { id: 2, ttl: 9 })), [replay, replay], 'TTL makes no other packet');
  const before = send(sealed('once', 2, { id: 3 }));
  await new Promise((resolve) => setTimeout(resolve, 4100));
  await waitForMiddleOfEpoch();
  t.deepEqual([before, send(sealed('once', 2, { id: 3 }))], [first, first], 'signed anew it is another');
});

test.serial('packets that differ only in how their payload begins are told apart', async (t) => {
  await waitForMiddleOfEpoch();
  const base = Buffer.from('0123456789abcdefghijklmn');
  const first = { received: 1, advanced: 1 };
  const sendPayload = (payload: Uint8Array): Record<string, number> =>
    send(sealed('once', 2, { id: 4, fragment: 0, protocol: 200, payload }));
  for (const length of [8, 12, 16, 24]) {
    const payload = base.subarray(0, length);
    t.deepEqual(sendPayload(payload), first, `${length} bytes`);
    for (let at = 0; at < Math.min(length >= 16 ? 16 : 8, length); at++) {
      const other = Buffer.from(payload);
      other[at] = 0xff;
      t.deepEqual(sendPayload(other), first, `${length} bytes, another at ${at}`);
    }
    t.deepEqual(sendPayload(payload), { received: 1, replay: 1 }, `${length} bytes again`);
  }
});

test.serial('a packet may come again once its tag could not hold any more', async (t) => {
  await waitForMiddleOfEpoch();
  const { seen } = bed.datapath.maps;
  seen.deleteBatch(seen.entries().keys);
  const packet = sealed('once', 2, { id: 5 });
  t.deepEqual(send(packet), { received: 1, advanced: 1 });
  const { keys: digest, values } = seen.entries();
  const setBack = (ns: bigint): void => {
    const time = Buffer.alloc(8);
    time.writeBigUInt64LE(values.readBigUInt64LE() - ns);
    seen.put(digest, time);
  };
  setBack(3_000_000_000n);
  t.deepEqual(send(packet), { received: 1, replay: 1 });
  setBack(5_000_000_000n);
  t.deepEqual(send(packet), { received: 1, advanced: 1 });
  t.deepEqual(send(packet), { received: 1, replay: 1 }, 'and is remembered again');
});

test.serial('tags count wall time, which is TAI less the offset that the agent writes', async (t) => {
  await waitForMiddleOfEpoch();
  const { signing } = bed.datapath.maps;
  const before = signing.get(encodeIndex(0));
  if (!before) throw new Error('`signing` has its entry');
  const { taiOffset, slot } = decode('lsr_signing', before);
  const shift = 1000n;
  signing.put(encodeIndex(0), encode('lsr_signing', { taiOffset: taiOffset + shift * 2_000_000_000n, slot }));
  const now = send(sealed('through', 2));
  const shifted = send(sealed('through', 2, {}, { epoch: epochNow() - shift }));
  signing.put(encodeIndex(0), before);
  t.is(now.advanced, undefined);
  t.deepEqual(shifted, { received: 1, advanced: 1 });
});

test.serial(
  'the number in the tag tells chains apart that have the same hops and destinations',
  async (t) => {
    await waitForMiddleOfEpoch();
    const { flows_even: flows } = bed.datapath.maps;
    for (const name of ['in', 'twin']) {
      flows.deleteBatch(flows.entries().keys);
      t.deepEqual(send(sealed(name, 3)), { received: 1, ended: 1 });
      t.is(decode('lsr_flow_key', flows.entries().keys).chain, chainOf(name).id);
    }
    const { number } = chainOf('through');
    t.deepEqual(send(sealed('in', 3, {}, { chain: number })), { received: 1, destination: 1 });
  },
);

const quote = (quoted: Ipv4): Ipv4 => ({
  source: '10.0.0.77',
  destination: client,
  protocol: 1,
  payload: icmpError(3, 4, 1400, Buffer.from(ipv4(quoted)).subarray(0, 200)),
});

test.serial(
  'an ICMP error is translated only if the tag of the packet that it quotes is right',
  async (t) => {
    await waitForMiddleOfEpoch();
    t.deepEqual(send(quote(sealed('through', 3))), { received: 1, passed: 1, icmp_translated: 1 });
    t.deepEqual(send(quote(sealed('through', 3, {}, { key: otherSecret }))), { received: 1, icmp_quote: 1 });
    t.deepEqual(send(quote(sealed('through', 3, {}, epoch(-2)))), { received: 1, icmp_quote: 1 });
    // Nothing of ours would send it so: left alone, and of no use to anybody.
    t.deepEqual(send(quote(untagged(sealed('through', 3)))), { received: 1, passed: 1 });
  },
);

test.serial('a tag is looked at only where the route is right', async (t) => {
  const packet = sealed('through', 2);
  t.deepEqual(send({ ...packet, destination: '10.0.0.3' }), { received: 1, forwarded: 1 });
  t.deepEqual(send({ ...sealed('in', 2), destination: '10.0.0.2' }), { received: 1, position: 1 });
});

test.serial('every reason that has to do with tags was met', (t) => {
  t.deepEqual(
    [...met].filter((reason) => integrityReasons.includes(reason as DropReason)).sort(),
    [...integrityReasons].sort(),
  );
});

test('keys are told by their place and never by their text', (t: ExecutionContext) => {
  const hex = secret.toString('hex');
  const wrong = [
    `{ sending: 4, keys: [{ slot: 0, key: ${hex} }] }`,
    `{ sending: 0, keys: [{ slot: 0, key: ${hex}0 }] }`,
    `{ sending: 0, keys: [{ slot: 0, key: ${hex}, ${hex}: 1 }] }`,
    `{ sending: 0, keys: [{ slot: 0, key: ${hex} }, { slot: 0, key: ${hex} }] }`,
    `{ sending: 1, keys: [{ slot: 0, key: ${hex} }] }`,
    `{ sending: 0, keys: [{ slot: 0, key: ${hex}, until: ${hex} }] }`,
    `{ sending: 0, keys: [{ slot: 0, key: ${hex}`,
    `${hex}`,
    `sending: 0\nkeys:\n- slot: 0\n  key: ${hex}\n ${hex}: *${hex}`,
    `{ sending: 0, keys: [{ slot: 0, key: ${'0'.repeat(32)} }] }`,
  ];
  for (const text of wrong) {
    const error = t.throws(() => readKeys(text, 'keys.yaml'), { message: /^keys\.yaml:\d+:\d+: / });
    t.false(JSON.stringify({ ...error, message: error?.message }).includes(hex), text);
  }
});
