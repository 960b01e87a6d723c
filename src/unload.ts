import type { AgentConfig } from './agent-config.js';
import { detachPort } from './attach.js';
import { removeDatapath } from './datapath.js';
import { LsrError } from './errors.js';
import { listLinks } from './interfaces.js';

/** Takes programs, tables and pins off this host. Returns the pins that went. */
export async function unload(config: AgentConfig): Promise<string[]> {
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
