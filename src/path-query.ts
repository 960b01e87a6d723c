import { containsAddress, type Prefix, parseAddress } from './address.js';
import { LsrError } from './errors.js';
import type { RecordColumns, Way } from './path-row.js';
import type { FlowRow, Verdict } from './record.js';
import type { Connection, Statement } from './store-file.js';

export const sortKeys = ['lastSeen', 'firstSeen', 'packets', 'bytes'] as const;
export type SortKey = (typeof sortKeys)[number];

/** What a query may ask. `until` cuts by first sight, so a flow that overlaps the span is found. */
export interface PathFilter {
  chain?: string | undefined;
  /** A node that the flow's path has, or that it went to. */
  node?: string | undefined;
  source?: Prefix | undefined;
  destination?: Prefix | undefined;
  verdict?: Verdict | undefined;
  since?: Date | undefined;
  until?: Date | undefined;
  /** Default lastSeen. */
  sort?: SortKey | undefined;
  /** Default desc. */
  order?: 'asc' | 'desc' | undefined;
  cursor?: string | undefined;
  limit: number;
}

export type WalkFilter = Omit<PathFilter, 'cursor' | 'limit' | 'sort' | 'order'>;

/** What a record must be for a stream to send it. */
export type StreamFilter = Pick<PathFilter, 'chain' | 'node' | 'source' | 'destination' | 'verdict'>;

export function fitsFilter(
  { chain, verdict, flow, expected, recorded }: FlowRow,
  filter: StreamFilter,
): boolean {
  const isWithin = (prefix: Prefix | undefined, text: string): boolean => {
    const address = parseAddress(text);
    return prefix === undefined || (address !== null && containsAddress(prefix, address));
  };
  return (
    (filter.chain ?? chain) === chain &&
    (filter.verdict ?? verdict) === verdict &&
    (filter.node === undefined || [...expected, ...recorded].some(({ node }) => node === filter.node)) &&
    isWithin(filter.source, flow.source) &&
    isWithin(filter.destination, flow.destination)
  );
}

export interface Found {
  rows: RecordColumns[];
  nextCursor: string | null;
}

/** How many rows a page may look at. */
export interface PageCost {
  /** In the wanted order. What is rarer than a page in so many comes in short pages. */
  scanned: number;
  /** In any order, to be sorted: so few have to fit one condition. */
  sorted: number;
}
export const pageCost: PageCost = { scanned: 10_000, sorted: 5_000 };

const columnOf: Record<SortKey, string> = {
  lastSeen: 'last_seen',
  firstSeen: 'first_seen',
  packets: 'packets',
  bytes: 'bytes',
};

interface Condition {
  sql: string;
  values: (string | number)[];
  /** An index that finds the rows for which it holds. */
  index?: string;
}

/** Position in an order: the sorted value, and the row's number where values are equal. */
type Place = [value: number, number: number];

/**
 * A page in bounded time, whatever is asked of however many records. Either one of the conditions holds for few rows; or rows are
 * looked at in the wanted order, and the page ends after so many of them, with a cursor where to go on.
 */
export function findPage(
  connection: Connection,
  ways: ReadonlyMap<number, Way>,
  filter: PathFilter,
  cost: PageCost,
): Found {
  const prepare = (sql: string): Statement => connection.prepare(sql);
  const { sort = 'lastSeen', order = 'desc' } = filter;
  const conditions = listConditions(filter, ways);
  if (conditions === null) return { rows: [], nextCursor: null };
  const column = columnOf[sort];
  const after = filter.cursor === undefined ? null : parseCursor(filter.cursor, sort, order);
  const driver = conditions.find((condition) => isRare(prepare, condition, cost.sorted));
  const walk = { prepare, column, order };
  const range = conditions.filter(({ index }) => index === `record_by_${column}`);
  const end = driver ? null : findEnd(walk, range, after, cost.scanned);
  const index = driver?.index ?? `record_by_${column}`;
  const wanted = filter.limit + 1;
  const rows: RecordColumns[] = [];
  for (const stretch of driver ? [boundAfter(walk, after)] : listStretches(walk, after, end)) {
    if (rows.length === wanted) break;
    const all = [...conditions, ...stretch];
    const found = prepare(
      `SELECT * FROM record INDEXED BY ${index} ${where(all)} ORDER BY ${column} ${order}, number ${order} LIMIT ?`,
    ).all(...all.flatMap(({ values }) => values), wanted - rows.length) as RecordColumns[];
    rows.push(...found);
  }
  const page = rows.slice(0, filter.limit);
  const last = page.at(-1);
  if (rows.length > page.length && last)
    return {
      rows: page,
      nextCursor: formatCursor(sort, order, [Number(last[column as keyof RecordColumns]), last.number]),
    };
  return { rows: page, nextCursor: end && formatCursor(sort, order, end) };
}

