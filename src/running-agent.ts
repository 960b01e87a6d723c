import { dirname, join } from 'node:path';
import { formatAddress, formatPrefix } from './address.js';
import type { Agent, AppliedMesh, ApplyResult, ChainView, DropsView, Status } from './agent.js';
import type { AgentConfig } from './agent-config.js';
import { type Changed, isInForce, readState, sweepEntries, writeEntries } from './apply.js';
import { Audit, type Intent } from './audit.js';
import { decode } from './codec.js';
import type { Datapath } from './datapath.js';
import { explainDrops, readCounters, readSample, type Sample } from './drops.js';
import { type Entries, type Host, makeEntries, type Version } from './entries.js';
import { meshMtu, type Port } from './interfaces.js';
import { enums } from './layout.js';
import { componentLogger, type Logger } from './logger.js';
import type { Mesh } from './mesh.js';
import { type Loaded, saveDocument } from './mesh-store.js';
import { writeMetrics } from './metrics.js';
import { loadNative, type RingBuffer } from './native.js';
import { renderMesh } from './render.js';
import type { Store } from './store.js';
import { readVersion } from './version.js';

/** Packets that left the edge before a change are still on their way for so long. */
const drainMs = 2000;
const harvestMs = 5000;
const samplesKept = 256;
const intentsKept = 8;

interface Parts {
  config: AgentConfig;
  ports: Port[];
  datapath: Datapath;
  store: Store;
  logger: Logger;
}

/** The agent of this host while it runs: applies mesh documents, carries the audit, answers the API. */
export class RunningAgent implements Agent {
  readonly #parts: Parts;
  readonly #host: Host;
  readonly #audit: Audit;
  readonly #log: Logger;
  readonly #started = Date.now();
  #samples: Sample[] = [];
  #intents: Intent[] = [];
  #applied: (AppliedMesh & { at: string }) | null = null;
  #error: string | null = null;
  #entries: Entries | null = null;
  #events: RingBuffer | null = null;
  #timers: NodeJS.Timeout[] = [];
  #soon: NodeJS.Timeout | null = null;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#log = componentLogger(parts.logger, 'agent');
    this.#audit = new Audit([parts.datapath.maps.flows, parts.datapath.maps.deviations], parts.store);
    this.#host = {
      node: parts.config.node,
      mtu: meshMtu(parts.ports),
      addresses: parts.ports.flatMap(({ link }) => link.addresses),
    };
  }

  get generation(): number {
    return readState(this.#parts.datapath.maps).generation;
  }

  /** Remembers why the newest document is not in force; null when it is. */
  refuse(error: string | null): void {
    this.#error = error;
  }

  start(): void {
    this.#events = loadNative().openRingBuffer(this.#parts.datapath.maps.events, (record) =>
      this.#take(record),
    );
    this.#timers.push(setInterval(() => this.#harvest(), harvestMs).unref());
  }

  stop(): void {
    this.#events?.close();
    for (const timer of this.#timers) clearTimeout(timer);
    if (this.#soon) clearTimeout(this.#soon);
    this.#harvest();
  }

  /** Puts a checked document in force and keeps it as the last good one. */
  load({ mesh, text, source }: Loaded): ApplyResult {
    const begun = performance.now();
    const { changed, generation } = this.#write(mesh);
    saveDocument(join(dirname(this.#parts.config.store), 'mesh.last-good.yaml'), text);
    this.#applied = { generation, text, document: mesh, source, at: new Date().toISOString() };
    this.#error = null;
    const durationMs = Math.round((performance.now() - begun) * 10) / 10;
    this.#log.info({ generation, source, changed, durationMs }, 'mesh document is in force');
    return { generation, changed, durationMs };
  }

  async applyMesh(document: Mesh, text: string): Promise<ApplyResult> {
    const { mesh } = this.#parts.config;
    const result = this.load({ mesh: document, text, source: mesh ?? 'API' });
    if (mesh !== null) saveDocument(mesh, text);
    return result;
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
    const tables = Object.entries(datapath.maps).filter(([name]) => countable.has(name));
    return {
      node: config.node,
      version: readVersion(),
      state: this.#error === null ? 'ready' : 'degraded',
      generation: this.generation,
      mesh: {
        source: this.#applied?.source ?? config.mesh ?? 'API',
        appliedAt: this.#applied?.at ?? null,
        error: this.#error,
      },
      interfaces: ports.map(({ name, role, link }) => ({
        name,
        role,
        ifindex: link.index,
        attached: datapath.attached.get(name) ?? null,
        mtu: link.mtu,
        address: link.addresses[0] === undefined ? null : formatAddress(link.addresses[0]),
      })),
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
    this.#audit.harvest(this.#intents);
  }

  async metrics(): Promise<string> {
    return writeMetrics(await this.status(), readCounters(this.#parts.datapath.maps));
  }

  /** Nothing is written where the kernel already has what is wanted, as after a restart. */
  #write(mesh: Mesh): { changed: Changed; generation: number } {
    const { maps } = this.#parts.datapath;
    const rendered = renderMesh(mesh);
    const present = readState(maps);
    const make = (version: Version): Entries => makeEntries(mesh, rendered, this.#host, version);
    const same = make(present);
    let result = { changed: {} as Changed, generation: present.generation };
    if (present.generation > 0 && isInForce(maps, same, present)) {
      this.#entries = same;
    } else {
      const version: Version = { set: present.set === 0 ? 1 : 0, generation: present.generation + 1 };
      this.#entries = make(version);
      result = { changed: writeEntries(maps, this.#entries, version), generation: version.generation };
    }
    this.#intents = [{ mesh, rendered }, ...this.#intents].slice(0, intentsKept);
    this.#timers.push(setTimeout(() => this.#sweep(), drainMs).unref());
    return result;
  }

  #sweep(): void {
    if (this.#entries) sweepEntries(this.#parts.datapath.maps, this.#entries);
  }

  #take(record: Buffer): void {
    const { ports } = this.#parts;
    const nameOf = (index: number): string =>
      ports.find(({ link }) => link.index === index)?.name ?? `#${index}`;
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
      this.#audit.harvest(this.#intents);
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
