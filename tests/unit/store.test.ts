import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import Database from 'libsql';
import { containsAddress, parseAddress, parsePrefix } from '../../src/address.js';
import { LsrError } from '../../src/errors.js';
import { explainRecord } from '../../src/explanation.js';
import type { Gap, GapCause } from '../../src/gap.js';
import { type PathFilter, sortKeys } from '../../src/path-query.js';
import type { FlowRow, PathRecord } from '../../src/record.js';
import { openStore, type Store } from '../../src/store.js';
import { migrations } from '../../src/store-file.js';
import { verdicts } from '../../src/verdict.js';
import { flowRow } from '../helpers/fake-agent.js';

const folder = mkdtempSync(join(tmpdir(), 'lsr-store-'));
let files = 0;
const newFile = (): string => {
  files += 1;
  return join(folder, `${files}.db`);
};
test.after.always(() => rmSync(folder, { recursive: true, force: true }));

const prefix = (text: string) => parsePrefix(text) ?? undefined;
const ports = (store: Store, filter: Partial<PathFilter> = {}) =>
  store.queryPaths({ limit: 1000, ...filter }).records.map(({ flow }) => flow.sourcePort);

test('a record comes back as it was written, with an id', (t) => {
  const store = openStore(newFile());
  const row = flowRow({
    flow: { source: '255.255.255.254', sourcePort: null },
    chain: null,
    reasons: ['a', 'b'],
  });
  store.write({ rows: [row] });
  const { records, nextCursor } = store.queryPaths({ limit: 10 });
  t.is(nextCursor, null);
  t.regex(records[0]?.id ?? '', /^[0-9a-f]{24}$/);
  t.deepEqual(records, [{ id: records[0]?.id ?? '', ...row, explanation: explainRecord(row) }]);
  store.close();
});

test('rows of the same flow, path and verdict add up and widen the time', (t) => {
  const store = openStore(newFile());
  store.write({
    rows: [
      flowRow({
        packets: 1,
        bytes: 100,
        firstSeen: '2025-01-01T00:00:05.000Z',
        lastSeen: '2025-01-01T00:00:06.000Z',
      }),
      flowRow({
        packets: 2,
        bytes: 50,
        firstSeen: '2025-01-01T00:00:01.000Z',
        lastSeen: '2025-01-01T00:00:02.000Z',
      }),
    ],
  });
  store.write({
    rows: [
      flowRow({
        packets: 4,
        bytes: 7,
        firstSeen: '2025-01-01T00:00:07.000Z',
        lastSeen: '2025-01-01T00:00:08.000Z',
      }),
    ],
  });
  const [record, ...others] = store.queryPaths({ limit: 10 }).records;
  t.like(record, {
    packets: 7,
    bytes: 157,
    firstSeen: '2025-01-01T00:00:01.000Z',
    lastSeen: '2025-01-01T00:00:08.000Z',
  });
  t.deepEqual(others, []);
  store.close();
});

const differences: [string, Partial<FlowRow>][] = [
  ['chain', { chain: 'other' }],
  ['no chain', { chain: null }],
  ['generation', { generation: 2 }],
  ['verdict', { verdict: 'forged' }],
  ['reasons', { reasons: ['x'] }],
  ['Record Route', { recordRoute: [] }],
  ['recorded way', { recorded: [] }],
  ['flow', { flow: { ...flowRow().flow, sourcePort: null } }],
];
for (const [name, change] of differences) {
  test(`rows that differ in ${name} are two records`, (t) => {
    const store = openStore(newFile());
    store.write({ rows: [flowRow(), flowRow(change)] });
    t.is(store.queryPaths({ limit: 10 }).records.length, 2);
    store.close();
  });
}

