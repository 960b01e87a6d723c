import { dirname, join } from 'node:path';
import { formatAddress, formatPrefix } from './address.js';
import type { Agent, AppliedMesh, ApplyResult, ChainView, DropsView, Status } from './agent.js';
import type { AgentConfig } from './agent-config.js';
import { Audit } from './audit.js';
import { decode } from './codec.js';
import type { Datapath } from './datapath.js';
import { explainDrops, readCounters, readSample, type Sample } from './drops.js';
import type { Host } from './entries.js';
import { type Fault, type Link, meshMtu } from './interfaces.js';
import { KeyRing } from './key-ring.js';
import { type KeysView, loadKeys, readKeys } from './keys.js';
import { enums } from './layout.js';
import { componentLogger, type Logger } from './logger.js';
import type { Mesh } from './mesh.js';
import { describeError, type Loaded, saveDocument } from './mesh-store.js';
import { MeshTables } from './mesh-tables.js';
import { writeMetrics } from './metrics.js';
import { loadNative, type RingBuffer } from './native.js';
import type { PortChange } from './port-plan.js';
import type { Ports } from './ports.js';
import { renderMesh } from './render.js';
import type { Store } from './store.js';
import { readVersion } from './version.js';

const harvestMs = 5000;
/** The clock of tags may be set anew at any time; until it is followed, all of them are too old or too new. */
const clockMs = 1000;
const samplesKept = 256;

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
  readonly #log: Logger;
  readonly #started = Date.now();
  #samples: Sample[] = [];
  #applied: (AppliedMesh & { at: string }) | null = null;
  #error: string | null = null;
  #events: RingBuffer | null = null;
  #timer: NodeJS.Timeout | null = null;
  #soon: NodeJS.Timeout | null = null;
  readonly #keys: KeyRing;
  #keysError: string | null = null;
  #clock: NodeJS.Timeout | null = null;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#log = componentLogger(parts.logger, 'agent');
    this.#tables = new MeshTables(parts.datapath.maps);
    this.#keys = new KeyRing(parts.datapath.maps);
    this.#audit = new Audit([parts.datapath.maps.flows, parts.datapath.maps.deviations], parts.store);
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
    this.#clock = setInterval(() => this.#keys.followClock(), clockMs).unref();
  }

  stop(): void {
    this.#events?.close();
    for (const timer of [this.#timer, this.#soon, this.#clock]) if (timer) clearTimeout(timer);
    this.#tables.close();
    this.#harvest();
  }

  /** Puts a checked document in force and keeps it as the last good one. */
  load({ mesh, text, source }: Loaded): ApplyResult {
    const begun = performance.now();
    const { changed, generation } = this.#tables.writeMesh(mesh, this.#describeHost());
    saveDocument(join(dirname(this.#parts.config.store), 'mesh.last-good.yaml'), text);
    this.#applied = { generation, text, document: mesh, source, at: new Date().toISOString() };
    this.#error = null;
    const durationMs = Math.round((performance.now() - begun) * 10) / 10;
    this.#log.info({ generation, source, changed, durationMs }, 'mesh document is in force');
    return { generation, changed, durationMs };
  }

  /**
   * Takes over what has become of this host's interfaces: tables first, then programs, as at the
   * start. False where it is to be tried again.
   */
  async followLinks(list: () => Promise<Link[]>): Promise<boolean> {
    const { ports } = this.#parts;
    const known = ports.faults;
    let changes: PortChange[] = [];
    try {
      changes = ports.write(await list());
      this.#tables.writeHost(this.#describeHost());
      if (changes.length > 0 || ports.unsettled) ports.attach();
    } catch (error) {
      ports.refuse(`interfaces cannot be followed: ${describeError(error)}`);
    }
    this.#reportPorts(changes, known);
    return !ports.unsettled;
  }

  async applyMesh(document: Mesh, text: string): Promise<ApplyResult> {
    const { mesh } = this.#parts.config;
    const result = this.load({ mesh: document, text, source: mesh ?? 'API' });
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
    const packets = this.#parts.store.sumPackets();
    return renderMesh(applied.document).chains.map(({ name, id, path, destinations }) => ({
      name,
      id,
      mode: path.mode,
      hops: path.hops.map(({ node, address }) => ({ node, address: formatAddress(address) })),
      record: path.record,
      overhead: path.options.length,
      destinations: destinations.map(formatPrefix),
      rules: applied.document.rules.filter((rule) => rule.chain === name).map((rule) => rule.name),
      packets: packets.get(name) ?? 0,
    }));
  }

  async status(): Promise<Status> {
    const { config, ports, datapath } = this.#parts;
    const interfaces = ports.describe();
    const managed = interfaces.every(({ attached, error }) => attached !== null && error === undefined);
    const tables = Object.entries(datapath.maps).filter(([name]) => countable.has(name));
    return {
      node: config.node,
      version: readVersion(),
      state: this.#error === null && this.#keysError === null && managed ? 'ready' : 'degraded',
      generation: this.generation,
      mesh: {
        source: this.#applied?.source ?? config.mesh ?? 'API',
        appliedAt: this.#applied?.at ?? null,
        error: this.#error,
      },
      keys: { sending: this.#keys.describe().sending, error: this.#keysError },
      interfaces,
      maps: tables.map(([name, map]) => ({
        name,
        entries: map.entries().count,
        capacity: map.info.maxEntries,
      })),
      uptimeSeconds: Math.round((Date.now() - this.#started) / 1000),
      pid: process.pid,
    };
  }

  async drops(): Promise<DropsView> {
    const interfaces = readCounters(this.#parts.datapath.maps);
    return { interfaces, samples: this.#samples, explanations: explainDrops(interfaces, this.#samples) };
  }

  async flush(): Promise<void> {
    this.#audit.harvest(this.#tables.intents);
  }

  async metrics(): Promise<string> {
    return writeMetrics(await this.status(), readCounters(this.#parts.datapath.maps));
  }

  #describeHost(): Host {
    const { config, ports } = this.#parts;
    return {
      node: config.node,
      mtu: meshMtu(ports.present),
      addresses: ports.addresses,
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
      this.#soon ??= setTimeout(() => {
        this.#soon = null;
        this.#harvest();
      }, 50).unref();
      return;
    }
    const sample = readSample(record, nameOf);
    if (!sample) return;
    this.#samples = [sample, ...this.#samples].slice(0, samplesKept);
    this.#log.debug(sample, 'packet dropped');
  }

  #harvest(): void {
    try {
      this.#audit.harvest(this.#tables.intents);
    } catch (error) {
      this.#log.error(
        { error: (error as Error).message },
        'flows could not be stored; they stay in the kernel',
      );
    }
  }
}

/** Tables whose fill level says something. */
const countable = new Set([
  'addresses',
  'paths',
  'destinations',
  'hops',
  'chains',
  'rules',
  'flows',
  'deviations',
]);
