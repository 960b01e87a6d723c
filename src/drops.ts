import { formatAddress } from './address.js';
import type { DropsView } from './api-schemas.js';
import { type Clock, readClock, toWallTime } from './clock.js';
import { decode, encodeIndex } from './codec.js';
import { readPorts } from './datapath.js';
import { enums } from './layout.js';
import type { BpfMap } from './native.js';
import { backstopExplanation, explanations, reasons } from './reasons.js';

export type Sample = DropsView['samples'][number];
type Counted = DropsView['interfaces'][number];

/** What was counted on each port, summed over the CPUs. */
export function readCounters(maps: { interfaces: BpfMap; counters: BpfMap }): Counted[] {
  return readPorts(maps.interfaces)
    .sort((a, b) => a.slot - b.slot)
    .flatMap(({ name, slot }) =>
      (['ingress', 'egress'] as const).map((direction) => {
        const { LSR_EGRESS, LSR_INGRESS } = enums.lsr_direction;
        const key = encodeIndex(slot * 2 + (direction === 'ingress' ? LSR_INGRESS : LSR_EGRESS));
        const counts = sumCpus(maps.counters, maps.counters.get(key));
        return { interface: name, direction, ...groupCounts(counts) };
      }),
    );
}

/** Of all ports. */
export function sumNote(counted: readonly Counted[], note: string): number {
  return counted.reduce((sum, { notes }) => sum + (notes[note] ?? 0), 0);
}

export function explainDrops(
  counted: readonly Counted[],
  samples: readonly Sample[],
  backstop: DropsView['backstop'],
): DropsView['explanations'] {
  const seen = new Set([
    ...counted.flatMap(({ drops, notes }) => [...Object.keys(drops), ...Object.keys(notes)]),
    ...samples.map(({ reason }) => reason),
  ]);
  const stopped = Object.values(backstop).some(({ packets }) => packets > 0);
  return {
    ...Object.fromEntries(Object.entries(explanations).filter(([name]) => seen.has(name))),
    ...(stopped && { backstop: backstopExplanation }),
  };
}

/** A sampled packet from the ring buffer, or null where the event is none. */
export function readSample(record: Buffer, interfaceName: (index: number) => string): Sample | null {
  const event = decode('lsr_event', record);
  if (event.kind !== enums.lsr_event_kind.LSR_EVENT_DROP) return null;
  const header = Buffer.from(event.header).subarray(0, event.captured);
  const clock: Clock = readClock();
  const optionsEnd = Math.max(20, Math.min(((header[0] ?? 0) % 16) * 4, header.length));
  return {
    time: toWallTime(clock, event.time),
    interface: interfaceName(event.interface),
    direction: event.direction === enums.lsr_direction.LSR_INGRESS ? 'ingress' : 'egress',
    reason: reasons[event.reason]?.name ?? String(event.reason),
    source: header.length >= 20 ? formatAddress(header.readUInt32BE(12)) : '0.0.0.0',
    destination: header.length >= 20 ? formatAddress(header.readUInt32BE(16)) : '0.0.0.0',
    protocol: header[9] ?? 0,
    options: header.subarray(20, optionsEnd).toString('hex'),
  };
}

function sumCpus(map: BpfMap, values: Buffer | null): bigint[] {
  const sums = reasons.map(() => 0n);
  if (!values) return sums;
  const stride = Math.ceil(map.info.valueSize / 8) * 8;
  for (let at = 0; at + stride <= values.length; at += stride) {
    decode('lsr_counters', values, at).count.forEach((count, i) => {
      sums[i] = (sums[i] ?? 0n) + count;
    });
  }
  return sums;
}

/** Drops and notes that never happened are left out; outcomes are all there, so that sums can be made. */
function groupCounts(counts: readonly bigint[]): Omit<Counted, 'interface' | 'direction'> {
  const group = (kind: string, all: boolean): Record<string, number> =>
    Object.fromEntries(
      reasons
        .filter((reason) => reason.kind === kind)
        .map(({ name, index }): [string, number] => [name, Number(counts[index] ?? 0n)])
        .filter(([, count]) => all || count > 0),
    );
  return {
    received: Number(counts[enums.lsr_reason.LSR_RECEIVED] ?? 0n),
    outcomes: group('outcome', true),
    drops: group('drop', false),
    notes: group('note', false),
  };
}