const filters: [string, Partial<PathFilter>, number[]][] = [
  ['nothing', {}, [4, 3, 2, 1]],
  ['a chain', { chain: 'web' }, [3, 1]],
  ['a chain that never was', { chain: 'none' }, []],
  ['a verdict', { verdict: 'detour' }, [4]],
  ['a source address', { source: prefix('10.1.0.1') }, [1]],
  ['a source prefix', { source: prefix('10.1.0.0/24') }, [2, 1]],
  ['the prefix of everything', { source: prefix('0.0.0.0/0') }, [4, 3, 2, 1]],
  ['the highest prefix', { source: prefix('255.0.0.0/8') }, [4]],
  ['a destination prefix', { destination: prefix('10.9.0.0/16') }, [4, 1]],
  ['since, inclusive', { since: new Date('2025-01-01T00:00:30Z') }, [4, 3]],
  ['until, by first sight, exclusive', { until: new Date('2025-01-01T00:00:02Z') }, [1]],
  ['a span', { since: new Date('2025-01-01T00:00:20Z'), until: new Date('2025-01-01T00:00:03Z') }, [2]],
  [
    'all at once',
    { chain: 'web', source: prefix('10.1.0.0/24'), destination: prefix('10.9.0.1'), verdict: 'complete' },
    [1],
  ],
];
for (const [name, filter, expected] of filters) {
  test(`a query by ${name} finds exactly the records that fit, newest first`, (t) => {
    const store = openStore(newFile());
    store.write({
      rows: [
        row(1, 'web', '10.1.0.1', '10.9.0.1', 'complete'),
        row(2, 'dns', '10.1.0.255', '10.8.0.1', 'complete'),
        row(3, 'web', '10.1.1.0', '10.8.255.255', 'skipped'),
        row(4, null, '255.255.255.255', '10.9.255.255', 'detour'),
      ],
    });
    t.deepEqual(ports(store, filter), expected);
    store.close();
  });
}

function row(
  port: number,
  chain: string | null,
  source: string,
  destination: string,
  verdict: FlowRow['verdict'],
) {
  const firstSeen = `2025-01-01T00:00:0${port}.000Z`;
  const lastSeen = `2025-01-01T00:00:${port}0.000Z`;
  return flowRow({ chain, verdict, firstSeen, lastSeen, flow: { source, destination, sourcePort: port } });
}

test('pages visit each record once in the order of the whole list, also where times are equal', (t) => {
  const store = openStore(newFile());
  const times = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 40 });
  let run = 0;
  fc.assert(
    fc.property(
      times,
      fc.integer({ min: 1, max: 7 }),
      fc.constantFrom(...verdicts),
      (seconds, limit, verdict) => {
        run += 1;
        const chain = `run${run}`;
        const lastSeen = (second: number) => `2025-01-01T00:00:0${second}.000Z`;
        store.write({
          rows: seconds.map((s, n) =>
            flowRow({ chain, verdict, lastSeen: lastSeen(s), flow: { sourcePort: n } }),
          ),
        });
        const whole = ports(store, { chain, verdict });
        t.is(whole.length, seconds.length);
        const paged: typeof whole = [];
        let cursor: string | undefined;
        do {
          const page = store.queryPaths({ chain, limit, cursor });
          paged.push(...page.records.map(({ flow }) => flow.sourcePort));
          cursor = page.nextCursor ?? undefined;
        } while (cursor !== undefined);
        t.deepEqual(paged, whole);
        t.deepEqual(
          whole.map((n) => seconds[n as number]),
          [...seconds].sort((a, b) => b - a),
        );
      },
    ),
    { numRuns: 50 },
  );
  store.close();
});

/** What a query must find, by looking at every record. */
function select(records: readonly PathRecord[], filter: Omit<PathFilter, 'limit'>): string[] {
  const { chain, verdict, node, source, since, until, sort = 'lastSeen', order = 'desc' } = filter;
  const sign = order === 'asc' ? 1 : -1;
  const sortedBy = (record: PathRecord): number =>
    sort === 'packets' || sort === 'bytes' ? record[sort] : Date.parse(record[sort]);
  return records
    .filter(
      (record) =>
        (chain ?? record.chain) === record.chain &&
        (verdict ?? record.verdict) === record.verdict &&
        (!node || [...record.expected, ...record.recorded].some((entry) => entry.node === node)) &&
        (!source || containsAddress(source, parseAddress(record.flow.source) ?? 0)) &&
        (!since || Date.parse(record.lastSeen) >= since.getTime()) &&
        (!until || Date.parse(record.firstSeen) < until.getTime()),
    )
    .sort((a, b) => sign * (sortedBy(a) - sortedBy(b)))
    .map(({ id }) => id);
}

