import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { encode, encodeIndex } from './codec.js';
import { makeTable, type Table } from './entries.js';
import type { MeshRule } from './mesh.js';
import { hashText } from './path.js';

/** Whether a cgroup is another one, or in it. */
export const isWithin = (cgroup: string, outer: string): boolean => `${cgroup}/`.startsWith(`${outer}/`);

/** The cgroups that rules of a node name, each once. */
export const listCgroups = (rules: readonly MeshRule[], node: string): string[] => [
  ...new Set(rules.filter(({ at }) => at.includes(node)).flatMap(({ match }) => match.cgroup ?? [])),
];

/** What stands for a cgroup in `rules`. */
export const cgroupNumber = (cgroup: string): number => hashText(cgroup);

/** `ids`: by path, as findCgroups has them. */
export const cgroupTable = (ids: ReadonlyMap<string, bigint>, set: 0 | 1): Table =>
  makeTable(
    [...ids].map(([path, id]) => [
      encode('lsr_cgroup_key', { id, set: BigInt(set) }),
      encodeIndex(cgroupNumber(path)),
    ]),
  );

/**
 * Those of these cgroups that there are now, with their ids: the inode numbers of their folders (kernfs_ino, on 64-bit
 * hosts). One that is made anew has another.
 */
export function findCgroups(paths: readonly string[]): Map<string, bigint> {
  const root = findCgroupRoot();
  if (root === null) return new Map();
  return new Map(
    paths.flatMap((path): [string, bigint][] => {
      const ino = statSync(join(root, path), { bigint: true, throwIfNoEntry: false })?.ino;
      return ino === undefined ? [] : [[path, ino]];
    }),
  );
}

/** Where cgroup2 is mounted; null where it is not. */
export function findCgroupRoot(mounts = '/proc/self/mounts'): string | null {
  if (!existsSync(mounts)) return null;
  const lines = readFileSync(mounts, 'utf8').split('\n');
  return lines.map((line) => line.split(' ')).find(([, , type]) => type === 'cgroup2')?.[1] ?? null;
}
