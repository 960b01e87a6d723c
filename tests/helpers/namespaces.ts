import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { type LabLock, tryLockLab } from '../../src/lab-lock.js';
import {
  describeLab,
  type Lab,
  type LabOptions,
  listLabs,
  raiseLab,
  razeLab,
} from '../../src/lab-standing.js';
import { inNamespace, type Topology } from '../../src/lab-topology.js';

/** A lab of this test's own, with the addresses of every example, beside any other. */
export interface TestLab extends Lab {
  /** Runs a program on a host to its end and returns what it printed. */
  on(host: string, ...command: string[]): Promise<string>;
  remove(): Promise<void>;
}

export interface TestLabOptions extends LabOptions {
  topology?: Topology;
}

/** Hosts, cables, agents, web server. Remove it in `test.after.always`. */
export async function createLab(options: TestLabOptions = {}): Promise<TestLab> {
  const lab = await reserveLab(options.topology);
  const remove = async (): Promise<void> => {
    await razeLab(lab);
    locks.get(lab.name)?.release();
    locks.delete(lab.name);
  };
  try {
    await raiseLab(lab, options);
  } catch (error) {
    await remove();
    throw error;
  }
  return { ...lab, remove, on: (host, ...command) => inNamespace(lab.prefix + host, command) };
}

/** Removes what tests left that did not live to clean up. */
export async function removeAbandonedLabs(): Promise<void> {
  for (const name of listLabs().filter((name) => name.startsWith(namePrefix))) {
    const lock = await tryLockLab(name);
    if (lock) await razeLab(describeLab(name, findTopology(describeLab(name).prefix)));
    lock?.release();
  }
}

const namePrefix = 'test-';

/** The hosts that exist under a prefix, whatever test made them. */
function findTopology(prefix: string): Topology {
  const folder = '/run/netns';
  const names = existsSync(folder) ? readdirSync(folder).filter((name) => name.startsWith(prefix)) : [];
  return { hosts: Object.fromEntries(names.map((name) => [name.slice(prefix.length), {}])), cables: [] };
}

const locks = new Map<string, LabLock>();

async function reserveLab(topology?: Topology): Promise<Lab> {
  for (let number = 1; ; number++) {
    const name = `${namePrefix}${process.pid}-${number}`;
    const lock = locks.has(name) ? null : await tryLockLab(name);
    if (lock === null) continue;
    locks.set(name, lock);
    const lab = describeLab(name, topology);
    // By this folder removeAbandonedLabs knows of the lab.
    mkdirSync(lab.folder, { recursive: true });
    return lab;
  }
}
