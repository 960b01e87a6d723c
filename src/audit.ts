import { setImmediate } from 'node:timers/promises';
import { type Address, formatAddress } from './address.js';
import { type Clock, readBoot, readClock, toWallTime } from './clock.js';
import { decode, type Struct } from './codec.js';
import type { Gap } from './gap.js';
import { judgeFlow, readVisited, resolveNode } from './judge.js';
import { enums, structs } from './layout.js';
import type { Mesh } from './mesh.js';
import type { BpfMap } from './native.js';
import type { FlowRow } from './record.js';
import type { Rendered } from './render.js';
import type { Mark, Store } from './store.js';
import { Turns } from './turns.js';

/** A mesh that flows are judged against; older ones stay for flows that began under them. */
export interface Intent {
  mesh: Mesh;
  rendered: Rendered;
}

type Tables = 'flows_even' | 'flows_odd' | 'deviations_even' | 'deviations_odd' | 'recording';

interface Parts {
  maps: Record<Tables, BpfMap>;
  store: Store;
  /** The newest first. */
  listIntents: () => readonly Intent[];
  listNeighbours: () => Promise<Neighbours>;
  /** Packets whose flow found no room in its table, since the tables were made. */
  readLost: () => number;
}

/** MAC address -> IPv4 address. */
type Neighbours = ReadonlyMap<string, Address>;

/** Entries a transaction: a few milliseconds in which nothing else is answered. */
const chunkEntries = 256;

/**
 * Carries what the kernel counted of flows into the store. Of each kind of flow there are two tables: the programs
 * are sent to the empty one, and the other is emptied. What was taken stands in the store in the same transaction as its
 * records, until it is gone from the table: so a daemon that dies at any moment neither loses nor repeats a packet.
 */
export class Audit {
  readonly #parts: Parts;
  readonly #turns: Record<'flows' | 'deviations', Turns>;
  /** Entries that the tables had when they were last emptied. */
  readonly #held = { flows: 0, deviations: 0 };
  #mark: Mark;
  #running: Promise<void> | null = null;
  #following: Promise<void> | null = null;

  constructor(parts: Parts) {
    const { maps, store } = parts;
    const { LSR_RECORDING_DEVIATIONS, LSR_RECORDING_FLOWS } = enums.lsr_recording;
    this.#parts = parts;
    this.#turns = {
      flows: new Turns(maps.recording, LSR_RECORDING_FLOWS, [maps.flows_even, maps.flows_odd]),
      deviations: new Turns(maps.recording, LSR_RECORDING_DEVIATIONS, [
        maps.deviations_even,
        maps.deviations_odd,
      ]),
    };
    const now = Date.now();
    const before = store.readMark();
    this.#mark = { boot: readBoot(), at: now, lost: 0, table: 0, taken: Buffer.alloc(0) };
    if (!before || before.boot !== this.#mark.boot || !this.#finishTaking(before))
      this.#mark.lost = before ? 0 : parts.readLost();
    else this.#mark = before;
    store.write({ gaps: listEarlierGaps(before, this.#mark, now), mark: this.#mark });
  }

  /** How full the tables were when they were last emptied. */
  get fill(): { name: string; entries: number; capacity: number }[] {
    return (['flows', 'deviations'] as const).map((name) => ({
      name,
      entries: this.#held[name],
      capacity: this.#turns[name].resting.info.maxEntries,
    }));
  }

  /** Carries all that was counted before this call. Calls while it is under way share one more round. */
  carry(): Promise<void> {
    if (!this.#running) {
      this.#running = this.#carryAll().finally(() => {
        this.#running = null;
      });
      return this.#running;
    }
    this.#following ??= this.#running
      .catch(() => undefined)
      .then(() => {
        this.#following = null;
        return this.carry();
      });
    return this.#following;
  }

  /** What a daemon before this one had stored, but not yet removed. False where its tables are gone. */
  #finishTaking({ table, taken }: Mark): boolean {
    const tables = Object.values(this.#turns).flatMap((turns) => turns.tables);
    const map = tables.find(({ info }) => info.id === table);
    if (!map) return table === 0;
    const keyBytes = structs.lsr_flow_key.size;
    for (let at = 0; at < taken.length; at += keyBytes + 8) {
      const key = taken.subarray(at, at + keyBytes);
      const value = map.get(key);
      if (value && decode('lsr_flow', value).firstSeen === taken.readBigUInt64LE(at + keyBytes))
        map.delete(key);
    }
    return true;
  }

  async #carryAll(): Promise<void> {
    this.#held.flows = await this.#carryTurns(this.#turns.flows, new Map());
    const { deviations } = this.#turns;
    const isCalm = !deviations.hasNews && deviations.resting.some(1).count === 0;
    const neighbours = isCalm ? new Map() : await this.#parts.listNeighbours();
    this.#held.deviations = isCalm ? 0 : await this.#carryTurns(deviations, neighbours);
    this.#noteLost();
  }

