import { resolve } from 'node:path';
import type { Gap, GapCause } from './gap.js';
import {
  findPage,
  findStep,
  type PageCost,
  type PathFilter,
  pageCost,
  type WalkFilter,
} from './path-query.js';
import { columns, type RecordColumns, toColumns, toRecord, toWay } from './path-row.js';
import type { FlowRow, PathRecord, PathsPage, Verdict } from './record.js';
import type { Retention } from './retention.js';
import { type Connection, isCorrupt, moveAside, openDatabase, storeError } from './store-file.js';
import type { Amount } from './summary.js';
import { WayTable } from './way-table.js';

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

/** A record that was made or has become more, and what came of it. */
export interface Written {
  id: string;
  row: FlowRow;
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
  /** Size up to which a file is checked as a whole when it is opened. */
  checkedBytes?: number;
}

/** Opens the audit store, makes it where there is none, and moves a corrupt one aside (`movedAside`). */
export function openStore(file: string, options: StoreOptions = {}): Store {
  return new Store(resolve(file), options);
}

/** Path records in SQLite. Synchronous; every failure is an LsrError STORE that names file and reason. */
export class Store {
  readonly file: string;
  readonly #options: StoreOptions;
  #movedAside: string | null = null;
  #database: Prepared;
  readonly #listeners = new Set<(written: readonly Written[]) => void>();

  constructor(file: string, options: StoreOptions) {
    this.file = file;
    this.#options = options;
    this.#database = this.#open();
  }

  /** Where a corrupt file went, when this store was opened or later; or null. */
  get movedAside(): string | null {
    return this.#movedAside;
  }

