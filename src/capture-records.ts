import { createHash } from 'node:crypto';
import { formatAddress } from './address.js';
import type { Intent } from './audit.js';
import type { Row, Tally } from './capture-flows.js';
import { explainRecord } from './explanation.js';
import { type Judgement, judgeFlow, readVisited } from './judge.js';
import { enums } from './layout.js';
import { type DropReason, reasons } from './reasons.js';
import type { Flow, PathRecord, Verdict } from './record.js';

/** A record as agents make it, but of what a capture shows: `partial` where that ends before the last leg. */
export interface AuditRecord extends Omit<PathRecord, 'verdict' | 'firstSeen' | 'lastSeen'> {
  verdict: Verdict | 'partial';
  /** Null where the capture has no times. */
  firstSeen: string | null;
  lastSeen: string | null;
  /** Its number, as Wireshark counts. */
  firstPacket: number;
  /** What was seen of the flow on the way to each hop of the path, in their order. */
  legs: { to: string; packets: number; bytes: number }[];
}

/** One header of a flow, with one outcome. */
export interface Sighting {
  row: Row;
  tally: Tally;
  judgement: Judgement;
}

export interface Sightings {
  /** That a hop takes, by flow and path. */
  taken: Map<string, Sighting[]>;
  /** That a hop drops, by flow, reason and hop. */
  dropped: Map<string, Sighting[]>;
}

export function groupSightings(intent: Intent, rows: readonly Row[]): Sightings {
  const judge = makeJudge(intent);
  const taken = new Map<string, Sighting[]>();
  const dropped = new Map<string, Sighting[]>();
  for (const row of rows) {
    const flow = Object.values(makeFlow(row)).join(' ');
    for (const tally of row.tallies) {
      const { reason } = tally;
      const { chain, prediction, hop } = row.check;
      const judgement = judge(row, reason);
      const group = reason === null ? taken : dropped;
      const told = reason === null ? chain?.id : `${reason} ${hop} ${JSON.stringify(judgement)}`;
      const key = `${flow} ${prediction?.path.id} ${told}`;
      const others = group.get(key);
      const sighting = { row, tally, judgement };
      if (others) others.push(sighting);
      else group.set(key, [sighting]);
    }
  }
  return { taken, dropped };
}

/** The newest first. */
export function listRecords({ taken, dropped }: Sightings): AuditRecord[] {
  const deviations = [...dropped.values()].filter(isDeviation);
  const records = [
    ...[...taken.values()].flatMap(recordFlow),
    ...deviations.map((sightings) => makeRecord(sightings, [])),
  ];
  return records.sort((a, b) => (b.lastSeen ?? '').localeCompare(a.lastSeen ?? ''));
}

/** Those that agents record too, and do not only count. */
export const isDeviation = ([sighting]: readonly Sighting[]): boolean => {
  const [reason = ''] = sighting?.judgement.reasons ?? [];
  if (tagReasons.includes(reason)) return true;
  return sighting?.row.check.isDeviation === true && sighting.row.check.faults.route === reason;
};

const tagReasons = ['key_unknown', 'key_expired', 'tag_age', 'tag_wrong'] satisfies DropReason[] as string[];

function makeJudge(intent: Intent): (row: Row, reason: DropReason | null) => Judgement {
  const known = new Map<string, Judgement>();
  return ({ check }, reason) => {
    const { chain, prediction, hop, options, record } = check;
    const path = prediction?.path.id ?? 0;
    const begin = options[0] === enums.lsr_option.LSR_OPTION_INTEGRITY ? 12 : 0;
    const key = [reason, chain?.id, path, hop, options.toString('latin1', begin)].join(' ');
    const judged = known.get(key);
    if (judged) return judged;
    const evidence = {
      chain: reason === null ? (chain?.id ?? 0) : 0,
      path,
      hop,
      visited: readVisited(options),
    };
    const judgement = judgeFlow([intent], {
      ...evidence,
      reason: reason === null ? enums.lsr_reason.LSR_ENDED : (reasonNumbers.get(reason) ?? 0),
      record: reason === null ? record : [],
    });
    known.set(key, judgement);
    return judgement;
  };
}

const reasonNumbers = new Map(reasons.map(({ name, index }) => [name, index]));

