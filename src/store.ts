import { resolve } from 'node:path';
import type { Prefix } from './address.js';
import { LsrError } from './errors.js';
import type { Gap, GapCause } from './gap.js';
import { columns, type PathColumns, toColumns, toRecord } from './path-row.js';
import type { FlowRow, PathsPage, Verdict } from './record.js';
import { type Connection, openDatabase, type Statement, storeError } from './store-file.js';
import type { Amount } from './summary.js';

/** What a query may ask; all of it is answered in SQL. `until` cuts by first sight, so a flow that overlaps the span is found. */
export interface PathFilter {
  chain?: string | undefined;
  source?: Prefix | undefined;
  destination?: Prefix | undefined;
  verdict?: Verdict | undefined;
  since?: Date | undefined;
  until?: Date | undefined;
  cursor?: string | undefined;
  limit: number;
}

/** How far the kernel's tables are carried over. */
export interface Mark {
  /** As readBoot() has it. */
  boot: string;
  /** When all that had been counted was in the store, ms since 1970. */
  at: number;
  /** Packets without a record that are told of in a gap, since the tables were made. */
  lost: number;
  /** The kernel's number of the table that entries were last taken from; 0 for none. */
  table: number;
  /** Their keys, each with its firstSeen: in the store, and perhaps still in the table. */
  taken: Buffer;
}

/** What goes into the store at once: all of it or, on an error, nothing. */
export interface Changes {
  rows?: readonly FlowRow[];
  gaps?: readonly Gap[];
  mark?: Mark;
}

export interface StoreOptions {
  /** Upper bound of the database file; beyond it writing fails as on a full disk. */
  maxBytes?: number;
}

/** Opens the audit store, makes it where there is none, and moves a corrupt one aside (`movedAside`). */
export function openStore(file: string, options: StoreOptions = {}): Store {
  const path = resolve(file);
  const { connection, movedAside } = openDatabase(path);
  if (options.maxBytes !== undefined) {
    const { page_size: pageSize } = connection.prepare('PRAGMA page_size').get() as { page_size: number };
    connection.exec(`PRAGMA max_page_count = ${Math.ceil(options.maxBytes / pageSize)}`);
  }
  return new Store(path, connection, movedAside);
}

/** Path records in SQLite. Synchronous; every failure is an LsrError STORE that names file and reason. */
export class Store {
  readonly file: string;
  /** Where a corrupt file went when this store was opened, or null. */
  readonly movedAside: string | null;
  readonly #connection: Connection;
  readonly #upsert: Statement;
  readonly #addTotal: Statement;
  readonly #addGap: Statement;
  readonly #setMark: Statement;
  readonly #queries = new Map<string, Statement>();

  constructor(file: string, connection: Connection, movedAside: string | null) {
    this.file = file;
    this.movedAside = movedAside;
    this.#connection = connection;
    this.#upsert = connection.prepare(upsertSql);
    this.#addTotal = connection.prepare(addTotalSql);
    this.#addGap = connection.prepare('INSERT INTO gap (cause, since, until, packets) VALUES (?, ?, ?, ?)');
    this.#setMark = connection.prepare('INSERT OR REPLACE INTO mark VALUES (1, ?, ?, ?, ?, ?)');
  }