/** A step of a walk: whichever comes first. */
const walkStep = { records: 1000, numbers: 10_000 } as const;

/** Records that fit of the next numbers behind `after`, up to `last`; and how far that was. */
export function findStep(
  connection: Connection,
  ways: ReadonlyMap<number, Way>,
  filter: WalkFilter,
  after: number,
  last: number,
): { rows: RecordColumns[]; number: number } {
  const conditions = listConditions({ ...filter, limit: walkStep.records }, ways);
  if (conditions === null) return { rows: [], number: last };
  const end = Math.min(after + walkStep.numbers, last);
  const all = [...conditions, { sql: 'number > ? AND number <= ?', values: [after, end] }];
  // By an index all that fits would be sorted anew for each step.
  const sql = `SELECT * FROM record NOT INDEXED ${where(all)} ORDER BY number LIMIT ?`;
  const values = all.flatMap(({ values }) => values);
  const rows = connection.prepare(sql).all(...values, walkStep.records) as RecordColumns[];
  return { rows, number: rows.length < walkStep.records ? end : (rows.at(-1)?.number ?? end) };
}

/** null where nothing can fit. */
function listConditions(filter: PathFilter, ways: ReadonlyMap<number, Way>): Condition[] | null {
  const { chain, verdict, node, since, until } = filter;
  const conditions: Condition[] = [];
  if (chain !== undefined || verdict !== undefined) {
    const fitting = [...ways].filter(
      ([, way]) => (chain ?? way.chain) === way.chain && (verdict ?? way.verdict) === way.verdict,
    );
    if (fitting.length === 0) return null;
    conditions.push(isAmong(fitting.map(([number]) => number)));
  }
  if (node !== undefined) conditions.push(visits(node, ways));
  for (const column of ['source', 'destination'] as const) {
    const prefix = filter[column];
    if (prefix === undefined || prefix.length === 0) continue;
    const last = prefix.address + 2 ** (32 - prefix.length) - 1;
    conditions.push({
      sql: `${column} BETWEEN ? AND ?`,
      values: [prefix.address, last],
      index: `record_by_${column}`,
    });
  }
  if (since)
    conditions.push({ sql: 'last_seen >= ?', values: [since.getTime()], index: 'record_by_last_seen' });
  if (until)
    conditions.push({ sql: 'first_seen < ?', values: [until.getTime()], index: 'record_by_first_seen' });
  return conditions;
}

const isAmong = (numbers: number[]): Condition => ({
  sql: `way IN (SELECT value FROM json_each(?))`,
  values: [JSON.stringify(numbers)],
  index: 'record_by_way',
});

function visits(node: string, ways: ReadonlyMap<number, Way>): Condition {
  const named = `"node":${JSON.stringify(node)}`;
  const planned = [...ways].filter(([, { expected }]) => expected.includes(named)).map(([number]) => number);
  return {
    sql: '(way IN (SELECT value FROM json_each(?)) OR instr(recorded, ?))',
    values: [JSON.stringify(planned), named],
  };
}

