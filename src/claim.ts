import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import type { AgentConfig } from './agent-config.js';
import { LsrError } from './errors.js';

/**
 * Makes this process the only one that works on these pins, until it closes the answer or ends. An
 * abstract socket is a lock that a killed process cannot leave behind (unix(7)).
 */
export async function claimHost(config: AgentConfig): Promise<Server> {
  const server = createServer();
  server.listen({ path: `\0lsr-agent:${config.bpffs}` });
  try {
    await once(server, 'listening');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    throw new LsrError(
      'AGENT_RUNNING',
      `another lsr-agent already runs on this host with pins under ${config.bpffs}; stop it first, or give this one a bpffs of its own`,
    );
  }
  server.unref();
  return server;
}