  /** Adds the rows' packets and bytes to their records and widens firstSeen and lastSeen. */
  write({ rows = [], gaps = [], mark }: Changes): void {
    const ids: string[] = [];
    this.#attempt('cannot be written', ({ connection, ways, upsert, addTotal, addGap, setMark }) => {
      connection.exec('BEGIN IMMEDIATE');
      try {
        for (const row of rows) {
          const way = toWay(row);
          const [id, ...values] = toColumns(row, way, ways.numberOf(way));
          upsert.run(id, ...values);
          ids.push(String(id));
        }
        for (const total of sumTotals(rows)) addTotal.run(...total);
        for (const { cause, since, until, packets } of gaps)
          addGap.run(cause, since && Date.parse(since), Date.parse(until), packets);
        if (mark) setMark.run(mark.boot, mark.at, mark.lost, mark.table, mark.taken);
        connection.exec('COMMIT');
      } catch (error) {
        // SQLite itself rolls back on a full disk.
        if (connection.inTransaction) connection.exec('ROLLBACK');
        ways.reload();
        throw error;
      }
    });
    if (ids.length === 0) return;
    const written = rows.map((row, index): Written => ({ id: ids[index] ?? '', row }));
    for (const listener of this.#listeners) listener(written);
  }

  /** Has `listener` called after each change of records; returns what ends that. */
  onWritten(listener: (written: readonly Written[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** null where there is none, or no longer. */
  readRecord(id: string): PathRecord | null {
    return this.#attempt('cannot be read', ({ connection, ways: { all: ways } }) => {
      const row = connection.prepare('SELECT * FROM record WHERE id = ?').get(id) as
        | RecordColumns
        | undefined;
      const way = row && ways.get(row.way);
      return row && way ? toRecord(row, way) : null;
    });
  }

  /**
   * A page of records. One that is seen again between two pages may move before the first. A page may be short, or empty,
   * while there is a cursor.
   */
  queryPaths(filter: PathFilter): PathsPage {
    return this.#attempt('cannot be read', ({ connection, ways: { all: ways } }) => {
      const { rows, nextCursor } = findPage(connection, ways, filter, this.#options.pageCost ?? pageCost);
      const records = rows.flatMap((row) => {
        const way = ways.get(row.way);
        return way ? toRecord(row, way) : [];
      });
      return { records, gaps: filter.cursor === undefined ? this.queryGaps(filter) : [], nextCursor };
    });
  }

  /**
   * Removes the oldest records beyond an age or a size, at most some hundreds, and returns how many. Totals and newer
   * records stay. A clock that was set forward makes nothing older than it is.
   */
  prune({ days, megabytes }: Retention, now = Date.now()): number {
    return this.#attempt('cannot be written', ({ connection }) => {
      const oldest = now - days * 86_400_000;
      const { forward } = connection
        .prepare('SELECT coalesce(sum(by), 0) AS forward FROM clock_step WHERE by > 0 AND at > ?')
        .get(oldest) as { forward: number };
      const before = this.bytes > megabytes * 1e6 ? Number.MAX_SAFE_INTEGER : oldest - forward;
      const { changes } = connection
        .prepare(
          `DELETE FROM record WHERE number IN (
             SELECT number FROM record INDEXED BY record_by_last_seen WHERE last_seen < ? ORDER BY last_seen LIMIT 250)`,
        )
        .run(before);
      connection.prepare('DELETE FROM gap WHERE until < ?').run(oldest - forward);
      if (changes > 0) connection.exec('PRAGMA incremental_vacuum');
      return changes;
    });
  }

  /** Remembers that the clock was set: forward, or back where negative; ms. */
  noteClockStep(at: number, by: number): void {
    this.#attempt('cannot be written', ({ connection }) =>
      connection.prepare('INSERT INTO clock_step VALUES (?, ?)').run(at, by),
    );
  }

  /** Of the pages in use. */
  get bytes(): number {
    const read = (pragma: string): number => {
      const row = this.#database.connection.prepare(`PRAGMA ${pragma}`).get() as Record<string, number>;
      return row[pragma] ?? 0;
    };
    return (read('page_count') - read('freelist_count')) * read('page_size');
  }

  /**
   * Records by number: a record has one from its first row on, and keeps it, whatever is added to it later. So a walk from 0 to
   * lastNumber() meets each record that there was when it began, once. A step takes a bounded time.
   */
  walkPaths(filter: WalkFilter, after: number, last: number): { records: PathRecord[]; number: number } {
    return this.#attempt('cannot be read', ({ connection, ways: { all: ways } }) => {
      const { rows, number } = findStep(connection, ways, filter, after, last);
      const records = rows.flatMap((row) => {
        const way = ways.get(row.way);
        return way ? toRecord(row, way) : [];
      });
      return { records, number };
    });
  }

  /** 0 where there are no records. */
  lastNumber(): number {
    return this.#attempt('cannot be read', ({ connection }) => {
      const row = connection.prepare('SELECT coalesce(max(number), 0) AS last FROM record').get();
      return (row as { last: number }).last;
    });
  }

  readMark(): Mark | null {
    return this.#attempt('cannot be read', ({ connection }) => {
      const sql = 'SELECT boot, at, lost, kernel_table AS "table", taken FROM mark';
      const mark = connection.prepare(sql).get() as Mark | undefined;
      if (!mark) return null;
      const { boot, at, lost, table, taken } = mark;
      return { boot, at, lost, table, taken: Buffer.from(taken) };
    });
  }

  /** Newest first. */
  queryGaps({ since, until, limit }: Pick<PathFilter, 'since' | 'until' | 'limit'>): Gap[] {
    const sql = 'SELECT * FROM gap WHERE until >= ? AND coalesce(since, 0) < ? ORDER BY until DESC LIMIT ?';
    return this.#attempt('cannot be read', ({ connection }) => {
      const span = [since?.getTime() ?? 0, until?.getTime() ?? Number.MAX_SAFE_INTEGER];
      const rows = connection.prepare(sql).all(...span, limit) as GapColumns[];
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
    return this.#attempt('cannot be read', ({ connection }) => {
      const rows = connection.prepare('SELECT * FROM total ORDER BY chain, verdict').all();
      const sums = new Map<string, Record<string, Amount>>();
      for (const { chain, verdict, ...amount } of rows as (Amount & { chain: string; verdict: string })[])
        sums.set(chain, { ...sums.get(chain), [verdict]: amount });
      return sums;
    });
  }

  close(): void {
    if (!this.#database.connection.open) return;
    this.#attempt('cannot be closed', ({ connection }) => {
      try {
        connection.prepare('PRAGMA wal_checkpoint(TRUNCATE)').all();
      } finally {
        connection.close();
      }
    });
  }

  #open(): Prepared {
    const { maxBytes, checkedBytes } = this.#options;
    const { connection, movedAside } = openDatabase(this.file, checkedBytes);
    if (maxBytes !== undefined) {
      const { page_size: pageSize } = connection.prepare('PRAGMA page_size').get() as { page_size: number };
      connection.exec(`PRAGMA max_page_count = ${Math.ceil(maxBytes / pageSize)}`);
    }
    const prepared = prepare(connection);
    if (movedAside !== null) {
      this.#movedAside = movedAside;
      prepared.addGap.run('store_corrupt', null, Date.now(), null);
    }
    return prepared;
  }

  /** One whose file turns out to be damaged is begun anew, so that what comes next is stored. */
  #attempt<T>(what: string, action: (database: Prepared) => T): T {
    try {
      return action(this.#database);
    } catch (error) {
      if (isCorrupt(error)) {
        this.#database.connection.close();
        this.#movedAside = moveAside(this.file);
        this.#database = this.#open();
        this.#database.addGap.run('store_corrupt', null, Date.now(), null);
      }
      throw storeError(this.file, what, error);
    }
  }
}

type Prepared = ReturnType<typeof prepare>;

function prepare(connection: Connection) {
  return {
    connection,
    ways: new WayTable(connection),
    upsert: connection.prepare(upsertSql),
    addTotal: connection.prepare(addTotalSql),
    addGap: connection.prepare('INSERT INTO gap (cause, since, until, packets) VALUES (?, ?, ?, ?)'),
    setMark: connection.prepare('INSERT OR REPLACE INTO mark VALUES (1, ?, ?, ?, ?, ?)'),
  };
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