test('pages of each query and order hold what fits, once each, whatever a page may cost', (t) => {
  const time = (n: number): string => new Date(Date.UTC(2025, 0, 1) + n * 1000).toISOString();
  const hop = (node: string) => ({ node, address: '10.0.0.9' });
  const some = <T>(...values: T[]) => fc.option(fc.constantFrom(...values), { nil: undefined });
  const record = fc.record({
    chain: fc.constantFrom('web', 'dns', null),
    verdict: fc.constantFrom(...verdicts),
    at: fc.integer({ min: 0, max: 30 }),
    lasting: fc.integer({ min: 0, max: 5 }),
    packets: fc.integer({ min: 1, max: 9 }),
    nodes: fc.uniqueArray(fc.constantFrom('fw', 'ids', 'gw'), { minLength: 1 }),
    wentTo: some('fw', 'spare'),
    source: fc.constantFrom('10.1.0.1', '10.1.0.2', '10.2.0.1'),
  });
  const filter = fc.record({
    chain: some('web', 'dns', 'none'),
    verdict: some(...verdicts),
    node: some('fw', 'spare', 'nobody'),
    source: some(...['10.1.0.0/24', '10.2.0.1', '0.0.0.0/0'].map(prefix)),
    since: some(new Date(time(10)), new Date(time(20))),
    until: some(new Date(time(15))),
    sort: some(...sortKeys),
    order: some('asc' as const, 'desc' as const),
  });
  const cost = fc.record({ scanned: fc.integer({ min: 1, max: 9 }), sorted: fc.constantFrom(0, 3, 1000) });
  const property = fc.property(
    fc.array(record, { maxLength: 40 }),
    fc.array(filter, { minLength: 1, maxLength: 6 }),
    cost,
    fc.integer({ min: 1, max: 7 }),
    (drawn, filters, pageCost, limit) => {
      const store = openStore(newFile(), { pageCost });
      const rows = drawn.map(({ chain, verdict, at, lasting, packets, nodes, wentTo, source }, n) =>
        flowRow({
          ...{ chain, verdict, packets, bytes: packets * 7 },
          ...{ firstSeen: time(at), lastSeen: time(at + lasting) },
          expected: nodes.map(hop),
          recorded: wentTo === undefined ? nodes.map(hop) : [hop(wentTo)],
          flow: { source, sourcePort: n },
        }),
      );
      store.write({ rows });
      const all = collect(store, {}, 1000);
      t.is(all.length, drawn.length);
      for (const asked of filters) {
        const found = collect(store, asked, limit).map(({ id }) => id);
        const wanted = select(all, asked);
        const by = new Map(all.map((one) => [one.id, one]));
        const { sort = 'lastSeen' } = asked;
        t.deepEqual([...found].sort(), [...wanted].sort());
        t.deepEqual(
          found.map((id) => by.get(id)?.[sort]),
          wanted.map((id) => by.get(id)?.[sort]),
        );
      }
      store.close();
    },
  );
  fc.assert(property, { numRuns: 150 });
});

function collect(store: Store, filter: Omit<PathFilter, 'limit'>, limit: number): PathRecord[] {
  const records: PathRecord[] = [];
  let cursor: string | undefined;
  do {
    const page = store.queryPaths({ ...filter, limit, cursor });
    records.push(...page.records);
    cursor = page.nextCursor ?? undefined;
  } while (cursor !== undefined);
  return records;
}

const badCursors = [
  '',
  'x',
  '!!!!',
  'MTIz',
  Buffer.from("1.' OR 1=1 --").toString('base64url'),
  '0'.repeat(200),
];
for (const cursor of badCursors) {
  test(`the cursor ${JSON.stringify(cursor.slice(0, 20))} is refused`, (t) => {
    const store = openStore(newFile());
    const error = t.throws(() => store.queryPaths({ limit: 1, cursor }), { instanceOf: LsrError });
    t.is(error?.code, 'REQUEST_INVALID');
    t.regex(error?.message ?? '', /nextCursor/);
    store.close();
  });
}

