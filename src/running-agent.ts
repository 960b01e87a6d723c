import { setImmediate, setTimeout } from 'node:timers/promises';
import type { Agent, AppliedMesh, ApplyResult, ChainView, DropsView, Status } from './agent.js';
import type { AgentConfig } from './agent-config.js';
import { Audit } from './audit.js';
import type { Guarded } from './backstop.js';
import { BackstopTable } from './backstop-table.js';
import { findCgroups, listCgroups } from './cgroups.js';
import { describeChain } from './chain-view.js';
import { ClockWatch } from './clock.js';
import { decode } from './codec.js';
import type { Datapath } from './datapath.js';
import type { Drains } from './drains.js';
import { explainDrops, readCounters, readSample, type Sample, sumNote } from './drops.js';
import type { Host } from './entries.js';
import { LsrError } from './errors.js';
import { describeFunctions } from './functions.js';
import { type Fault, type Link, listLinks, meshMtu, type Port, portMtu } from './interfaces.js';
import { KeyRing } from './key-ring.js';
import { type KeysView, loadKeys, readKeys } from './keys.js';
import { enums } from './layout.js';
import { componentLogger, type Logger } from './logger.js';
import type { Mesh } from './mesh.js';
import { describeError, type Loaded, lastGoodFile, saveDocument } from './mesh-store.js';
import { MeshTables } from './mesh-tables.js';
import { Metrics } from './metrics.js';
import { loadNative, type RingBuffer } from './native.js';
import { listNeighbours } from './neighbours.js';
import type { PortChange } from './port-plan.js';
import type { Ports } from './ports.js';
import { renderMesh } from './render.js';
import { Steering } from './steering.js';
import type { Store } from './store.js';
import { type Summary, summarize } from './summary.js';
import type { Trace, TraceQuery } from './trace.js';
import { traceChain } from './tracer.js';
import { readTraffic } from './traffic.js';
import { readVersion } from './version.js';
import type { Watch, WatchQuery } from './watch.js';
import { Watches } from './watches.js';

const harvestMs = 5000;
/** From the first news to a harvest, and between two: packets that never end must not keep the daemon busy. */
const soonMs = { first: 50, again: 1000 };
/** How long somebody else's change to programs, nftables or the clock of tags may go unnoticed. */
const watchMs = { programs: 200, cgroups: 200, backstop: 5000, clock: 1000, retention: 60_000 };
const samplesKept = 256;
/** A query waits no longer for what is still to be stored, nor the end of the daemon: it stays in the kernel. */
const [flushMs, stopMs] = [250, 5000];

interface Parts {
  config: AgentConfig;
  ports: Ports;
  datapath: Datapath;
  store: Store;
  logger: Logger;
}

