import { Counter, Gauge, Registry } from 'prom-client';
import type { DropsView, Status } from './api-schemas.js';

/** Prometheus text of what the agent knows now. Names follow the Prometheus conventions; labels are bounded by ports and reasons. */
export async function writeMetrics(
  status: Status,
  counted: DropsView['interfaces'],
  backstop: DropsView['backstop'],
): Promise<string> {
  const registry = new Registry();
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
  for (const { interface: name, direction, received, outcomes, drops: dropped, notes: noted } of counted) {
    packets.inc({ interface: name, direction, outcome: 'received' }, received);
    for (const [outcome, count] of Object.entries(outcomes))
      packets.inc({ interface: name, direction, outcome }, count);
    for (const [reason, count] of Object.entries(dropped))
      drops.inc({ interface: name, direction, reason }, count);
    for (const [note, count] of Object.entries(noted)) notes.inc({ interface: name, direction, note }, count);
  }
  for (const [chain, { packets: stopped }] of Object.entries(backstop))
    drops.inc({ reason: 'backstop', chain }, stopped);
  const entries = new Gauge({
    name: 'lsr_map_entries',
    help: 'Entries in a table',
    labelNames: ['map'],
    registers,
  });
  const capacity = new Gauge({
    name: 'lsr_map_capacity',
    help: 'Entries a table holds',
    labelNames: ['map'],
    registers,
  });
  for (const map of status.maps) {
    entries.set({ map: map.name }, map.entries);
    capacity.set({ map: map.name }, map.capacity);
  }
  new Gauge({ name: 'lsr_generation', help: 'Generation of the mesh document in force', registers }).set(
    status.generation,
  );
  new Gauge({ name: 'lsr_ready', help: '1 when the newest mesh document is in force', registers }).set(
    status.state === 'ready' ? 1 : 0,
  );
  return registry.metrics();
}