test('records survive a restart and keep their id', (t) => {
  const file = newFile();
  const first = openStore(file);
  first.write({ rows: [flowRow()] });
  const before = first.queryPaths({ limit: 1 }).records[0];
  first.close();
  first.close();
  const second = openStore(file);
  t.is(second.movedAside, null);
  second.write({ rows: [flowRow()] });
  t.like(second.queryPaths({ limit: 2 }).records[0], { id: before?.id, packets: 6 });
  second.close();
  t.is(statSync(file).mode & 0o777, 0o640 & ~process.umask());
});

test('a full disk refuses the whole batch, says so, and keeps what was there', (t) => {
  const file = newFile();
  const store = openStore(file, { maxBytes: 96 * 1024 });
  store.write({ rows: [flowRow()] });
  const batch = Array.from({ length: 2000 }, (_, n) => flowRow({ flow: { sourcePort: n } }));
  const error = t.throws(() => store.write({ rows: batch }), { instanceOf: LsrError });
  t.is(error?.code, 'STORE');
  t.is(error?.message, `the audit store ${file} cannot be written: the disk is full`);
  t.deepEqual(ports(store), [40000]);
  store.write({ rows: [flowRow()] });
  t.is(store.queryPaths({ limit: 2 }).records[0]?.packets, 6);
  store.close();
});

test('rows, gaps and the mark of what was taken change together or not at all', (t) => {
  const file = newFile();
  const store = openStore(file, { maxBytes: 96 * 1024 });
  const mark = (at: number) => ({ boot: 'b', at, lost: 3, table: 7, taken: Buffer.from('ff00aa', 'hex') });
  const gap: Gap = {
    cause: 'table_full',
    since: '2025-01-01T00:00:00.000Z',
    until: '2025-01-01T00:00:05.000Z',
    packets: 3,
  };
  t.is(store.readMark(), null);
  store.write({ rows: [flowRow()], gaps: [gap], mark: mark(1) });
  const batch = Array.from({ length: 2000 }, (_, n) => flowRow({ flow: { sourcePort: n } }));
  t.throws(() => store.write({ rows: batch, gaps: [gap], mark: mark(2) }), { code: 'STORE' });
  store.close();
  const again = openStore(file);
  t.deepEqual(again.readMark(), mark(1));
  t.deepEqual(again.queryGaps({ limit: 10 }), [gap]);
  t.deepEqual(again.sumTraffic(), new Map([['web', { complete: { packets: 3, bytes: flowRow().bytes } }]]));
  again.close();
});

test('a query of gaps finds those that overlap its span, newest first', (t) => {
  const store = openStore(newFile());
  const gap = (cause: GapCause, since: number | null, until: number): Gap => ({
    cause,
    since: since === null ? null : `2025-01-01T00:00:0${since}.000Z`,
    until: `2025-01-01T00:00:0${until}.000Z`,
    packets: null,
  });
  const all = [gap('store_corrupt', null, 1), gap('reboot', 2, 4), gap('unloaded', 5, 6)];
  store.write({ gaps: all });
  const find = (since: number, until: number) =>
    store
      .queryGaps({
        since: new Date(`2025-01-01T00:00:0${since}Z`),
        until: new Date(`2025-01-01T00:00:0${until}Z`),
        limit: 10,
      })
      .map(({ cause }) => cause);
  t.deepEqual(store.queryGaps({ limit: 10 }), all.toReversed());
  t.deepEqual(find(0, 1), ['store_corrupt']);
  t.deepEqual(find(3, 5), ['reboot']);
  t.deepEqual(find(4, 9), ['unloaded', 'reboot']);
  store.close();
});

test('packets and bytes are summed by chain and verdict over all records', (t) => {
  const store = openStore(newFile());
  const { bytes } = flowRow();
  store.write({
    rows: [
      flowRow(),
      flowRow({ verdict: 'detour' }),
      flowRow({ chain: 'dns', packets: 5 }),
      flowRow({ chain: null }),
    ],
  });
  store.write({ rows: [flowRow({ packets: 10 })] });
  t.deepEqual(
    store.sumTraffic(),
    new Map([
      ['dns', { complete: { packets: 5, bytes } }],
      ['web', { complete: { packets: 13, bytes: 2 * bytes }, detour: { packets: 3, bytes } }],
    ]),
  );
  store.close();
});

