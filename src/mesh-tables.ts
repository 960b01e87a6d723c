import { isDeepStrictEqual } from 'node:util';
import {
  type Changed,
  compare,
  isInForce,
  type Maps,
  readState,
  sweepEntries,
  writeEntries,
} from './apply.js';
import type { Intent } from './audit.js';
import type { Availability } from './availability.js';
import { decode, encode } from './codec.js';
import { type Entries, type Host, makeChoices, makeEntries, type Version } from './entries.js';
import type { Mesh } from './mesh.js';
import type { BpfMap } from './native.js';
import type { RenderedPath } from './path.js';
import { pathsOf, renderMesh } from './render.js';
import { forgetTraffic } from './traffic.js';

/** Packets that left the edge before a change are still on their way for so long. */
const drainMs = 2000;
const intentsKept = 8;

/** Those that depend on the host. */
const hostTables = ['addresses', 'functions', 'cgroups', 'paths'] as const;

/** What the tables of the data path were last written for: a mesh document, and this host. */
export class MeshTables {
  readonly #maps: Maps & Record<'moved' | 'traffic', BpfMap>;
  #intents: Intent[] = [];
  #entries: Entries | null = null;
  #host: Host | null = null;
  #sweep: NodeJS.Timeout | undefined;

  constructor(maps: Maps & Record<'moved' | 'traffic', BpfMap>) {
    this.#maps = maps;
  }

  /** The meshes that packets may have been sent under, the newest first. */
  get intents(): readonly Intent[] {
    return this.#intents;
  }

  get generation(): number {
    return readState(this.#maps).generation;
  }

  /** Nothing is written where the kernel already has what is wanted, as after a restart. */
  writeMesh(mesh: Mesh, host: Host): { changed: Changed; generation: number } {
    const rendered = renderMesh(mesh);
    const present = readState(this.#maps);
    const make = (version: Version): Entries => makeEntries(mesh, rendered, host, version);
    const same = make(present);
    let result = { changed: {} as Changed, generation: present.generation };
    if (present.generation > 0 && isInForce(this.#maps, same, present)) {
      this.#keep(same, host);
    } else {
      const version: Version = { set: present.set === 0 ? 1 : 0, generation: present.generation + 1 };
      const entries = make(version);
      result = { changed: writeEntries(this.#maps, entries, version), generation: version.generation };
      this.#keep(entries, host);
    }
    this.#intents = [{ mesh, rendered }, ...this.#intents].slice(0, intentsKept);
    return result;
  }

  /**
   * For the same mesh on a host that has changed. Only the tables that depend on the host are looked
   * at: all of them, with 10,000 rules, would keep a new interface waiting for more than half a second.
   */
  writeHost(host: Host): void {
    const [intent] = this.#intents;
    if (!intent || !this.#entries || isDeepStrictEqual(host, this.#host)) return;
    const { mesh, rendered } = intent;
    const rules = pickRules(rendered.mesh.rules, host.node);
    const named = { ...rendered, mesh: { ...rendered.mesh, rules } };
    const version = readState(this.#maps);
    const made = makeEntries(mesh, named, host, version).tables;
    for (const name of hostTables) {
      const { change } = compare(this.#maps[name], name, made[name], version.set);
      for (const [key, value] of change.put) this.#maps[name].put(key, value);
      // What else is no longer there packets on their way may need.
      if (name === 'cgroups') for (const key of change.remove) this.#maps[name].delete(key);
    }
    const { addresses, functions, cgroups, paths } = made;
    const tables = { ...this.#entries.tables, addresses, functions, cgroups, paths };
    this.#keep({ ...this.#entries, tables }, host);
  }

  /** For paths that have gone down or come up, or drained: the edges' choices alone. */
  writeChoices(node: string, available: Availability, changes: (path: RenderedPath) => boolean): void {
    const [intent] = this.#intents;
    if (!intent) return;
    const begun = intent.rendered.chains.filter(
      (chain) => chain.at.includes(node) && pathsOf(chain).some(changes),
    );
    const made = makeChoices(begun, available, readState(this.#maps));
    for (const name of ['choices', 'chains'] as const) {
      for (const [key, value] of made[name]) this.#maps[name].put(Buffer.from(key, 'latin1'), value);
    }
  }

  /** Flows that began during a drain are like any others after it. */
  forgetMoved(): void {
    const { keys, count } = this.#maps.moved.entries();
    if (count > 0) this.#maps.moved.deleteBatch(keys);
  }

  /** Paths of a document that are not used though they should be: what was down when an agent before this one ended. */
  readUnused(mesh: Mesh, node: string): Set<number> {
    const unused = new Set<number>();
    const { set } = readState(this.#maps);
    for (const { id, ways, at } of renderMesh(mesh).chains) {
      const value = at.includes(node) && this.#maps.choices.get(encode('lsr_chain_key', { chain: id, set }));
      if (!value) continue;
      const used = new Set(decode('lsr_choice', value).path);
      for (const path of new Set(ways[0]?.slots)) if (!used.has(path.id)) unused.add(path.id);
    }
    return unused;
  }

  close(): void {
    clearTimeout(this.#sweep);
  }

  #keep(entries: Entries, host: Host): void {
    this.#entries = entries;
    this.#host = host;
    clearTimeout(this.#sweep);
    this.#sweep = setTimeout(() => this.#removeOld(entries), drainMs).unref();
  }

  #removeOld(entries: Entries): void {
    sweepEntries(this.#maps, entries);
    const { chains, paths } = this.#intents[0]?.rendered ?? { chains: [], paths: [] };
    const known = new Set([...chains, ...paths].map(({ id }) => id));
    forgetTraffic(this.#maps.traffic, (path, chain) => known.has(path === 0 ? chain : path));
  }
}

/** One rule a chain: as good as all of them to know which paths begin here. */
function pickRules(rules: Mesh['rules'], node: string): Mesh['rules'] {
  const local = rules.filter(({ at }) => at.includes(node));
  return [...new Map(local.map((rule) => [rule.chain, rule])).values()];
}
