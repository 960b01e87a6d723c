import {
  type AuditRecord,
  countMost,
  isDeviation,
  makeFlow,
  type Sighting,
  type Sightings,
  spanTimes,
} from './capture-records.js';
import { type Explanation, explanations } from './reasons.js';
import type { Flow, RouteEntry, Verdict } from './record.js';

/** Packets of one flow that a hop drops for one reason, or whose way is not their chain's. */
export interface Violation {
  /** As in `lsr-agent drops`; `record_route:ADDRESS` for a detour. */
  reason: string;
  /** Null where it is not the packet's way that is wrong. */
  verdict: Verdict | null;
  chain: string | null;
  flow: Flow;
  /** Where the packet was to go next. */
  hop: RouteEntry;
  packets: number;
  /** Its number, as Wireshark counts. */
  firstPacket: number;
  firstSeen: string | null;
  lastSeen: string | null;
}

/** In the order of the capture. */
export function listViolations({ dropped }: Sightings, records: readonly AuditRecord[]): Violation[] {
  const drops = [...dropped.values()].map(describeDrop);
  const detours = records.filter(({ verdict }) => verdict === 'detour').flatMap(describeDetour);
  return [...drops, ...detours].sort((a, b) => a.firstPacket - b.firstPacket);
}

function describeDrop(sightings: readonly Sighting[]): Violation {
  const { row, judgement } = sightings[0] as Sighting;
  const { verdict, chain, recorded, reasons } = judgement;
  return {
    reason: reasons[0] ?? '',
    verdict: isDeviation(sightings) ? verdict : null,
    chain,
    flow: makeFlow(row),
    hop: recorded.at(-1) as RouteEntry, // what was recorded ends with the hop that it has come to
    packets: countMost(sightings).packets,
    firstPacket: Math.min(...sightings.map(({ tally }) => tally.first)),
    ...spanTimes(sightings),
  };
}

function describeDetour(record: AuditRecord): Violation[] {
  const { reasons, chain, flow, packets, firstPacket, firstSeen, lastSeen, legs, expected } = record;
  const to = legs.findLast((leg) => leg.packets > 0)?.to;
  const hop = expected.find(({ node }) => node === to) as RouteEntry;
  return reasons
    .filter((reason) => reason.startsWith('record_route:'))
    .map((reason) => ({
      ...{ reason, verdict: 'detour' as const, chain, flow, hop },
      ...{ packets, firstPacket, firstSeen, lastSeen },
    }));
}

export function explainViolations(violations: readonly Violation[]): Record<string, Explanation> {
  const known: Record<string, Explanation> = explanations;
  return Object.fromEntries(violations.map(({ reason }) => [reason, known[reason] ?? strangerExplanation]));
}

/** The one that is no drop. */
const strangerExplanation: Explanation = {
  meaning: 'Record Route names an address that belongs to no hop of the path',
  advice:
    'an address of a hop that is missing among its `addresses` in the mesh document, or a router that records itself: find out whose it is',
};
