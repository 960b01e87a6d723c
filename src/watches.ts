import { readClock, toWallTime } from './clock.js';
import { decode, encode, encodeIndex } from './codec.js';
import { LsrError } from './errors.js';
import { readAddress, readProtocol } from './flow-argument.js';
import { enums } from './layout.js';
import type { BpfMap } from './native.js';
import { reasons } from './reasons.js';
import type { Watch, WatchQuery } from './watch.js';

const { LSR_WATCHES_MAX } = enums.lsr_limits;
const { LSR_REASONS } = enums.lsr_reason;
/** What nobody asks for any more costs no packet anything. */
const restMs = 10_000;

interface Marked {
  slot: number;
  /** CLOCK_BOOTTIME, ns. */
  since: bigint;
  /** By reason: the kernel counts on from whom the slot had before. */
  before: readonly bigint[];
  rest: NodeJS.Timeout;
}

interface Maps {
  watching: BpfMap;
  watches: BpfMap;
  sightings: BpfMap;
}

/** The flows that somebody follows here. Each is marked when it is asked for, and let go some seconds after the last time. */
export class Watches {
  readonly #node: string;
  readonly #maps: Maps;
  /** By the entry in `watches`, in hex. */
  readonly #marked = new Map<string, Marked>();

  /** Nobody follows what was marked by an agent before this one. */
  constructor(node: string, maps: Maps) {
    this.#node = node;
    this.#maps = maps;
    this.#tell();
    for (let slot = 0; slot < LSR_WATCHES_MAX; slot++)
      maps.watches.put(encodeIndex(slot), encode('lsr_watch', {}));
  }

  /** What was seen of a flow since it was marked, now if it is not. Throws USAGE, or TOO_MANY_REQUESTS. */
  look(query: WatchQuery): Watch {
    const entry = encode('lsr_watch', {
      source: readAddress('source', query.source),
      destination: readAddress('destination', query.destination),
      sourcePort: query.sourcePort ?? 0,
      destinationPort: query.destinationPort ?? 0,
      protocol: readProtocol(query.protocol) ?? 0,
      used: 1,
    });
    const key = entry.toString('hex');
    const marked = this.#marked.get(key) ?? this.#mark(key, entry);
    marked.rest.refresh();
    const clock = readClock();
    const seen = this.#read(marked.slot).flatMap(({ packets, lastSeen }, reason) => {
      const more = packets - (marked.before[reason] ?? 0n);
      return more > 0n
        ? [{ reason: reasons[reason]?.name ?? String(reason), packets: Number(more), at: lastSeen }]
        : [];
    });
    return {
      node: this.#node,
      since: toWallTime(clock, marked.since),
      seen: seen
        .sort((a, b) => Number(a.at - b.at))
        .map(({ at, ...sighting }) => ({ ...sighting, lastSeen: toWallTime(clock, at) })),
    };
  }

  close(): void {
    for (const [key] of this.#marked) this.#release(key);
  }

  #mark(key: string, entry: Buffer): Marked {
    const taken = new Set([...this.#marked.values()].map(({ slot }) => slot));
    const slot = Array.from({ length: LSR_WATCHES_MAX }, (_, i) => i).find((i) => !taken.has(i));
    if (slot === undefined)
      throw new LsrError(
        'TOO_MANY_REQUESTS',
        `${LSR_WATCHES_MAX} flows are followed here; try again ${restMs / 1000} s after somebody has ended`,
      );
    const before = this.#read(slot).map(({ packets }) => packets);
    const rest = setTimeout(() => this.#release(key), restMs).unref();
    const marked = { slot, since: readClock().bootNs, before, rest };
    this.#maps.watches.put(encodeIndex(slot), entry);
    this.#marked.set(key, marked);
    this.#tell();
    return marked;
  }

  #release(key: string): void {
    const marked = this.#marked.get(key);
    if (!marked) return;
    clearTimeout(marked.rest);
    this.#marked.delete(key);
    this.#tell();
    this.#maps.watches.put(encodeIndex(marked.slot), encode('lsr_watch', {}));
  }

  #tell(): void {
    this.#maps.watching.put(encodeIndex(0), encodeIndex(this.#marked.size));
  }

  /** By reason, of all CPUs together. */
  #read(slot: number): { packets: bigint; lastSeen: bigint }[] {
    const { sightings } = this.#maps;
    return Array.from({ length: LSR_REASONS }, (_, reason) => {
      const values = sightings.get(encodeIndex(slot * LSR_REASONS + reason)) ?? Buffer.alloc(0);
      const sum = { packets: 0n, lastSeen: 0n };
      for (let at = 0; at < values.length; at += sightings.info.valueSize) {
        const { packets, lastSeen } = decode('lsr_sighting', values, at);
        sum.packets += packets;
        if (lastSeen > sum.lastSeen) sum.lastSeen = lastSeen;
      }
      return sum;
    });
  }
}
