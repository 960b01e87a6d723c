import { parseAddress } from './address.js';
import { type Availability, readDrained } from './availability.js';
import { listChoices } from './chain-view.js';
import { type Drains, drainsFile, loadDrains, readDrains } from './drains.js';
import { LsrError } from './errors.js';
import { quote, suggest } from './finding.js';
import { FunctionChecks } from './function-checks.js';
import { defaultHealth } from './health.js';
import type { Logger } from './logger.js';
import { type Mesh, type MeshService, runsOn } from './mesh.js';
import { saveDocument } from './mesh-store.js';
import type { MeshTables } from './mesh-tables.js';
import { Prober } from './prober.js';
import { renderMesh } from './render.js';

interface Parts {
  /** The name of this host in the mesh. */
  node: string;
  /** The audit store; drains are kept beside it. */
  store: string;
  tables: MeshTables;
  log: Logger;
  /** A function of this host fails its check from now on, or no longer does. */
  onUnwell(): void;
}

/** Keeps flows off what cannot take them: paths that do not answer, nodes that are drained, functions that fail. */
export class Steering {
  readonly #parts: Parts;
  readonly #prober = new Prober((down) => this.#failOver(down));
  readonly #checks: FunctionChecks;
  #mesh: Mesh | null = null;
  #isStarted = false;
  /** Paths that are not used now, by id. */
  #down: ReadonlySet<number> = new Set();
  #drains: Drains;
  #timers: NodeJS.Timeout[] = [];

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#checks = new FunctionChecks(parts.onUnwell);
    this.#drains = loadDrains(parts.store);
  }

  get available(): Availability {
    return { down: this.#down, drained: readDrained(this.#drains) };
  }

  /** Paths that this host probes, by id. */
  get watched(): ReadonlySet<number> {
    return this.#prober.watched;
  }

  /** Services whose function on this host fails its check, and why. */
  get unwell(): ReadonlyMap<string, string> {
    return this.#checks.unwell;
  }

  get drains(): Drains {
    return this.#drains;
  }

  /** Before the first document is written: what an agent before this one did not use is not used yet. */
  inherit(mesh: Mesh): void {
    this.#down = this.#parts.tables.readUnused(mesh, this.#parts.node);
  }

  start(): void {
    this.#isStarted = true;
    if (this.#mesh) this.follow(this.#mesh);
    this.#drainNodes(this.#drains);
  }

  /** For a document that is in force. */
  follow(mesh: Mesh): void {
    this.#mesh = mesh;
    if (!this.#isStarted) return;
    this.#followPaths(mesh);
    this.#followFunctions(mesh);
  }

  close(): void {
    this.#prober.close();
    this.#checks.close();
    for (const timer of this.#timers) clearTimeout(timer);
  }

  applyDrains(text: string): Drains {
    const drains = readDrains(text, 'drains');
    const nodes = Object.keys(this.#mesh?.nodes ?? {});
    const unknown = drains.find(({ node }) => !nodes.includes(node));
    if (unknown)
      throw new LsrError(
        'REQUEST_INVALID',
        `there is no node ${quote(unknown.node)}${suggest(unknown.node, nodes)}`,
      );
    saveDocument(drainsFile(this.#parts.store), JSON.stringify({ drains }));
    this.#parts.log.info({ drains }, 'flows are sent past these nodes');
    this.#drainNodes(drains);
    return drains;
  }

  /** Probes what this host may have to choose between. */
  #followPaths(mesh: Mesh): void {
    const { node } = this.#parts;
    const address = parseAddress(mesh.nodes[node]?.address ?? '');
    if (address === null) return;
    const paths = listChoices(renderMesh(mesh).chains, node);
    this.#prober.follow(address, paths, { ...defaultHealth, ...mesh.health }, (id) => this.#down.has(id));
  }

  /** Asks the functions of this host whether they are well; probes do not pass one that is not. */
  #followFunctions(mesh: Mesh): void {
    const own = Object.entries(mesh.services ?? {}).flatMap(
      ([name, { check }]): [string, NonNullable<MeshService['check']>][] =>
        check && runsOn(mesh, name, this.#parts.node) ? [[name, check]] : [],
    );
    this.#checks.follow(new Map(own));
  }

  /** Flows that were there move when the time of their node is up. */
  #drainNodes(drains: Drains): void {
    const { node, tables } = this.#parts;
    const touched = new Set([...this.#drains, ...drains].map((drain) => drain.node));
    this.#drains = drains;
    const rewrite = (): void =>
      tables.writeChoices(node, this.available, ({ hops }) => hops.some((hop) => touched.has(hop.node)));
    rewrite();
    for (const timer of this.#timers) clearTimeout(timer);
    const left = drains.map(({ until }) => Date.parse(until) - Date.now()).filter((ms) => ms > 0);
    this.#timers = left.map((ms) =>
      setTimeout(
        () => {
          rewrite();
          if (ms === Math.max(...left)) tables.forgetMoved();
        },
        Math.min(ms, 0x7fffffff),
      ).unref(),
    );
    if (left.length === 0) tables.forgetMoved();
  }

  #failOver(down: ReadonlySet<number>): void {
    const { node, tables, log } = this.#parts;
    const changed = new Set([...down, ...this.#down].filter((id) => down.has(id) !== this.#down.has(id)));
    this.#down = down;
    tables.writeChoices(node, this.available, ({ id }) => changed.has(id));
    for (const { id, hops } of tables.intents[0]?.rendered.paths ?? []) {
      if (!changed.has(id)) continue;
      const path = hops.map((hop) => hop.node).join(' → ');
      if (down.has(id)) log.warn({ path }, 'a path is down; its flows take others');
      else log.info({ path }, 'a path is up again');
    }
  }
}
