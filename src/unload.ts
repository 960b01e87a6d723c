import type { AgentConfig } from './agent-config.js';
import { detachPort } from './attach.js';
import { closeBackstop, removeTable } from './backstop-table.js';
import { removeDatapath } from './datapath.js';
import { LsrError } from './errors.js';
import { listLinks } from './interfaces.js';

export interface Unloaded {
  /** The pins that went. */
  removed: string[];
  /** The chains whose packets are dropped from now on, by a backstop that stays. */
  dropped: string[];
}

/**
 * Takes programs, tables and pins off this host. The backstop stays, and lets nothing through any more, unless
 * `bypass` asks for packets to go un-chained.
 */
export async function unload(config: AgentConfig, { bypass = false } = {}): Promise<Unloaded> {
  const chains = (await closeBackstop()) ?? [];
  const removed = await removePrograms(config);
  if (bypass && chains.length > 0) await removeTable();
  return { removed, dropped: bypass ? [] : chains };
}

async function removePrograms(config: AgentConfig): Promise<string[]> {
  const names = new Set(config.interfaces.map(({ name }) => name));
  const links = (await listLinks()).filter(({ name }) => names.has(name));
  try {
    for (const link of links) detachPort(link);
    return removeDatapath(config.bpffs);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'EPERM' && code !== 'EACCES') throw error;
    throw new LsrError('PRIVILEGES', `no right to remove programs and pins: ${message}; run as root`);
  }
}
