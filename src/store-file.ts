import { closeSync, existsSync, openSync, renameSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import Database from 'libsql';
import { LsrError } from './errors.js';
import { makeFolder } from './folder.js';

export type Connection = Database.Database;
export type Statement = Database.Statement<unknown[]>;

/** "LSRA" in ASCII: tells our file from somebody else's database. */
const applicationId = 0x4c535241;

/** One entry a schema version; entry n brings a file from version n to n + 1. Never change a released entry. */
export const migrations = [
  `CREATE TABLE path (
     id TEXT PRIMARY KEY NOT NULL,
     chain TEXT,
     generation INTEGER NOT NULL,
     source INTEGER NOT NULL,
     destination INTEGER NOT NULL,
     protocol INTEGER NOT NULL,
     source_port INTEGER,
     destination_port INTEGER,
     expected TEXT NOT NULL,
     recorded TEXT NOT NULL,
     record_route TEXT NOT NULL,
     verdict TEXT NOT NULL,
     reasons TEXT NOT NULL,
     packets INTEGER NOT NULL,
     bytes INTEGER NOT NULL,
     first_seen INTEGER NOT NULL,
     last_seen INTEGER NOT NULL,
     integrity TEXT NOT NULL
   );
   CREATE INDEX path_by_time ON path (last_seen, id);
   CREATE INDEX path_by_chain ON path (chain, last_seen, id);
   CREATE INDEX path_by_verdict ON path (verdict, last_seen, id);
   CREATE INDEX path_by_source ON path (source, last_seen, id);
   CREATE INDEX path_by_destination ON path (destination, last_seen, id);
   CREATE TABLE chain_total (chain TEXT PRIMARY KEY NOT NULL, packets INTEGER NOT NULL) WITHOUT ROWID;
   CREATE TABLE baseline (
     id TEXT PRIMARY KEY NOT NULL,
     packets INTEGER NOT NULL,
     bytes INTEGER NOT NULL,
     first_seen INTEGER NOT NULL
   ) WITHOUT ROWID;`,
  `CREATE TABLE total (
     chain TEXT NOT NULL,
     verdict TEXT NOT NULL,
     packets INTEGER NOT NULL,
     bytes INTEGER NOT NULL,
     PRIMARY KEY (chain, verdict)
   ) WITHOUT ROWID;
   INSERT INTO total
     SELECT chain, verdict, sum(packets), sum(bytes) FROM path WHERE chain IS NOT NULL GROUP BY chain, verdict;
   DROP TABLE chain_total;`,
  `CREATE TABLE way (
     id INTEGER PRIMARY KEY,
     chain TEXT,
     generation INTEGER NOT NULL,
     verdict TEXT NOT NULL,
     integrity TEXT NOT NULL,
     expected TEXT NOT NULL
   );
   INSERT INTO way (chain, generation, verdict, integrity, expected)
     SELECT DISTINCT chain, generation, verdict, integrity, expected FROM path;
   CREATE TABLE record (
     number INTEGER PRIMARY KEY,
     id TEXT NOT NULL,
     way INTEGER NOT NULL REFERENCES way (id),
     source INTEGER NOT NULL,
     destination INTEGER NOT NULL,
     protocol INTEGER NOT NULL,
     source_port INTEGER,
     destination_port INTEGER,
     recorded TEXT,
     record_route TEXT NOT NULL,
     reasons TEXT,
     arrived_from TEXT,
     packets INTEGER NOT NULL,
     bytes INTEGER NOT NULL,
     first_seen INTEGER NOT NULL,
     last_seen INTEGER NOT NULL
   );
   INSERT INTO record (id, way, source, destination, protocol, source_port, destination_port, recorded, record_route,
       reasons, packets, bytes, first_seen, last_seen)
     SELECT path.id, way.id, source, destination, protocol, source_port, destination_port,
       nullif(recorded, path.expected), record_route, nullif(reasons, '[]'), packets, bytes, first_seen, last_seen
     FROM path JOIN way ON way.chain IS path.chain AND way.generation = path.generation AND way.verdict = path.verdict
       AND way.integrity = path.integrity AND way.expected = path.expected
     ORDER BY last_seen;
   DROP TABLE path;
   CREATE UNIQUE INDEX record_by_id ON record (id);
   CREATE INDEX record_by_last_seen ON record (last_seen);
   CREATE INDEX record_by_first_seen ON record (first_seen);
   CREATE INDEX record_by_packets ON record (packets);
   CREATE INDEX record_by_bytes ON record (bytes);
   CREATE INDEX record_by_way ON record (way);
   CREATE INDEX record_by_source ON record (source);
   CREATE INDEX record_by_destination ON record (destination);
   DROP TABLE baseline;
   CREATE TABLE mark (
     id INTEGER PRIMARY KEY CHECK (id = 1),
     boot TEXT NOT NULL,
     at INTEGER NOT NULL,
     lost INTEGER NOT NULL,
     kernel_table INTEGER NOT NULL,
     taken BLOB NOT NULL
   );
   CREATE TABLE gap (
     id INTEGER PRIMARY KEY,
     cause TEXT NOT NULL,
     since INTEGER,
     until INTEGER NOT NULL,
     packets INTEGER
   );
   CREATE TABLE clock_step (at INTEGER NOT NULL, by INTEGER NOT NULL);`,
];

/** Above this a full check at start would take seconds; damage is then found by the query that meets it. */
const defaultCheckedBytes = 256 * 1024 * 1024;

/** Opens or makes the database file. A corrupt one is moved aside, and its new name is returned. */
export function openDatabase(
  file: string,
  checkedBytes = defaultCheckedBytes,
): { connection: Connection; movedAside: string | null } {
  prepareFile(file);
  try {
    return { connection: connect(file, checkedBytes), movedAside: null };
  } catch (error) {
    if (!isCorrupt(error)) throw storeError(file, 'cannot be opened', error);
  }
  const movedAside = moveAside(file);
  prepareFile(file);
  try {
    return { connection: connect(file, checkedBytes), movedAside };
  } catch (error) {
    throw storeError(file, 'cannot be opened', error);
  }
}

/** Says which file, what failed, and why in words. */
export function storeError(file: string, what: string, cause: unknown): LsrError {
  if (cause instanceof LsrError) return cause;
  const reason = explain(cause);
  return new LsrError('STORE', `the audit store ${file} ${what}: ${reason}`, { file, reason });
}

function prepareFile(file: string): void {
  try {
    makeFolder(dirname(file), 0o750);
    if (existsSync(file) && !statSync(file).isFile()) throw new Error('it is not a regular file');
    // SQLite gives its -wal and -shm files the rights of this one; flows are nobody else's business.
    closeSync(openSync(file, 'a', 0o640));
  } catch (error) {
    throw storeError(file, 'cannot be written', error);
  }
}

function connect(file: string, checkedBytes: number): Connection {
  const connection = new Database(file, { timeout: 2000 });
  try {
    connection.pragma('auto_vacuum = INCREMENTAL'); // before there is anything in the file
    connection.pragma('journal_mode = WAL');
    connection.pragma('synchronous = NORMAL');
    // Indexes are written all over: with the defaults, half the time would go into writing the same pages back again and again.
    connection.pragma('cache_size = -65536');
    connection.pragma('wal_autocheckpoint = 16384');
    connection.pragma(`mmap_size = ${1 << 30}`);
    if (statSync(file).size <= checkedBytes) checkIntegrity(connection);
    migrate(connection, file);
    return connection;
  } catch (error) {
    connection.close();
    throw error;
  }
}

function checkIntegrity(connection: Connection): void {
  const verdict = readPragma(connection, 'quick_check(1)', 'quick_check');
  if (verdict !== 'ok') throw Object.assign(new Error(String(verdict)), { code: 'SQLITE_CORRUPT' });
}

/** Runs under the write lock, so a file that cannot be written is found at start and not at the first flow. */
function migrate(connection: Connection, file: string): void {
  connection.exec('BEGIN IMMEDIATE');
  try {
    const version = Number(readPragma(connection, 'user_version', 'user_version'));
    refuseForeign(connection, file, version);
    for (const migration of migrations.slice(version)) connection.exec(migration);
    connection.exec(
      `PRAGMA application_id = ${applicationId}; PRAGMA user_version = ${migrations.length}; COMMIT`,
    );
  } catch (error) {
    if (connection.inTransaction) connection.exec('ROLLBACK');
    throw error;
  }
}

function refuseForeign(connection: Connection, file: string, version: number): void {
  const tables = connection.prepare('SELECT count(*) AS count FROM sqlite_master').get() as { count: number };
  const owner = Number(readPragma(connection, 'application_id', 'application_id'));
  if (owner !== applicationId && tables.count > 0) {
    throw new LsrError('STORE', `${file} is a database of another program; name another file in "store"`, {
      file,
    });
  }
  if (version > migrations.length) {
    throw new LsrError(
      'STORE',
      `the audit store ${file} has schema version ${version}, this lsr-agent knows up to ${migrations.length}: ` +
        'it was written by a newer one; upgrade, or name another file in "store"',
      { file, version },
    );
  }
}

function readPragma(connection: Connection, pragma: string, column: string): unknown {
  const row = connection.prepare(`PRAGMA ${pragma}`).get() as Record<string, unknown>;
  return row[column];
}

/** Returns its new name. */
export function moveAside(file: string): string {
  const stamp = new Date().toISOString().replace(/[-:]|\.\d+/g, '');
  let target = `${file}.corrupt-${stamp}`;
  for (let n = 2; existsSync(target); n += 1) target = `${file}.corrupt-${stamp}-${n}`;
  try {
    for (const suffix of ['', '-wal', '-shm']) {
      if (existsSync(file + suffix)) renameSync(file + suffix, target + suffix);
    }
  } catch (error) {
    throw storeError(file, 'is corrupt and cannot be moved aside', error);
  }
  return target;
}

export function isCorrupt(error: unknown): boolean {
  const code = (error as { code?: unknown }).code;
  return code === 'SQLITE_NOTADB' || (typeof code === 'string' && code.startsWith('SQLITE_CORRUPT'));
}

function explain(cause: unknown): string {
  const { code, message } = cause as { code?: string; message?: string };
  const known: Record<string, string> = {
    EACCES: 'permission denied',
    EROFS: 'the file system is read-only',
    ENOTDIR: 'a part of its path is not a directory',
    EEXIST: 'a part of its path is not a directory',
    EISDIR: 'it is a directory',
    ENOSPC: 'the disk is full',
    SQLITE_FULL: 'the disk is full',
    SQLITE_READONLY: 'it is read-only',
    SQLITE_BUSY: 'another program holds its lock',
    SQLITE_CANTOPEN: 'its directory cannot be written',
    SQLITE_CORRUPT: 'it was corrupt; it is moved aside, and a new one begun',
  };
  return known[code ?? ''] ?? message ?? String(cause);
}