/** The agent of this host while it runs: applies mesh documents, carries the audit, answers the API. */
export class RunningAgent implements Agent {
  readonly #parts: Parts;
  readonly #tables: MeshTables;
  readonly #audit: Audit;
  readonly #steering: Steering;
  readonly #followed: Watches;
  readonly #backstop = new BackstopTable();
  readonly #log: Logger;
  readonly #started = Date.now();
  #samples: Sample[] = [];
  #applied: (AppliedMesh & { at: string }) | null = null;
  #error: string | null = null;
  #backstopError: string | null = null;
  #storeError: string | null = null;
  /** Ends when all that was begun in turn has ended. */
  #turn: Promise<unknown> = Promise.resolve();
  #watches: NodeJS.Timeout[] = [];
  #events: RingBuffer | null = null;
  #timer: NodeJS.Timeout | null = null;
  #soon: NodeJS.Timeout | null = null;
  #harvested = 0;
  readonly #keys: KeyRing;
  readonly #clock = new ClockWatch();
  readonly #metrics = new Metrics();
  #keysError: string | null = null;
  constructor(parts: Parts) {
    this.#parts = parts;
    this.#log = componentLogger(parts.logger, 'agent');
    this.#tables = new MeshTables(parts.datapath.maps);
    this.#keys = new KeyRing(parts.datapath.maps);
    this.#steering = new Steering({
      node: parts.config.node,
      store: parts.config.store,
      tables: this.#tables,
      log: this.#log,
      onUnwell: () => this.#tellUnwell(),
    });
    const { maps } = parts.datapath;
    this.#followed = new Watches(parts.config.node, maps);
    this.#audit = new Audit({
      maps,
      store: parts.store,
      listIntents: () => this.#tables.intents,
      listNeighbours,
      readLost: () => sumNote(readCounters(maps), 'flow_lost'),
    });
  }

  get generation(): number {
    return this.#tables.generation;
  }

  /** Remembers why the newest document is not in force; null when it is. */
  refuse(error: string | null): void {
    this.#error = error;
  }

  start(): void {
    this.#events = loadNative().openRingBuffer(this.#parts.datapath.maps.events, (record) =>
      this.#take(record),
    );
    this.#timer = setInterval(() => this.#harvest(), harvestMs).unref();
    this.#steering.start();
    this.#watches = [
      setInterval(() => this.#watchClock(), watchMs.clock).unref(),
      setInterval(() => void this.#prune(), watchMs.retention).unref(),
      setInterval(() => this.#watchPrograms(), watchMs.programs).unref(),
      setInterval(() => this.#watchCgroups(), watchMs.cgroups).unref(),
      setInterval(() => this.#watchBackstop(), watchMs.backstop).unref(),
    ];
  }

  async stop(): Promise<void> {
    this.#events?.close();
    this.#steering.close();
    this.#followed.close();
    for (const timer of [this.#timer, this.#soon, ...this.#watches]) if (timer) clearTimeout(timer);
    await this.#turn;
    await Promise.race([this.#harvest(), setTimeout(stopMs, undefined, { ref: false })]);
    this.#tables.close();
  }

  /**
   * Puts a checked document in force and keeps it as the last good one. While it changes, the backstop
   * holds for the old one and the new one.
   */
  load({ mesh, text, source }: Loaded): Promise<ApplyResult> {
    return this.#inTurn(async () => {
      const begun = performance.now();
      const before = this.#applied?.document;
      await this.#backstop.guard(
        before ? [before, mesh] : [mesh],
        this.#describeGuarded(),
        this.#listInForce(),
      );
      if (!this.#applied) this.#steering.inherit(mesh);
      const { changed, generation } = await this.#writeMesh(mesh);
      this.#applied = { generation, text, document: mesh, source, at: new Date().toISOString() };
      this.#error = null;
      this.#steering.follow(mesh);
      await this.#settleBackstop();
      saveDocument(lastGoodFile(this.#parts.config.store), text);
      const durationMs = Math.round((performance.now() - begun) * 10) / 10;
      this.#metrics.observeApply(durationMs / 1000);
      this.#log.info({ generation, source, changed, durationMs }, 'mesh document is in force');
      return { generation, changed, durationMs };
    });
  }

  /** Puts the programs on the ports for the first time. */
  attach(): Promise<void> {
    return this.#inTurn(async () => {
      this.#parts.ports.attach();
      await this.#settleBackstop();
    });
  }

  /**
   * Takes over what has become of this host's interfaces: tables first, then programs, as at the
   * start. Ports without programs lose the backstop's trust before, and get it after. False where it is to be
   * tried again.
   */
  followLinks(list: () => Promise<Link[]>): Promise<boolean> {
    return this.#inTurn(async () => {
      const { ports } = this.#parts;
      const known = ports.faults;
      let changes: PortChange[] = [];
      try {
        const links = await list();
        await this.#settleBackstop(links);
        changes = ports.write(links);
        this.#tables.writeHost(this.#describeHost());
        if (changes.length > 0 || ports.unsettled) ports.attach();
      } catch (error) {
        ports.refuse(`interfaces cannot be followed: ${describeError(error)}`);
      }
      await this.#settleBackstop();
      this.#reportPorts(changes, known);
      return !ports.unsettled;
    });
  }

  async applyMesh(document: Mesh, text: string): Promise<ApplyResult> {
    const { mesh } = this.#parts.config;
    const result = await this.load({ mesh: document, text, source: mesh ?? 'API' });
    if (mesh !== null) saveDocument(mesh, text);
    return result;
  }

  /** Takes the keys of the configured file; where it is refused, those in force stay. */
  loadKeys(): void {
    const { keys } = this.#parts.config;
    if (keys === null) return;
    try {
      this.#keys.write(loadKeys(keys));
      this.#keysError = null;
      this.#log.info({ ...this.#keys.describe() }, 'integrity keys are in force');
    } catch (error) {
      this.#keysError = describeError(error);
      this.#log.error({ error: this.#keysError }, 'the integrity keys are refused; those in force stay');
    }
  }

  keys(): KeysView {
    return this.#keys.describe();
  }

  applyKeys(text: string): KeysView {
    const keys = readKeys(text, 'keys');
    const { keys: file } = this.#parts.config;
    if (file !== null) saveDocument(file, text, 0o600);
    this.#keys.write(keys);
    this.#keysError = null;
    this.#log.info({ ...this.#keys.describe() }, 'integrity keys are in force');
    return this.#keys.describe();
  }

  mesh(): AppliedMesh | null {
    return this.#applied;
  }

  chains(): ChainView[] {
    const applied = this.#applied;
    if (!applied) return [];
    const sums = this.#parts.store.sumTraffic();
    return renderMesh(applied.document).chains.map((chain) => ({
      ...describeChain(chain, this.#steering),
      packets: Object.values(sums.get(chain.name) ?? {}).reduce((sum, { packets }) => sum + packets, 0),
    }));
  }

  summary(chain: string): Summary {
    if (!this.#applied) throw new LsrError('MESH_ABSENT', 'no mesh document is in force yet');
    const { config, datapath, store } = this.#parts;
    const { chains } = renderMesh(this.#applied.document);
    const traffic = readTraffic(datapath.maps.traffic);
    return summarize(chain, chains, config.node, traffic, store.sumTraffic().get(chain) ?? {});
  }

  async trace(query: TraceQuery): Promise<Trace> {
    if (!this.#applied) throw new LsrError('MESH_ABSENT', 'no mesh document is in force yet');
    return traceChain(this.#applied.document, this.#parts.config.node, query, this.#steering.available);
  }

  watch(query: WatchQuery): Watch {
    return this.#followed.look(query);
  }

  async status(): Promise<Status> {
    const { config, ports, datapath, store } = this.#parts;
    const interfaces = ports.describe();
    const managed = interfaces.every(({ attached, error }) => attached !== null && error === undefined);
    const functions = this.#describeFunctions();
    const errors = [this.#error, this.#keysError, this.#backstopError, this.#storeError];
    const whole = managed && functions.every(({ error }) => error === undefined);
    const tables = Object.entries(datapath.maps).filter(([name]) => countable.has(name));
    return {
      node: config.node,
      version: readVersion(),
      state: whole && errors.every((error) => error === null) ? 'ready' : 'degraded',
      generation: this.generation,
      mesh: {
        source: this.#applied?.source ?? config.mesh ?? 'API',
        appliedAt: this.#applied?.at ?? null,
        error: this.#error,
      },
      keys: { sending: this.#keys.describe().sending, error: this.#keysError },
      backstop: { chains: [...this.#backstop.chains], error: this.#backstopError },
      store: { bytes: this.#store(() => store.bytes) ?? 0, error: this.#storeError },
      functions,
      interfaces,
      maps: [
        ...tables.map(([name, map]) => ({
          name,
          entries: map.entries().count,
          capacity: map.info.maxEntries,
        })),
        ...this.#audit.fill,
      ],
      uptimeSeconds: Math.round((Date.now() - this.#started) / 1000),
      pid: process.pid,
    };
  }

  #describeFunctions(): Status['functions'] {
    const { config, ports } = this.#parts;
    if (!this.#applied) return [];
    const present = ports.present.map(({ name }) => name);
    return describeFunctions(
      this.#applied.document,
      config.node,
      config.interfaces,
      present,
      this.#steering.unwell,
    );
  }

  async drops(): Promise<DropsView> {
    const interfaces = readCounters(this.#parts.datapath.maps);
    const backstop = await this.#readBackstop();
    const explanations = explainDrops(interfaces, this.#samples, backstop);
    return { interfaces, backstop, samples: this.#samples, explanations };
  }

  async flush(): Promise<void> {
    await Promise.race([this.#harvest(), setTimeout(flushMs, undefined, { ref: false })]);
  }

  async metrics(): Promise<string> {
    const { datapath, store } = this.#parts;
    return this.#metrics.write({
      status: await this.status(),
      ports: readCounters(datapath.maps),
      backstop: await this.#readBackstop(),
      chains: this.chains(),
      verdicts: store.sumTraffic(),
      traffic: readTraffic(datapath.maps.traffic),
    });
  }

  async #readBackstop(): Promise<DropsView['backstop']> {
    try {
      return (await this.#backstop.readDropped()) ?? {};
    } catch (error) {
      this.#log.error({ error: describeError(error) }, 'the counters of the backstop cannot be read');
      return {};
    }
  }

  /** One at a time: each of these writes tables, programs and backstop in an order that matters. */
  #inTurn<Result>(task: () => Promise<Result>): Promise<Result> {
    const result = this.#turn.then(task);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  /** The tables alone; where they are refused, the backstop is again that of the document in force. */
  async #writeMesh(mesh: Mesh): Promise<ReturnType<MeshTables['writeMesh']>> {
    try {
      return this.#tables.writeMesh(mesh, this.#describeHost(mesh));
    } catch (error) {
      await this.#settleBackstop();
      throw error;
    }
  }

  /** Makes the backstop that of the document in force and of the programs as they hang now, on ports that stay. */
  async #settleBackstop(links?: readonly Link[]): Promise<void> {
    const document = this.#applied?.document;
    const indexes = this.#listInForce(links);
    try {
      if (!document) await this.#backstop.admit(indexes);
      else if (!(await this.#backstop.guard([document], this.#describeGuarded(), indexes)))
        await this.#backstop.remove();
      this.#backstopError = null;
    } catch (error) {
      const message = describeError(error);
      if (message !== this.#backstopError)
        this.#log.error({ error: message }, 'the backstop is not as it should be');
      this.#backstopError = message;
    }
  }

  #describeGuarded(): Guarded {
    const { config, ports } = this.#parts;
    return { node: config.node, ports: config.interfaces, mtu: portMtu(ports.present) };
  }

  /** The ifindexes of ports whose programs are attached, and have tables to go by. */
  #listInForce(links?: readonly Link[]): number[] {
    const { ports, datapath } = this.#parts;
    if (this.generation === 0) return [];
    const stays = ({ name, link }: Port): boolean =>
      links?.some((other) => other.name === name && other.index === link.index) ?? true;
    return ports.present
      .filter((port) => stays(port) && datapath.readAttached(port) !== null)
      .map(({ link }) => link.index);
  }

  /** Programs that somebody took off are put on again; no message tells of that. */
  #watchPrograms(): void {
    if (this.#parts.ports.bare.length > 0) void this.followLinks(listLinks);
  }

  /** A service that starts again has its cgroup made anew, with another id. */
  #watchCgroups(): void {
    const document = this.#applied?.document;
    if (!document || listCgroups(document.rules, this.#parts.config.node).length === 0) return;
    void this.#inTurn(async () => this.#tables.writeHost(this.#describeHost())).catch((error) =>
      this.#log.error({ error: describeError(error) }, 'cgroups cannot be followed'),
    );
  }

  /** `nft flush ruleset`, as a reload of the host's own firewall, takes the backstop away too. */
  #watchBackstop(): void {
    if (this.#backstop.chains.length === 0 && this.#backstopError === null) return;
    void this.#inTurn(async () => {
      const isThere = await this.#backstop.verify(await listLinks());
      if (!isThere) this.#log.warn('somebody has changed the backstop; it is written anew');
      if (isThere && this.#backstopError === null) return;
      await this.#settleBackstop();
    }).catch((error) => this.#log.error({ error: describeError(error) }, 'the backstop cannot be looked at'));
  }

  #tellUnwell(): void {
    this.#tables.writeHost(this.#describeHost());
    const unwell = Object.fromEntries(this.#steering.unwell);
    this.#log.warn({ unwell }, 'functions of this host that fail their check');
  }

  drains(): Drains {
    return this.#steering.drains;
  }

  applyDrains(text: string): Drains {
    return this.#steering.applyDrains(text);
  }

  #describeHost(mesh = this.#applied?.document): Host {
    const { config, ports } = this.#parts;
    return {
      cgroups: findCgroups(mesh ? listCgroups(mesh.rules, config.node) : []),
      node: config.node,
      mtu: meshMtu(ports.present),
      addresses: ports.addresses,
      available: this.#steering.available,
      unwell: this.#steering.unwell,
      ports: ports.present.map(({ name, role, link: { index, mac } }) => ({ name, role, index, mac })),
    };
  }

  #reportPorts(changes: readonly PortChange[], known: readonly Fault[]): void {
    const { faults } = this.#parts.ports;
    for (const change of changes) this.#log.info(change, 'an interface has changed');
    for (const { name, error } of faults) {
      if (!known.some((fault) => fault.error === error)) this.#log.error({ interface: name }, error);
    }
    if (known.length > 0 && faults.length === 0) this.#log.info('all interfaces are managed again');
  }

  #take(record: Buffer): void {
    const { ports } = this.#parts;
    const nameOf = (index: number): string =>
      ports.present.find(({ link }) => link.index === index)?.name ?? `#${index}`;
    if (decode('lsr_event', record).kind === enums.lsr_event_kind.LSR_EVENT_FLOW) {
      const wait = Math.max(soonMs.first, this.#harvested + soonMs.again - performance.now());
      this.#soon ??= globalThis
        .setTimeout(() => {
          this.#soon = null;
          void this.#harvest();
        }, wait)
        .unref();
      return;
    }
    const sample = readSample(record, nameOf);
    if (!sample) return;
    this.#samples = [sample, ...this.#samples].slice(0, samplesKept);
    this.#log.debug(sample, 'packet dropped');
  }

  #watchClock(): void {
    this.#keys.followClock();
    const by = this.#clock.follow();
    if (by === 0) return;
    this.#log.warn({ byMs: by }, 'the clock was set; records keep the times that they had');
    this.#store(() => this.#parts.store.noteClockStep(Date.now(), by));
  }

  async #prune(): Promise<void> {
    const { store, config } = this.#parts;
    while ((this.#store(() => store.prune(config.retention)) ?? 0) > 0) await setImmediate();
  }

  /** What the store refuses is logged; the data path and the API go on. */
  #store<Result>(action: () => Result): Result | null {
    try {
      return action();
    } catch (error) {
      this.#log.error({ error: describeError(error) }, 'the audit store refuses');
      return null;
    }
  }

  async #harvest(): Promise<void> {
    this.#harvested = performance.now();
    try {
      await this.#audit.carry();
      if (this.#storeError !== null) this.#log.info('flows are stored again');
      this.#storeError = null;
    } catch (error) {
      const message = describeError(error);
      if (message !== this.#storeError)
        this.#log.error({ error: message }, 'flows could not be stored; they stay in the kernel');
      this.#storeError = message;
    }
  }
}

/** Tables whose fill level says something. */
const countable = new Set(['addresses', 'paths', 'destinations', 'hops', 'chains', 'rules']);
