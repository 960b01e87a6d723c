/** Packets that a parser may get wrong: those of chains with something changed, and random ones. */
import { address } from '../helpers/packet.js';
import { makeBase, optionTypes, repair } from './base.js';
import { client, makeChainPackets, mesh, server } from './chains.js';

const special = [0, 1, 3, 4, 0x7f, 0x80, 0xff];
const totals = [0, 19, 20, 59, 60, 65535];

/** Each packet of a chain with each byte replaced, cut at each length, and sent to each node and beyond. */
export function* bendChains(): Generator<Buffer> {
  for (const chain of makeChainPackets()) {
    yield* replaceBytes(chain);
    yield* cut(chain);
    yield* divert(chain);
  }
}

/** Each packet of a chain with each IHL and several total lengths, in a frame that ends with it and in a longer one. */
export function* resizeChains(): Generator<Buffer> {
  for (const chain of makeChainPackets()) yield* resize(chain);
}

/** Random options, and packets of chains with random changes. Only those of known checksum get past it. */
export function* vary(random: () => number, count: number): Generator<Buffer> {
  const chains = makeChainPackets();
  for (let i = 0; i < count; i++) {
    const kind = random() % 8;
    const packet =
      kind < 3
        ? mutate(pick(random, chains), random)
        : kind < 5
          ? fillOptions(random)
          : kind < 7
            ? composeOptions(random)
            : fillHeader(random);
    yield random() % 16 ? repair(packet) : packet;
  }
}

/** mulberry32: 32 random bits a call. */
export function seedRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
}

export function* replaceBytes(chain: Buffer): Generator<Buffer> {
  for (let at = 0; at < chain.length; at++) {
    for (const byte of special) {
      const packet = Buffer.from(chain);
      packet[at] = byte;
      yield Buffer.from(packet);
      yield repair(packet);
    }
  }
}

/** Each truncation, once with the total length that the packet had and once with what is left of it. */
export function* cut(chain: Buffer): Generator<Buffer> {
  for (let length = 0; length <= chain.length; length++) {
    yield Buffer.from(chain.subarray(0, length));
    if (length < 20) continue;
    const packet = Buffer.from(chain.subarray(0, length));
    packet.writeUInt16BE(length, 2);
    yield repair(packet);
  }
}

function* divert(chain: Buffer): Generator<Buffer> {
  for (const destination of [...Object.values(mesh.nodes).map(({ address }) => address), client, server]) {
    const packet = Buffer.from(chain);
    address(destination).copy(packet, 16);
    yield repair(packet);
  }
}

export function* resize(chain: Buffer): Generator<Buffer> {
  for (let ihl = 0; ihl < 16; ihl++) {
    for (const total of totals) {
      for (const frame of [chain, Buffer.concat([chain, Buffer.alloc(60)])]) {
        const packet = Buffer.from(frame);
        packet[0] = 0x40 + ihl;
        packet.writeUInt16BE(total, 2);
        yield repair(packet);
      }
    }
  }
}

const pick = <T>(random: () => number, from: readonly T[]): T => from[random() % from.length] as T;

function pickByte(random: () => number): number {
  return random() % 2 ? pick(random, special) : random() % 256;
}

/** One to four changes in the header, most of them in the options. */
function mutate(chain: Buffer, random: () => number): Buffer {
  const packet = Buffer.from(chain);
  const end = ((packet[0] ?? 0) & 15) * 4;
  for (let change = random() % 4; change >= 0; change--) {
    const at = random() % 4 ? 20 + (random() % (end - 20)) : random() % end;
    const from = random() % end;
    switch (random() % 4) {
      case 0:
        packet[at] = (packet[at] ?? 0) ^ (1 << (random() % 8));
        break;
      case 1:
        packet[at] = pickByte(random);
        break;
      case 2:
        packet[at] = pick(random, optionTypes);
        break;
      default:
        packet.copyWithin(at, from, Math.min(from + (random() % 8), end));
    }
  }
  return packet;
}

/** Up to 40 random bytes of options, and now and then the head of a list. */
export function fillOptions(random: () => number): Buffer {
  const words = random() % 11;
  const packet = Buffer.concat([makeBase(), Buffer.alloc(4 * words + 8)]);
  packet[0] = 0x45 + words;
  packet.writeUInt16BE(packet.length, 2);
  if (random() % 4 === 0) packet.writeUInt16BE(random() % 0x10000, 6);
  for (let at = 20; at < 20 + 4 * words; at++) packet[at] = random() % 256;
  if (random() % 2) packet[20] = pick(random, optionTypes);
  if (random() % 2) packet[21] = pick(random, [7, 11, 15, 19, 23]);
  if (random() % 2) packet[22] = 4 * (random() % 12);
  return packet;
}

/** Options one behind the other, each mostly of a length and pointer that it may have. */
function composeOptions(random: () => number): Buffer {
  const packet = Buffer.concat([makeBase(), Buffer.alloc(48)]);
  const words = random() % 11;
  let at = 20;
  while (at < 20 + 4 * words && random() % 8) {
    const length = random() % 8 ? 3 + 4 * (1 + (random() % 4)) : random() % 12;
    packet[at] = pick(random, optionTypes);
    packet[at + 1] = length;
    packet[at + 2] = random() % 8 ? 4 * (1 + (random() % 5)) : random() % 256;
    for (let i = 3; i < length; i++)
      packet[at + i] = random() % 3 ? ([10, 0, 0, random() % 8][i % 4] ?? 0) : random();
    at += packet[at] === 1 ? 1 : length;
  }
  packet[0] = 0x45 + words;
  packet.writeUInt16BE(28 + 4 * words, 2);
  if (random() % 4 === 0) packet.writeUInt16BE(random() % 3, 6);
  return packet.subarray(0, 28 + 4 * words);
}

/** Nothing but random bytes, in front of which a version often helps to get further. */
function fillHeader(random: () => number): Buffer {
  const packet = Buffer.alloc(random() % 80);
  for (let at = 0; at < packet.length; at++) packet[at] = random() % 256;
  if (random() % 8 && packet.length > 0) packet[0] = 0x40 + (random() % 16);
  if (random() % 8 && packet.length > 3) packet.writeUInt16BE(packet.length - (random() % 3), 2);
  return packet;
}
