import { decode, decodeIndex, encode, encodeIndex, offsetOf } from './codec.js';
import { type Change, diffTables } from './diff.js';
import { type Entries, type Table, type TableName, tableNames } from './entries.js';
import { LsrError } from './errors.js';
import { enums } from './layout.js';
import type { BpfMap } from './native.js';

export type Maps = Record<TableName | 'state', BpfMap>;

export interface State {
  set: 0 | 1;
  generation: number;
  tuples: number;
  cgroups: number;
  address: number;
}

export type Changed = Record<string, { added: number; removed: number; updated: number }>;

/** What is in force, read back from the kernel. */
export function readState(maps: Pick<Maps, 'state'>): State {
  const value = maps.state.get(encodeIndex(0));
  const state = value ? decode('lsr_state', value) : null;
  return {
    set: state?.set === 1 ? 1 : 0,
    generation: state?.generation ?? 0,
    tuples: state?.tuples ?? 0,
    cgroups: state?.cgroups ?? 0,
    address: state?.address ?? 0,
  };
}

/**
 * Makes `entries` the ones in force: additions first, then one write that flips the set. Nothing is
 * taken away yet: packets on their way still need what was there. Capacity is checked before the
 * first write.
 */
export function writeEntries(
  maps: Maps,
  entries: Entries,
  version: { set: 0 | 1; generation: number },
): Changed {
  const changes = tableNames.map((name) => ({
    name,
    ...compare(maps[name], name, entries.tables[name], version.set),
  }));
  for (const { name, change, size } of changes)
    checkCapacity(name, size + change.added, maps[name].info.maxEntries);

  for (const { name, change } of changes) {
    // A set that is not in force may be cleaned at once, and must be: a stale rule would hold again.
    if (isDoubled(name) && name !== 'tuples') removeAll(maps[name], change);
    putAll(maps[name], change);
  }
  maps.state.put(
    encodeIndex(0),
    encode('lsr_state', {
      address: entries.address,
      set: version.set,
      tuples: entries.tuples,
      cgroups: entries.cgroups,
      generation: version.generation,
    }),
  );
  return Object.fromEntries(
    changes.map(({ name, change }) => [
      name,
      { added: change.added, updated: change.updated, removed: name === 'tuples' ? 0 : change.remove.length },
    ]),
  );
}

/** Whether the kernel already has all of this, in the set that is in force. */
export function isInForce(maps: Maps, entries: Entries, present: State): boolean {
  return (
    present.address === entries.address &&
    present.tuples === entries.tuples &&
    present.cgroups === entries.cgroups &&
    tableNames.every((name) => {
      const { change } = compare(maps[name], name, entries.tables[name], present.set);
      return (
        change.put.length === 0 &&
        (!['rules', 'choices', 'cgroups'].includes(name) || change.remove.length === 0)
      );
    })
  );
}

/** Removes what no packet can need any more, some time after a change. */
export function sweepEntries(maps: Maps, entries: Entries): void {
  for (const name of tableNames) {
    if (!isDoubled(name)) removeAll(maps[name], diffTables(readTable(maps[name]), entries.tables[name]));
  }
}

/** Rules, chains, their choices, cgroups and tuples exist twice: a set in force, and one that is written. */
const isDoubled = (name: TableName): boolean => doubled.includes(name);
const doubled: readonly TableName[] = ['rules', 'chains', 'choices', 'cgroups', 'tuples'];

/** What makes a table, or the half of it that belongs to a set, what it should be. */
export function compare(
  map: BpfMap,
  name: TableName,
  wanted: Table,
  set: 0 | 1,
): { change: Change; size: number } {
  const present = readTable(map);
  const size = present.size;
  if (isDoubled(name)) keepSet(present, name, set);
  return { change: diffTables(present, wanted, generationField(name)), size };
}

function keepSet(table: Table, name: TableName, set: 0 | 1): void {
  for (const key of table.keys()) if (setOf(Buffer.from(key, 'latin1'), name) !== set) table.delete(key);
}

function setOf(key: Buffer, name: TableName): number {
  if (name === 'rules') return Math.floor(decode('lsr_fields', key).tuple / enums.lsr_limits.LSR_TUPLES_MAX);
  if (name === 'cgroups') return Number(decode('lsr_cgroup_key', key).set);
  if (name === 'chains' || name === 'choices') return decode('lsr_chain_key', key).set;
  return Math.floor(decodeIndex(key) / enums.lsr_limits.LSR_TUPLES_MAX);
}

function generationField(name: TableName): { offset: number; size: number } | undefined {
  if (name === 'hops') return { offset: offsetOf('lsr_hop', 'generation'), size: 4 };
  if (name === 'chains') return { offset: offsetOf('lsr_chain', 'generation'), size: 4 };
  if (name === 'destinations') return { offset: offsetOf('lsr_destination', 'generation'), size: 4 };
  return undefined;
}

export function readTable(map: BpfMap): Table {
  const { keys, values, count } = map.entries();
  const { keySize, valueSize } = map.info;
  const table: Table = new Map();
  for (let i = 0; i < count; i++) {
    const key = keys.toString('latin1', i * keySize, (i + 1) * keySize);
    table.set(key, values.subarray(i * valueSize, (i + 1) * valueSize));
  }
  return table;
}

function checkCapacity(name: TableName, wanted: number, capacity: number): void {
  if (name === 'tuples' || wanted <= capacity) return;
  throw new LsrError(
    'CAPACITY',
    `table ${name} would need ${wanted} entries and holds ${capacity}; nothing was changed. Split the mesh, or use fewer rules and ranges.`,
    { table: name, wanted, capacity },
  );
}

function putAll(map: BpfMap, change: Change): void {
  if (change.put.length === 0) return;
  map.putBatch(
    Buffer.concat(change.put.map(([key]) => key)),
    Buffer.concat(change.put.map(([, value]) => value)),
  );
}

function removeAll(map: BpfMap, change: Change): void {
  if (change.remove.length > 0) map.deleteBatch(Buffer.concat(change.remove));
}