function isRare(
  prepare: (sql: string) => Statement,
  { sql, values, index }: Condition,
  few: number,
): boolean {
  if (index === undefined) return false;
  const text = `SELECT count(*) AS count FROM (SELECT 1 FROM record INDEXED BY ${index} WHERE ${sql} LIMIT ?)`;
  const { count } = prepare(text).get(...values, few + 1) as { count: number };
  return count <= few;
}

/** Along an index in an order. */
interface Walk {
  prepare: (sql: string) => Statement;
  column: string;
  order: 'asc' | 'desc';
}

/** The last row that the page looks at; null where there are fewer in the range. */
function findEnd(
  walk: Walk,
  range: readonly Condition[],
  after: Place | null,
  scanned: number,
): Place | null {
  const { prepare, column, order } = walk;
  let left = scanned;
  for (const stretch of listStretches(walk, after, null)) {
    const all = [...range, ...stretch];
    const values = all.flatMap((condition) => condition.values);
    const from = `FROM record INDEXED BY record_by_${column} ${where(all)}`;
    const found = prepare(
      `SELECT ${column} AS value, number ${from} ORDER BY ${column} ${order}, number ${order} LIMIT 1 OFFSET ?`,
    ).get(...values, left - 1) as { value: number; number: number } | undefined;
    if (found) return [found.value, found.number];
    const { count } = prepare(`SELECT count(*) AS count ${from}`).get(...values) as { count: number };
    left -= count;
  }
  return null;
}

/**
 * What is behind `after`, up to and with `end`, as conditions of which the index finds each by itself. Of a comparison of
 * pairs SQLite takes the first column alone for its range, and then looks at all rows that share a value.
 */
function listStretches({ column, order }: Walk, after: Place | null, end: Place | null): Condition[][] {
  const [behind, before] = order === 'desc' ? ['<', '>'] : ['>', '<'];
  const is = (sql: string, value: number): Condition => ({ sql, values: [value] });
  const isFirst = after ? [is(`${column} = ?`, after[0]), is(`number ${behind} ?`, after[1])] : [];
  const isLast = end ? [is(`${column} = ?`, end[0]), is(`number ${before}= ?`, end[1])] : [];
  if (after && end && after[0] === end[0]) return [[...isFirst, ...isLast]];
  const between = [
    ...(after ? [is(`${column} ${behind} ?`, after[0])] : []),
    ...(end ? [is(`${column} ${before} ?`, end[0])] : []),
  ];
  return [...(after ? [isFirst] : []), between, ...(end ? [isLast] : [])];
}

const where = (conditions: readonly Condition[]): string =>
  conditions.length > 0 ? `WHERE ${conditions.map(({ sql }) => sql).join(' AND ')}` : '';

const boundAfter = ({ column, order }: Walk, after: Place | null): Condition[] =>
  after ? [{ sql: `(${column}, number) ${order === 'desc' ? '<' : '>'} (?, ?)`, values: after }] : [];

function formatCursor(sort: SortKey, order: string, [value, number]: Place): string {
  return Buffer.from(`${sort} ${order} ${value} ${number}`).toString('base64url');
}

function parseCursor(cursor: string, sort: SortKey, order: string): Place {
  const words = Buffer.from(cursor, 'base64url').toString('latin1').split(' ');
  const [value = '', number = ''] = words.slice(2);
  const isOurs = words.length === 4 && /^\d{1,16}$/.test(value) && /^\d{1,16}$/.test(number);
  if (!isOurs || !(sortKeys as readonly string[]).includes(words[0] ?? '')) {
    throw new LsrError(
      'REQUEST_INVALID',
      `cursor ${JSON.stringify(cursor)} was not made by this API: pass nextCursor of the page before as it is`,
    );
  }
  if (words[0] !== sort || words[1] !== order) {
    const made = `sort=${words[0]}&order=${words[1]}`;
    throw new LsrError(
      'REQUEST_INVALID',
      `cursor ${JSON.stringify(cursor)} is of a query with ${made}; ask with that`,
    );
  }
  return [Number(value), Number(number)];
}
