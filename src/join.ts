import { explainRecord } from './explanation.js';
import type { FlowRow, PathRecord } from './record.js';
import { verdicts } from './verdict.js';

/**
 * Joins what the segments of one chain recorded of a flow, each where it ends, into one record with the whole way. Where
 * a segment has no record of a flow, or more than one, nobody can tell what belongs together: those stay as they are.
 * Newest first.
 * `chains`: the names of all chains, from any agent of the mesh; segments of `web` are web, web/2, web/3 ….
 */
export function joinSegments(records: readonly PathRecord[], chains: readonly string[]): PathRecord[] {
  const flows = new Map<string, PathRecord[]>();
  for (const record of records) {
    const key = JSON.stringify([
      record.chain && parseSegment(record.chain).of,
      ...Object.values(record.flow),
    ]);
    flows.set(key, [...(flows.get(key) ?? []), record]);
  }
  const joined = [...flows.values()].flatMap((found) => {
    const names = listSegments(chains, found[0]?.chain ?? '');
    const parts = names.map((name) => found.filter(({ chain }) => chain === name));
    const isClear = names.length > 1 && parts.every(({ length }) => length === 1);
    return isClear ? [joinRecords(parts.flat())] : found;
  });
  return joined.sort((a, b) => b.lastSeen.localeCompare(a.lastSeen));
}

/** The segments of the chain that `chain` is, or is a segment of, in their order. */
export function listSegments(chains: readonly string[], chain: string): string[] {
  const { of } = parseSegment(chain);
  return chains
    .filter((name) => parseSegment(name).of === of)
    .sort((a, b) => parseSegment(a).number - parseSegment(b).number);
}

/** "web/return/3" is the third segment of web/return. */
function parseSegment(chain: string): { of: string; number: number } {
  const [, of = chain, number = '1'] = /^(.*)\/(\d+)$/.exec(chain) ?? [];
  return { of, number: Number(number) };
}

/** What arrived is what the last one counted. */
function joinRecords(parts: readonly PathRecord[]): PathRecord {
  const last = parts.at(-1) as PathRecord;
  const rank = ({ verdict }: PathRecord): number => verdicts.indexOf(verdict);
  const times = (key: 'firstSeen' | 'lastSeen'): string[] => parts.map((part) => part[key]).sort();
  const joined: FlowRow = {
    ...last,
    chain: parseSegment(last.chain ?? '').of,
    expected: parts.flatMap(({ expected }) => expected),
    recorded: parts.flatMap(({ recorded }) => recorded),
    recordRoute: parts.flatMap(({ recordRoute }) => recordRoute),
    verdict: verdicts[Math.max(...parts.map(rank))] ?? last.verdict,
    reasons: [...new Set(parts.flatMap(({ reasons }) => reasons))],
    firstSeen: times('firstSeen')[0] ?? last.firstSeen,
    lastSeen: times('lastSeen').at(-1) ?? last.lastSeen,
    integrity: parts.every(({ integrity }) => integrity === 'verified') ? 'verified' : 'none',
  };
  return { ...joined, id: parts.map(({ id }) => id).join('+'), explanation: explainRecord(joined) };
}
