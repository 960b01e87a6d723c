import test from 'ava';
import { explainRecord } from '../../src/explanation.js';
import { joinSegments } from '../../src/join.js';
import type { FlowRow, PathRecord } from '../../src/record.js';

const chains = ['web', 'there', 'there/2', 'there/3', 'there/return', 'there/return/2'];

const record = (chain: string, nodes: string[], changes: Partial<PathRecord> = {}): PathRecord => {
  const route = nodes.map((node) => ({ node, address: '10.0.0.1' }));
  const row: FlowRow = {
    chain,
    generation: 1,
    flow: {
      source: '10.1.0.10',
      destination: '10.9.0.10',
      protocol: 6,
      sourcePort: 40000,
      destinationPort: 80,
    },
    expected: route,
    recorded: route,
    recordRoute: [],
    verdict: 'complete',
    reasons: [],
    packets: 10,
    bytes: 1000,
    firstSeen: '2026-01-01T00:00:00.000Z',
    lastSeen: '2026-01-01T00:00:10.000Z',
    integrity: 'verified',
    arrivedFrom: null,
    ...changes,
  };
  return { id: `id-${chain}`, explanation: explainRecord(row), ...row };
};

const names = (route: PathRecord['recorded']): (string | null)[] => route.map(({ node }) => node);

test('the segments of a flow become one record, with the worst verdict and what arrived at the end', (t) => {
  const joined = joinSegments(
    [
      record('there/3', ['gw'], { packets: 8, lastSeen: '2026-01-01T00:00:12.000Z' }),
      record('there', ['fw'], { firstSeen: '2025-12-31T23:59:59.000Z' }),
      record('there/2', ['ids'], {
        verdict: 'skipped',
        reasons: ['unavailable:cache'],
        integrity: 'none',
      }),
    ],
    chains,
  );
  t.is(joined.length, 1);
  t.like(joined[0], {
    chain: 'there',
    verdict: 'skipped',
    reasons: ['unavailable:cache'],
    packets: 8,
    firstSeen: '2025-12-31T23:59:59.000Z',
    lastSeen: '2026-01-01T00:00:12.000Z',
    integrity: 'none',
  });
  t.deepEqual(names(joined[0]?.recorded ?? []), ['fw', 'ids', 'gw']);
  t.deepEqual(names(joined[0]?.expected ?? []), ['fw', 'ids', 'gw']);
});

const other = { ...record('there', []).flow, sourcePort: 40001 };
const untouched: Record<string, PathRecord[]> = {
  'a segment without a record': [record('there', ['fw']), record('there/3', ['gw'])],
  'two records of one segment': [
    record('there', ['fw']),
    record('there/2', ['ids']),
    record('there/2', ['ids2']),
    record('there/3', ['gw']),
  ],
  'segments of different flows': [
    record('there', ['fw']),
    record('there/2', ['ids'], { flow: other }),
    record('there/3', ['gw']),
  ],
  'a chain of one segment': [record('web', ['gw'])],
  'another chain of the same document name': [record('there', ['fw']), record('there/return/2', ['edge'])],
  'a chain that nobody knows': [record('gone', ['fw'])],
  'a route that is of no chain': [record('there', ['fw'], { chain: null })],
};

for (const [title, records] of Object.entries(untouched)) {
  test(`not joined: ${title}`, (t) => {
    const byId = (a: PathRecord, b: PathRecord): number => a.id.localeCompare(b.id);
    t.deepEqual(joinSegments(records, chains).sort(byId), records.sort(byId));
  });
}
