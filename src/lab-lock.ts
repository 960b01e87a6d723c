import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { LsrError } from './errors.js';

export interface LabLock {
  release(): void;
}

/**
 * Takes the lab of this name for this process, or throws LAB naming the process that has it.
 * The lock is an abstract socket (unix(7)): it ends with its process, however that ends.
 */
export async function lockLab(name: string, ownerFile: string): Promise<LabLock> {
  const deadline = Date.now() + patienceMs;
  for (;;) {
    const lock = await tryLockLab(name);
    if (lock) return lock;
    if (Date.now() > deadline) throw new LsrError('LAB', describeOwner(name, ownerFile));
    await sleep(50);
  }
}

/** null when another process has the lab. */
export async function tryLockLab(name: string): Promise<LabLock | null> {
  const server = createServer((socket) => socket.destroy());
  server.listen(`\0lsr-agent-lab-${name}`);
  try {
    await once(server, 'listening');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return null;
    throw error;
  }
  server.unref();
  return { release: () => server.close() };
}

/** One that was just interrupted may still be removing its lab. */
const patienceMs = 1000;

function describeOwner(name: string, ownerFile: string): string {
  let owner = '';
  try {
    owner = ` (process ${readFileSync(ownerFile, 'utf8').trim()})`;
  } catch {
    // It has the lock but has not written who it is yet.
  }
  return `another lsr-agent${owner} is at work on the lab "${name}"; wait for it, or end it with Ctrl-C`;
}