const day = 86_400_000;
const at = (n: number): string => new Date(n).toISOString();

test('records go by age, the oldest first, and totals stay', (t) => {
  const store = openStore(newFile());
  const now = Date.parse('2025-03-01T00:00:00Z');
  const aged = [40, 31, 29, 0].map((days, n) =>
    flowRow({ ...{ firstSeen: at(0), lastSeen: at(now - days * day) }, flow: { sourcePort: n } }),
  );
  store.write({ rows: aged });
  const retention = { days: 30, megabytes: 1000 };
  t.is(store.prune(retention, now), 2);
  t.is(store.prune(retention, now), 0);
  t.deepEqual(ports(store), [3, 2]);
  t.is(store.sumTraffic().get('web')?.complete?.packets, 12);
  store.close();
});

test('a clock that is set forward by a year makes no record go before its time', (t) => {
  const store = openStore(newFile());
  const now = Date.parse('2025-03-01T00:00:00Z');
  store.write({ rows: [flowRow({ lastSeen: at(now - 29 * day) })] });
  store.noteClockStep(now + 365 * day, 365 * day);
  const retention = { days: 30, megabytes: 1000 };
  t.is(store.prune(retention, now + 365.5 * day), 0);
  t.is(store.prune(retention, now + 366.5 * day), 1);
  store.close();
});

test('records go by size, the oldest first, and the file becomes smaller', (t) => {
  const file = newFile();
  const store = openStore(file);
  const rows = Array.from({ length: 8000 }, (_, n) =>
    flowRow({ lastSeen: at(1e12 + n * 1000), flow: { sourcePort: n } }),
  );
  store.write({ rows });
  const before = store.bytes;
  const megabytes = before / 2e6;
  let removed = 0;
  for (let more = -1; more !== 0; removed += more)
    more = store.prune({ days: 36_500, megabytes }, 1e12 + 1e8);
  t.true(store.bytes <= megabytes * 1e6);
  t.true(removed > 3000 && removed < 6000, `${removed} removed`);
  const left = collect(store, {}, 1000).map(({ flow }) => flow.sourcePort ?? 0);
  t.is(left.length, 8000 - removed);
  t.is(Math.min(...left), removed);
  store.close();
  t.true(statSync(file).size < before * 0.7);
});

const damages: [string, (file: string) => void][] = [
  ['is no database', (file) => writeFileSync(file, 'not a database at all '.repeat(500))],
  ['lost its middle', (file) => overwrite(file, 4096, 12 * 4096)],
  ['is cut short', (file) => writeFileSync(file, readFileSync(file).subarray(0, 5000))],
];
for (const [name, damage] of damages) {
  test(`a store that ${name} is moved aside and begun anew`, (t) => {
    const file = newFile();
    const old = openStore(file);
    old.write({ rows: Array.from({ length: 500 }, (_, n) => flowRow({ flow: { sourcePort: n } })) });
    old.close();
    damage(file);
    const damaged = readFileSync(file);
    const store = openStore(file);
    t.regex(store.movedAside ?? '', new RegExp(`^${file}\\.corrupt-\\d{8}T\\d{6}Z$`));
    t.deepEqual(readFileSync(store.movedAside as string), damaged);
    t.deepEqual(ports(store), []);
    t.like(store.queryGaps({ limit: 10 }), [{ cause: 'store_corrupt', since: null, packets: null }]);
    store.write({ rows: [flowRow()] });
    store.close();
    const again = openStore(file);
    t.is(again.movedAside, null);
    t.deepEqual(ports(again), [40000]);
    again.close();
  });
}

test('a store whose damage is met later is moved aside then, and begun anew', (t) => {
  const file = newFile();
  const old = openStore(file);
  old.write({ rows: Array.from({ length: 500 }, (_, n) => flowRow({ flow: { sourcePort: n } })) });
  old.close();
  overwrite(file, 12 * 4096, statSync(file).size);
  const store = openStore(file, { checkedBytes: 0 });
  t.is(store.movedAside, null);
  const row = flowRow({ flow: { sourcePort: 7 } });
  const error = t.throws(() => store.write({ rows: [row] }), { code: 'STORE' });
  t.regex(error?.message ?? '', /cannot be written: .*corrupt; it is moved aside/);
  t.regex(store.movedAside ?? '', /corrupt-/);
  store.write({ rows: [row] });
  t.deepEqual(ports(store), [7]);
  t.like(store.queryGaps({ limit: 10 }), [{ cause: 'store_corrupt', since: null, packets: null }]);
  store.close();
});

