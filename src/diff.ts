import type { Table } from './entries.js';

export interface Change {
  /** In `wanted` and not in `present`, or there with another value. */
  put: [key: Buffer, value: Buffer][];
  /** In `present` and not in `wanted`. */
  remove: Buffer[];
  added: number;
  updated: number;
}

/**
 * What turns `present` into `wanted`. `ignoring` is a span of the value that does not count, such
 * as the generation that first wrote an entry.
 */
export function diffTables(
  present: Table,
  wanted: Table,
  ignoring?: { offset: number; size: number },
): Change {
  const put: Change['put'] = [];
  let added = 0;
  for (const [key, value] of wanted) {
    const old = present.get(key);
    if (old && isSame(old, value, ignoring)) continue;
    if (!old) added++;
    put.push([Buffer.from(key, 'latin1'), value]);
  }
  const remove = [...present.keys()]
    .filter((key) => !wanted.has(key))
    .map((key) => Buffer.from(key, 'latin1'));
  return { put, remove, added, updated: put.length - added };
}

function isSame(left: Buffer, right: Buffer, ignoring?: { offset: number; size: number }): boolean {
  if (!ignoring) return left.equals(right);
  const end = ignoring.offset + ignoring.size;
  return (
    left.subarray(0, ignoring.offset).equals(right.subarray(0, ignoring.offset)) &&
    left.subarray(end).equals(right.subarray(end))
  );
}