  async #carryTurns(turns: Turns, neighbours: Neighbours): Promise<number> {
    const left = await this.#empty(turns.resting, neighbours); // by a round that failed
    if (!turns.hasNews) return left;
    turns.swap();
    return left + (await this.#empty(turns.resting, neighbours));
  }

  async #empty(table: BpfMap, neighbours: Neighbours): Promise<number> {
    const intents = this.#parts.listIntents();
    const judging = { clock: readClock(), judge: rememberVerdicts(intents), intents, neighbours };
    for (let held = 0; ; ) {
      const { keys, values, count } = table.some(chunkEntries);
      if (count === 0) return held;
      const rows = Array.from({ length: count }, (_, i) => makeRow(keys, values, i, judging));
      this.#mark = { ...this.#mark, table: table.info.id, taken: listTaken(keys, values, count) };
      this.#parts.store.write({ rows, mark: this.#mark });
      table.deleteBatch(keys);
      held += count;
      await setImmediate();
    }
  }

  #noteLost(): void {
    const [now, lost] = [Date.now(), this.#parts.readLost()];
    const since = new Date(Math.min(this.#mark.at, now)).toISOString();
    const more = lost - this.#mark.lost;
    this.#mark = { ...this.#mark, at: now, lost };
    if (more <= 0) return;
    const gap: Gap = { cause: 'table_full', since, until: new Date(now).toISOString(), packets: more };
    this.#parts.store.write({ gaps: [gap], mark: this.#mark });
  }
}

/** `before`: what was last stored, if anything. */
function listEarlierGaps(before: Mark | null, now: Mark, at: number): Gap[] {
  if (!before || before === now) return [];
  const until = new Date(at).toISOString();
  const since = new Date(Math.min(before.at, at)).toISOString();
  return [{ cause: before.boot === now.boot ? 'unloaded' : 'reboot', since, until, packets: null }];
}

function listTaken(keys: Buffer, values: Buffer, count: number): Buffer {
  const { size: keyBytes } = structs.lsr_flow_key;
  const taken = Buffer.alloc(count * (keyBytes + 8));
  for (let i = 0; i < count; i++) {
    const at = i * (keyBytes + 8);
    keys.copy(taken, at, i * keyBytes, (i + 1) * keyBytes);
    taken.writeBigUInt64LE(decode('lsr_flow', values, i * structs.lsr_flow.size).firstSeen, at + keyBytes);
  }
  return taken;
}

type Judge = typeof judgeFlow extends (intents: never, evidence: infer Evidence) => infer Judgement
  ? (evidence: Evidence) => Judgement
  : never;

/** Flows by the million go few ways. */
function rememberVerdicts(intents: readonly Intent[]): Judge {
  const known = new Map<string, ReturnType<Judge>>();
  return (evidence) => {
    const key = Object.values(evidence).join();
    const judgement = known.get(key) ?? judgeFlow(intents, evidence);
    if (known.size < 10_000) known.set(key, judgement);
    return judgement;
  };
}

interface Judging {
  clock: Clock;
  judge: Judge;
  intents: readonly Intent[];
  neighbours: Neighbours;
}

function makeRow(keys: Buffer, values: Buffer, i: number, { clock, judge, ...known }: Judging): FlowRow {
  const key = decode('lsr_flow_key', keys, i * structs.lsr_flow_key.size);
  const flow: Struct<'lsr_flow'> = decode('lsr_flow', values, i * structs.lsr_flow.size);
  const record = key.record.slice(0, key.recorded);
  const { chain, path, reason } = key;
  const hasPorts = key.sourcePort !== 0 || key.destinationPort !== 0;
  return {
    ...judge({ chain, path, reason, record, hop: flow.hop, visited: readVisited(flow.options) }),
    generation: key.generation,
    flow: {
      source: formatAddress(key.source),
      destination: formatAddress(key.destination),
      protocol: key.protocol,
      sourcePort: hasPorts ? key.sourcePort : null,
      destinationPort: hasPorts ? key.destinationPort : null,
    },
    recordRoute: record.map((address: Address) => formatAddress(address)),
    packets: Number(flow.packets),
    bytes: Number(flow.bytes),
    firstSeen: toWallTime(clock, flow.firstSeen),
    lastSeen: toWallTime(clock, flow.lastSeen),
    arrivedFrom: reason === enums.lsr_reason.LSR_ENDED ? null : findSender(flow.from, known),
  };
}

function findSender(from: Uint8Array, { intents, neighbours }: Pick<Judging, 'intents' | 'neighbours'>) {
  const mac = [...from].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
  const address = neighbours.get(mac);
  return { node: address === undefined ? null : resolveNode(intents, address).node, mac };
}
