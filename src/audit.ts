import { type Address, formatAddress } from './address.js';
import { type Clock, readClock, toWallTime } from './clock.js';
import { decode, type Struct } from './codec.js';
import { judgeFlow } from './judge.js';
import type { Mesh } from './mesh.js';
import type { BpfMap } from './native.js';
import type { FlowRow } from './record.js';
import type { Rendered } from './render.js';
import type { Baseline, Store } from './store.js';

/** A mesh that flows are judged against; older ones stay for flows that began under them. */
export interface Intent {
  mesh: Mesh;
  rendered: Rendered;
}

/** An entry that was silent for so long is taken out of the kernel. */
const idleNs = 60n * 1_000_000_000n;

/**
 * Carries the kernel's flow counters into the store. Entries stay in the kernel while they are in
 * use; how much of each was carried over is kept in the store, in one transaction with the records,
 * so a daemon that dies at any moment neither loses nor repeats a packet.
 */
export class Audit {
  readonly #maps: readonly BpfMap[];
  readonly #store: Store;
  readonly #baselines: Map<string, Baseline>;

  constructor(maps: readonly BpfMap[], store: Store) {
    this.#maps = maps;
    this.#store = store;
    this.#baselines = new Map(store.readBaselines().map((baseline) => [baseline.id, baseline]));
    this.#forgetGone();
  }

  /** `intents`: the newest first. Returns how many records changed. */
  harvest(intents: readonly Intent[]): number {
    return this.#maps.reduce((sum, map) => sum + this.#harvestMap(map, intents, readClock()), 0);
  }

  /** Entries of an earlier boot, or of tables that were unloaded. */
  #forgetGone(): void {
    const present = new Set(this.#maps.flatMap(listIds));
    const gone = [...this.#baselines.keys()].filter((id) => !present.has(id));
    this.#store.upsertFlows([], { kept: [], gone });
    for (const id of gone) this.#baselines.delete(id);
  }

  #harvestMap(map: BpfMap, intents: readonly Intent[], clock: Clock): number {
    const { keys, values, count } = map.entries();
    const { keySize, valueSize } = map.info;
    const rows: FlowRow[] = [];
    const kept: Baseline[] = [];
    const gone: string[] = [];
    for (let i = 0; i < count; i++) {
      const key = keys.subarray(i * keySize, (i + 1) * keySize);
      const id = key.toString('hex');
      const seen = decode('lsr_flow', values, i * valueSize);
      const idle = clock.bootNs - seen.lastSeen > idleNs;
      const last = idle ? map.take(key) : null;
      const flow = last ? decode('lsr_flow', last) : seen;
      const before = this.#baselines.get(id);
      const known = before?.firstSeen === flow.firstSeen ? before : undefined;
      if (idle) gone.push(id);
      else if (flow.packets !== known?.packets) kept.push({ id, ...pickCounts(flow) });
      if (flow.packets !== known?.packets) rows.push(makeRow(key, flow, known, intents, clock));
    }
    if (rows.length === 0 && gone.length === 0) return 0;
    this.#store.upsertFlows(rows, { kept, gone });
    for (const id of gone) this.#baselines.delete(id);
    for (const baseline of kept) this.#baselines.set(baseline.id, baseline);
    return rows.length;
  }
}

function listIds(map: BpfMap): string[] {
  const { keys, count } = map.entries();
  const { keySize } = map.info;
  return Array.from({ length: count }, (_, i) => keys.toString('hex', i * keySize, (i + 1) * keySize));
}

const pickCounts = ({ packets, bytes, firstSeen }: Struct<'lsr_flow'>) => ({ packets, bytes, firstSeen });

function makeRow(
  raw: Buffer,
  flow: Struct<'lsr_flow'>,
  known: Baseline | undefined,
  intents: readonly Intent[],
  clock: Clock,
): FlowRow {
  const key = decode('lsr_flow_key', raw);
  const record = key.record.slice(0, key.recorded);
  const { chain, path, reason } = key;
  const hasPorts = key.sourcePort !== 0 || key.destinationPort !== 0;
  return {
    ...judgeFlow(intents, { chain, path, reason, record, hop: flow.hop, options: flow.options }),
    generation: key.generation,
    flow: {
      source: formatAddress(key.source),
      destination: formatAddress(key.destination),
      protocol: key.protocol,
      sourcePort: hasPorts ? key.sourcePort : null,
      destinationPort: hasPorts ? key.destinationPort : null,
    },
    recordRoute: record.map((address: Address) => formatAddress(address)),
    packets: Number(flow.packets - (known?.packets ?? 0n)),
    bytes: Number(flow.bytes - (known?.bytes ?? 0n)),
    firstSeen: toWallTime(clock, flow.firstSeen),
    lastSeen: toWallTime(clock, flow.lastSeen),
  };
}
