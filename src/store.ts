import { resolve } from 'node:path';
import type { Gap, GapCause } from './gap.js';
import { findPage, type PageCost, type PathFilter, pageCost } from './path-query.js';
import { columns, toColumns, toRecord, toWay, type Way } from './path-row.js';
import type { FlowRow, PathsPage, Verdict } from './record.js';
import { type Connection, openDatabase, type Statement, storeError } from './store-file.js';
import type { Amount } from './summary.js';

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
  pageCost?: PageCost;
}

/** Opens the audit store, makes it where there is none, and moves a corrupt one aside (`movedAside`). */
export function openStore(file: string, options: StoreOptions = {}): Store {
  const path = resolve(file);
  const { connection, movedAside } = openDatabase(path);
  if (options.maxBytes !== undefined) {
    const { page_size: pageSize } = connection.prepare('PRAGMA page_size').get() as { page_size: number };
    connection.exec(`PRAGMA max_page_count = ${Math.ceil(options.maxBytes / pageSize)}`);
  }
  return new Store(path, connection, { movedAside, pageCost: options.pageCost ?? pageCost });
}

/** Path records in SQLite. Synchronous; every failure is an LsrError STORE that names file and reason. */
export class Store {
  readonly file: string;
  /** Where a corrupt file went when this store was opened, or null. */
  readonly movedAside: string | null;
  readonly #connection: Connection;
  readonly #pageCost: PageCost;
  readonly #addWay: Statement;
  readonly #upsert: Statement;
  readonly #addTotal: Statement;
  readonly #addGap: Statement;
  readonly #setMark: Statement;
  readonly #ways = new Map<number, Way>();
  readonly #wayNumbers = new Map<string, number>();

  constructor(
    file: string,
    connection: Connection,
    { movedAside, pageCost }: { movedAside: string | null; pageCost: PageCost },
  ) {
    this.file = file;
    this.#pageCost = pageCost;
    this.movedAside = movedAside;
    this.#connection = connection;
    this.#addWay = connection.prepare(
      'INSERT INTO way (chain, generation, verdict, integrity, expected) VALUES (?, ?, ?, ?, ?)',
    );
    this.#upsert = connection.prepare(upsertSql);
    this.#addTotal = connection.prepare(addTotalSql);
    this.#addGap = connection.prepare('INSERT INTO gap (cause, since, until, packets) VALUES (?, ?, ?, ?)');
    this.#setMark = connection.prepare('INSERT OR REPLACE INTO mark VALUES (1, ?, ?, ?, ?, ?)');
    this.#readWays();
  }

  /** Adds the rows' packets and bytes to their records and widens firstSeen and lastSeen. */
  write({ rows = [], gaps = [], mark }: Changes): void {
    this.#attempt('cannot be written', () => {
      this.#connection.exec('BEGIN IMMEDIATE');
      try {
        for (const row of rows) {
          const way = toWay(row);
          this.#upsert.run(...toColumns(row, way, this.#numberWay(way)));
        }
        for (const [chain, verdict, packets, bytes] of sumTotals(rows))
          this.#addTotal.run(chain, verdict, packets, bytes);
        for (const { cause, since, until, packets } of gaps)
          this.#addGap.run(cause, since && Date.parse(since), Date.parse(until), packets);
        if (mark) this.#setMark.run(mark.boot, mark.at, mark.lost, mark.table, mark.taken);
        this.#connection.exec('COMMIT');
      } catch (error) {
        // SQLite itself rolls back on a full disk.
        if (this.#connection.inTransaction) this.#connection.exec('ROLLBACK');
        this.#readWays();
        throw error;
      }
    });
  }

  /**
   * A page of records. One that is seen again between two pages may move before the first. A page may be short, or empty,
   * while there is a cursor.
   */
  queryPaths(filter: PathFilter): PathsPage {
    return this.#attempt('cannot be read', () => {
      const { rows, nextCursor } = findPage(this.#connection, this.#ways, filter, this.#pageCost);
      const records = rows.flatMap((row) => {
        const way = this.#ways.get(row.way);
        return way ? toRecord(row, way) : [];
      });
      return { records, gaps: filter.cursor === undefined ? this.queryGaps(filter) : [], nextCursor };
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

  #readWays(): void {
    this.#ways.clear();
    this.#wayNumbers.clear();
    for (const row of this.#connection.prepare('SELECT * FROM way').all() as (Way & { id: number })[]) {
      const { id, chain, generation, verdict, integrity, expected } = row;
      this.#rememberWay(id, { chain, generation, verdict, integrity, expected });
    }
  }

  #rememberWay(number: number, way: Way): void {
    this.#ways.set(number, way);
    this.#wayNumbers.set(JSON.stringify(way), number);
  }

  #numberWay(way: Way): number {
    const known = this.#wayNumbers.get(JSON.stringify(way));
    if (known !== undefined) return known;
    const { chain, generation, verdict, integrity, expected } = way;
    const { lastInsertRowid } = this.#addWay.run(chain, generation, verdict, integrity, expected);
    this.#rememberWay(Number(lastInsertRowid), way);
    return Number(lastInsertRowid);
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
  INSERT INTO record (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})
  ON CONFLICT (id) DO UPDATE SET
    packets = packets + excluded.packets,
    bytes = bytes + excluded.bytes,
    first_seen = min(first_seen, excluded.first_seen),
    last_seen = max(last_seen, excluded.last_seen)`;

const addTotalSql = `
  INSERT INTO total VALUES (?, ?, ?, ?)
  ON CONFLICT (chain, verdict) DO UPDATE SET packets = packets + excluded.packets, bytes = bytes + excluded.bytes`;
