import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { ChainView, DropsView, Status } from './api-schemas.js';
import { sumNote } from './drops.js';
import type { Amount } from './summary.js';
import type { Traffic } from './traffic.js';

/** What the agent knows when it is asked. */
export interface Measured {
  status: Status;
  ports: DropsView['interfaces'];
  backstop: DropsView['backstop'];
  chains: readonly ChainView[];
  /** Of all records there ever were, by chain and verdict. */
  verdicts: ReadonlyMap<string, Record<string, Amount>>;
  traffic: readonly Traffic[];
}

/** Beyond so many paths they are counted together, as path "others". */
const pathsTold = 1000;

/** Prometheus text. Names follow the Prometheus conventions; labels are bounded by ports, reasons, chains and paths. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #applies: Histogram;

  constructor() {
    collectDefaultMetrics({ register: this.#registry });
    this.#applies = new Histogram({
      name: 'lsr_apply_duration_seconds',
      help: 'How long it took to put mesh documents in force',
      buckets: [0.005, 0.02, 0.1, 0.5, 2, 10, 60],
      registers: [this.#registry],
    });
  }

  observeApply(seconds: number): void {
    this.#applies.observe(seconds);
  }

  async write(measured: Measured): Promise<string> {
    const registry = new Registry();
    writePorts(registry, measured);
    writeChains(registry, measured);
    writeState(registry, measured);
    return Registry.merge([registry, this.#registry]).metrics();
  }
}

function writePorts(registry: Registry, { ports, backstop }: Measured): void {
  const registers = [registry];
  const packets = new Counter({
    name: 'lsr_packets_total',
    help: 'Packets by port, direction and what became of them; received is their sum',
    labelNames: ['interface', 'direction', 'outcome'],
    registers,
  });
  const drops = new Counter({
    name: 'lsr_dropped_packets_total',
    help: 'Packets dropped, by port, direction and reason; those of the reason backstop by chain',
    labelNames: ['interface', 'direction', 'reason', 'chain'],
    registers,
  });
  const notes = new Counter({
    name: 'lsr_notes_total',
    help: 'Things counted beside the outcome of a packet',
    labelNames: ['interface', 'direction', 'note'],
    registers,
  });
  for (const { interface: name, direction, received, outcomes, drops: dropped, notes: noted } of ports) {
    packets.inc({ interface: name, direction, outcome: 'received' }, received);
    for (const [outcome, count] of Object.entries(outcomes))
      packets.inc({ interface: name, direction, outcome }, count);
    for (const [reason, count] of Object.entries(dropped))
      drops.inc({ interface: name, direction, reason }, count);
    for (const [note, count] of Object.entries(noted)) notes.inc({ interface: name, direction, note }, count);
  }
  for (const [chain, { packets: stopped }] of Object.entries(backstop))
    drops.inc({ reason: 'backstop', chain }, stopped);
  new Counter({
    name: 'lsr_audit_lost_packets_total',
    help: 'Packets that went on without a record: the flow table was full',
    registers,
  }).inc(sumNote(ports, 'flow_lost'));
  new Counter({
    name: 'lsr_events_lost_total',
    help: 'Samples of drops that were lost: the event buffer was full',
    registers,
  }).inc(sumNote(ports, 'event_lost'));
}

function writeChains(registry: Registry, { chains, verdicts, traffic }: Measured): void {
  const registers = [registry];
  const counters = (what: string, labelNames: string[], help: string) =>
    (['packets', 'bytes'] as const).map((unit) => ({
      unit,
      counter: new Counter({
        name: `lsr_${what}_${unit}_total`,
        help: `${unit === 'packets' ? 'Packets' : 'Bytes of IPv4, without our options,'} ${help}`,
        labelNames,
        registers,
      }),
    }));
  const ended = counters('chain', ['chain', 'verdict'], 'that were recorded here, by chain and verdict');
  for (const [chain, sums] of verdicts)
    for (const [verdict, sum] of Object.entries(sums))
      for (const { unit, counter } of ended) counter.inc({ chain, verdict }, sum[unit]);
  const names = new Map(
    chains
      .flatMap(({ paths }) => paths.map(({ id, nodes }) => [id, nodes.join('/')] as const))
      .slice(0, pathsTold),
  );
  const seen = counters('path', ['path', 'outcome'], 'seen here, by path and what became of them');
  for (const { path, reason, ...sum } of traffic) {
    const name = path === 0 ? 'none' : (names.get(path) ?? 'others');
    for (const { unit, counter } of seen) counter.inc({ path: name, outcome: reason }, sum[unit]);
  }
  const up = new Gauge({
    name: 'lsr_path_up',
    help: '1 where probes of a path come back, 0 where they do not; those that begin here, with a choice',
    labelNames: ['chain', 'path'],
    registers,
  });
  for (const { name: chain, paths } of chains)
    for (const { id, state } of paths)
      if (state !== 'unwatched' && names.has(id))
        up.set({ chain, path: names.get(id) ?? '' }, state === 'up' ? 1 : 0);
}

function writeState(registry: Registry, { status }: Measured): void {
  const registers = [registry];
  const labelNames = ['map'];
  const entries = new Gauge({ name: 'lsr_map_entries', help: 'Entries in a table', labelNames, registers });
  const help = 'Entries a table holds';
  const capacity = new Gauge({ name: 'lsr_map_capacity', help, labelNames, registers });
  for (const map of status.maps) {
    entries.set({ map: map.name }, map.entries);
    capacity.set({ map: map.name }, map.capacity);
  }
  const gauges: [name: string, help: string, value: number][] = [
    ['lsr_store_bytes', 'Size of the audit store, of the pages in use', status.store.bytes],
    ['lsr_generation', 'Generation of the mesh document in force', status.generation],
    ['lsr_ready', '1 when the newest mesh document is in force', status.state === 'ready' ? 1 : 0],
  ];
  for (const [name, help, value] of gauges) new Gauge({ name, help, registers }).set(value);
}