/** One record for each way that Record Route tells of; what is seen earlier on its way is in `legs`. */
function recordFlow(sightings: Sighting[]): AuditRecord[] {
  const variants = new Map<string, Sighting[]>();
  for (const sighting of sightings) {
    const key = sighting.judgement.reasons.join(' ');
    variants.set(key, [...(variants.get(key) ?? []), sighting]);
  }
  const furthest = [...variants.values()].map((variant) => {
    const position = Math.max(...variant.map(readPosition));
    return { position, variant: variant.filter((sighting) => readPosition(sighting) === position) };
  });
  const told = ({ variant }: { variant: Sighting[] }): string[] => variant[0]?.judgement.reasons ?? [];
  // What is seen only before another one's place, and tells no more, is that other one on its way.
  const lasting = furthest.filter(
    (one) =>
      !furthest.some(
        (other) => other.position > one.position && told(one).every((reason) => told(other).includes(reason)),
      ),
  );
  const legs = listLegs(sightings);
  return lasting.flatMap(({ variant }) => splitByRecord(variant)).map((part) => makeRecord(part, legs));
}

/** As the agents do: fragments that are not the first carry no Record Route, and have a record of their own. */
function splitByRecord(sightings: readonly Sighting[]): Sighting[][] {
  const parts = new Map<string, Sighting[]>();
  for (const sighting of sightings) {
    const key = sighting.row.check.record.join(' ');
    parts.set(key, [...(parts.get(key) ?? []), sighting]);
  }
  return [...parts.values()];
}

const readPosition = ({ row }: Sighting): number => row.check.prediction?.position ?? 0;

function listLegs(sightings: readonly Sighting[]): AuditRecord['legs'] {
  const hops = sightings[0]?.row.check.prediction?.path.hops ?? [];
  return hops.map(({ node }, index) => {
    const seen = sightings.filter((sighting) => readPosition(sighting) === index + 1);
    return { to: node, ...countMost(seen) };
  });
}

function makeRecord(sightings: readonly Sighting[], legs: AuditRecord['legs']): AuditRecord {
  const { row, judgement } = sightings[0] as Sighting;
  const { position = 0, path } = row.check.prediction ?? {};
  const next = legs.length > 0 && path && position < path.hops.length ? path.hops[position - 1] : undefined;
  const isVerified = sightings.every(({ tally }) => tally.verified > 0 && tally.verified === tally.packets);
  const { expected, recorded, verdict, reasons: told, chain, integrity } = judgement;
  const flow = makeFlow(row);
  const shown: AuditRecord['verdict'] = next && verdict === 'complete' ? 'partial' : verdict;
  const record = {
    chain,
    generation: 0,
    flow,
    expected,
    // What is on a leg has been at the hops before, and may get lost before the next.
    recorded: next ? recorded.slice(0, -1) : recorded,
    recordRoute: legs.length > 0 ? row.check.record.map(formatAddress) : [],
    reasons: next ? [...told, `seen_to:${next.node}`] : told,
    ...countMost(sightings),
    ...spanTimes(sightings),
    firstPacket: Math.min(...sightings.map(({ tally }) => tally.first)),
    integrity: isVerified ? integrity : ('none' as const),
    arrivedFrom: null,
  };
  return {
    id: identify([chain, path?.id, ...Object.values(flow), shown, ...told, ...recorded, row.check.record]),
    ...record,
    verdict: shown,
    explanation: next
      ? `was seen on its way to ${next.node}; the capture tells no more`
      : explainRecord({ ...record, verdict }),
    legs,
  };
}

const identify = (key: unknown[]): string =>
  createHash('sha256').update(JSON.stringify(key)).digest('hex').slice(0, 24);

export function makeFlow({ source, check, protocol, sourcePort, destinationPort }: Row): Flow {
  const [from, to] = [formatAddress(source), formatAddress(check.final)];
  return { source: from, destination: to, protocol, sourcePort, destinationPort };
}

/** Of the point that saw the most: each of the others saw the same packets, or some of them. */
export function countMost(sightings: readonly Sighting[]): { packets: number; bytes: number } {
  const points = new Map<number, { packets: number; bytes: number }>();
  for (const { tally } of sightings) {
    for (const { point, packets, bytes } of tally.points) {
      const sum = points.get(point) ?? { packets: 0, bytes: 0 };
      points.set(point, { packets: sum.packets + packets, bytes: sum.bytes + bytes });
    }
  }
  const none = { packets: 0, bytes: 0 };
  return [...points.values()].reduce((most, one) => (one.packets > most.packets ? one : most), none);
}

export function spanTimes(sightings: readonly Sighting[]): Pick<AuditRecord, 'firstSeen' | 'lastSeen'> {
  const format = (times: (number | null)[], pick: (...times: number[]) => number): string | null => {
    const known = times.filter((time) => time !== null);
    return known.length === 0 ? null : new Date(pick(...known)).toISOString();
  };
  return {
    firstSeen: format(
      sightings.map(({ tally }) => tally.firstTime),
      Math.min,
    ),
    lastSeen: format(
      sightings.map(({ tally }) => tally.lastTime),
      Math.max,
    ),
  };
}