  /** Adds the rows' packets and bytes to their records and widens firstSeen and lastSeen. */
  write({ rows = [], gaps = [], mark }: Changes): void {
    this.#attempt('cannot be written', () => {
      const values = rows.map(toColumns);
      this.#connection.exec('BEGIN IMMEDIATE');
      try {
        for (const row of values) this.#upsert.run(...row);
        for (const [chain, verdict, packets, bytes] of sumTotals(rows))
          this.#addTotal.run(chain, verdict, packets, bytes);
        for (const { cause, since, until, packets } of gaps)
          this.#addGap.run(cause, since && Date.parse(since), Date.parse(until), packets);
        if (mark) this.#setMark.run(mark.boot, mark.at, mark.lost, mark.table, mark.taken);
        this.#connection.exec('COMMIT');
      } catch (error) {
        // SQLite itself rolls back on a full disk.
        if (this.#connection.inTransaction) this.#connection.exec('ROLLBACK');
        throw error;
      }
    });
  }

  /** A page of records, newest lastSeen first. A record that is seen again between two pages moves before the first. */
  queryPaths(filter: PathFilter): PathsPage {
    const { where, values } = toConditions(filter);
    const sql = `SELECT * FROM path ${where} ORDER BY last_seen DESC, id DESC LIMIT ?`;
    return this.#attempt('cannot be read', () => {
      const statement = this.#queries.get(sql) ?? this.#connection.prepare(sql);
      this.#queries.set(sql, statement);
      const rows = statement.all(...values, filter.limit + 1) as PathColumns[];
      const page = rows.slice(0, filter.limit);
      const last = page.at(-1);
      const nextCursor = rows.length > page.length && last ? formatCursor(last) : null;
      const gaps = filter.cursor === undefined ? this.queryGaps(filter) : [];
      return { records: page.map(toRecord), gaps, nextCursor };
    });
  }

  readMark(): Mark | null {
    return this.#attempt('cannot be read', () => {
      const sql = 'SELECT boot, at, lost, kernel_table AS "table", taken FROM mark';
      const mark = this.#connection.prepare(sql).get() as Mark | undefined;
      if (!mark) return null;
      const { boot, at, lost, table, taken } = mark;
      return { boot, at, lost, table, taken: Buffer.from(taken) };
    });
  }

  /** Newest first. */
  queryGaps({ since, until, limit }: Pick<PathFilter, 'since' | 'until' | 'limit'>): Gap[] {
    const sql = 'SELECT * FROM gap WHERE until >= ? AND coalesce(since, 0) < ? ORDER BY until DESC LIMIT ?';
    return this.#attempt('cannot be read', () => {
      const span = [since?.getTime() ?? 0, until?.getTime() ?? Number.MAX_SAFE_INTEGER];
      const rows = this.#connection.prepare(sql).all(...span, limit) as GapColumns[];
      return rows.map((row) => ({
        cause: row.cause,
        since: row.since === null ? null : new Date(row.since).toISOString(),
        until: new Date(row.until).toISOString(),
        packets: row.packets,
      }));
    });
  }

  /** Packets and bytes of all records there ever were, by chain and verdict. */
  sumTraffic(): Map<string, Record<string, Amount>> {
    return this.#attempt('cannot be read', () => {
      const rows = this.#connection.prepare('SELECT * FROM total ORDER BY chain, verdict').all();
      const sums = new Map<string, Record<string, Amount>>();
      for (const { chain, verdict, ...amount } of rows as (Amount & { chain: string; verdict: string })[])
        sums.set(chain, { ...sums.get(chain), [verdict]: amount });
      return sums;
    });
  }

  close(): void {
    if (!this.#connection.open) return;
    this.#attempt('cannot be closed', () => {
      try {
        this.#connection.prepare('PRAGMA wal_checkpoint(TRUNCATE)').all();
      } finally {
        this.#connection.close();
      }
    });
  }

  #attempt<T>(what: string, action: () => T): T {
    try {
      return action();
    } catch (error) {
      throw storeError(this.file, what, error);
    }
  }
}

interface GapColumns {
  cause: GapCause;
  since: number | null;
  until: number;
  packets: number | null;
}

function sumTotals(rows: readonly FlowRow[]): [string, Verdict, number, number][] {
  const sums = new Map<string, [string, Verdict, number, number]>();
  for (const { chain, verdict, packets, bytes } of rows) {
    if (chain === null) continue;
    const [, , more, moreBytes] = sums.get(`${verdict} ${chain}`) ?? [chain, verdict, 0, 0];
    sums.set(`${verdict} ${chain}`, [chain, verdict, more + packets, moreBytes + bytes]);
  }
  return [...sums.values()];
}

const upsertSql = `
  INSERT INTO path (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})
  ON CONFLICT (id) DO UPDATE SET
    packets = packets + excluded.packets,
    bytes = bytes + excluded.bytes,
    first_seen = min(first_seen, excluded.first_seen),
    last_seen = max(last_seen, excluded.last_seen)`;

const addTotalSql = `
  INSERT INTO total VALUES (?, ?, ?, ?)
  ON CONFLICT (chain, verdict) DO UPDATE SET packets = packets + excluded.packets, bytes = bytes + excluded.bytes`;

function toConditions(filter: PathFilter): { where: string; values: (string | number)[] } {
  const conditions: string[] = [];
  const values: (string | number)[] = [];
  const add = (condition: string, ...bound: (string | number)[]): void => {
    conditions.push(condition);
    values.push(...bound);
  };
  if (filter.chain !== undefined) add('chain = ?', filter.chain);
  if (filter.verdict !== undefined) add('verdict = ?', filter.verdict);
  for (const column of ['source', 'destination'] as const) {
    const prefix = filter[column];
    if (prefix === undefined) continue;
    // Equality lets the index give the order too; a range cannot.
    if (prefix.length === 32) add(`${column} = ?`, prefix.address);
    else add(`${column} BETWEEN ? AND ?`, prefix.address, prefix.address + 2 ** (32 - prefix.length) - 1);
  }
  if (filter.since) add('last_seen >= ?', filter.since.getTime());
  if (filter.until) add('first_seen < ?', filter.until.getTime());
  if (filter.cursor !== undefined) add('(last_seen, id) < (?, ?)', ...parseCursor(filter.cursor));
  return { where: conditions.length > 0 ? `WHERE ${conditions.join(' AND ')}` : '', values };
}

function formatCursor(row: PathColumns): string {
  return Buffer.from(`${row.last_seen}.${row.id}`).toString('base64url');
}

function parseCursor(cursor: string): [number, string] {
  const match = /^(\d{1,16})\.([0-9a-f]{24})$/.exec(Buffer.from(cursor, 'base64url').toString('latin1'));
  if (!match) {
    throw new LsrError(
      'REQUEST_INVALID',
      `cursor ${JSON.stringify(cursor)} was not made by this API: pass nextCursor of the page before as it is`,
    );
  }
  return [Number(match[1]), match[2] as string];
}