function overwrite(file: string, from: number, to: number): void {
  const bytes = readFileSync(file);
  bytes.fill(0xa5, from, to);
  writeFileSync(file, bytes);
}

const refusals: [string, (file: string) => string, RegExp][] = [
  ['lies under a file', makeUnderFile, /cannot be written: .*not a directory/],
  ['is a directory', makeFolder, /cannot be written: it is not a regular file/],
  ['lies where nothing can be written', () => '/proc/lsr-agent/a.db', /cannot be written: ENOENT/],
  ['belongs to another program', makeForeign, /is a database of another program; name another file/],
  ['was written by a newer lsr-agent', makeNewer, /has schema version 99, this lsr-agent knows up to 3/],
];
for (const [name, prepare, message] of refusals) {
  test(`a store that ${name} is refused and left as it is`, (t) => {
    const file = prepare(newFile());
    const before = readdirSync(folder).filter((entry) => entry.includes('corrupt'));
    const error = t.throws(() => openStore(file), { instanceOf: LsrError });
    t.is(error?.code, 'STORE');
    t.regex(error?.message ?? '', message);
    t.true(error?.message.includes(file));
    t.deepEqual(
      readdirSync(folder).filter((entry) => entry.includes('corrupt')),
      before,
    );
  });
}

for (const version of [1, 2]) {
  test(`a store of schema version ${version} is brought up to date, with all that is in it`, (t) => {
    const file = newFile();
    const old = new Database(file);
    for (const migration of migrations.slice(0, version)) old.exec(migration);
    old.exec(`PRAGMA application_id = ${0x4c535241}; PRAGMA user_version = ${version};`);
    const rows = [
      flowRow({ lastSeen: '2025-01-01T00:00:09.000Z' }),
      flowRow({
        chain: null,
        verdict: 'forged',
        reasons: ['unknown_path'],
        recorded: [{ node: null, address: '192.0.2.1' }],
        expected: [],
        lastSeen: '2025-01-01T00:00:08.000Z',
      }),
    ];
    const insert = old.prepare(`INSERT INTO path VALUES (${Array(18).fill('?').join(', ')})`);
    for (const [index, row] of rows.entries()) {
      const { flow } = row;
      const ends = [parsePrefix(flow.source)?.address, parsePrefix(flow.destination)?.address];
      insert.run(
        `id-${index}`,
        ...[row.chain, row.generation, ...ends, flow.protocol, flow.sourcePort, flow.destinationPort],
        ...[row.expected, row.recorded, row.recordRoute].map((list) => JSON.stringify(list)),
        ...[row.verdict, JSON.stringify(row.reasons), row.packets, row.bytes],
        ...[Date.parse(row.firstSeen), Date.parse(row.lastSeen), row.integrity],
      );
    }
    if (version > 1) old.exec("INSERT INTO total VALUES ('web', 'complete', 3, 300)");
    old.close();
    const store = openStore(file);
    const { records } = store.queryPaths({ limit: 10 });
    t.deepEqual(
      records.map(({ id: _, explanation: __, ...row }) => row),
      rows,
    );
    t.deepEqual(store.sumTraffic(), new Map([['web', { complete: { packets: 3, bytes: 300 } }]]));
    store.close();
  });
}

function makeUnderFile(file: string): string {
  writeFileSync(file, '');
  return join(file, 'a.db');
}

function makeFolder(file: string): string {
  mkdirSync(file);
  return file;
}

function makeForeign(file: string): string {
  const database = new Database(file);
  database.exec('CREATE TABLE song (title TEXT)');
  database.close();
  return file;
}

function makeNewer(file: string): string {
  openStore(file).close();
  const database = new Database(file);
  database.exec('PRAGMA user_version = 99');
  database.close();
  return file;
}
