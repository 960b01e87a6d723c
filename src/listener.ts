import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import { connect, type Server } from 'node:net';
import { dirname } from 'node:path';
import type { FastifyInstance } from 'fastify';
import type { Agent } from './agent.js';
import { buildApi } from './api.js';
import { LsrError } from './errors.js';
import { makeFolder } from './folder.js';
import { componentLogger, type Logger } from './logger.js';
import { type ListenAddress, parseListen } from './loopback.js';
import type { Store } from './store.js';

export interface ListenerOptions {
  logger: Logger;
  store: Store;
  /** Path of the unix socket; read and write for owner and group. */
  socket: string;
  /** "127.0.0.1:7913": read-only, loopback only. */
  listen?: string | null | undefined;
}

export interface Listeners {
  /** Where the read-only listener really is, for port 0; null without one. */
  address: string | null;
  close(): Promise<void>;
}

/** Opens the socket and, when asked, the loopback port. Both or neither. */
export async function openListeners(agent: Agent, options: ListenerOptions): Promise<Listeners> {
  const logger = componentLogger(options.logger, 'api');
  const target = options.listen ? parseListen(options.listen) : null;
  const writable = buildApi(agent, { readOnly: false, logger, store: options.store });
  await listenOnSocket(writable, options.socket);
  logger.info({ socket: options.socket }, 'API is listening on the socket');
  if (!target) return { address: null, close: () => closeAll([writable]) };

  const readOnly = buildApi(agent, { readOnly: true, ownHostOnly: true, logger, store: options.store });
  try {
    const address = await listenOnPort(readOnly, target);
    logger.info({ address }, 'API is listening, read-only');
    return { address, close: () => closeAll([writable, readOnly]) };
  } catch (error) {
    await closeAll([writable, readOnly]);
    throw error;
  }
}

async function listenOnSocket(app: FastifyInstance, path: string): Promise<void> {
  await clearSocket(path);
  await app.ready();
  bindUnderUmask(app.server);
  try {
    await app.listen({ path });
  } catch (error) {
    throw listenError(error, path, 'api.socket');
  }
  chmodSync(path, 0o660);
}

/** Closes the moment between bind and chmod. The umask is the whole process's, so it may change only for the call that binds. */
function bindUnderUmask(server: Server): void {
  const listen = server.listen.bind(server) as (...parameters: unknown[]) => Server;
  server.listen = (...parameters: unknown[]) => {
    const umask = process.umask(0o117);
    try {
      return listen(...parameters);
    } finally {
      process.umask(umask);
    }
  };
}

/** Removes what a killed agent left, and only that: whoever still answers keeps his socket. */
async function clearSocket(path: string): Promise<void> {
  try {
    makeFolder(dirname(path), 0o755);
    const found = lstatSync(path, { throwIfNoEntry: false });
    if (!found) return;
    if (!found.isSocket()) {
      throw new LsrError(
        'ADDRESS_IN_USE',
        `${path} exists and is not a socket; remove it or set another api.socket`,
      );
    }
    if (await isAnswered(path)) {
      throw new LsrError(
        'ADDRESS_IN_USE',
        `another program answers on ${path}; stop it or set another api.socket`,
      );
    }
    unlinkSync(path);
  } catch (error) {
    throw listenError(error, path, 'api.socket');
  }
}

/** Only a refused connection proves that nobody listens; anything else leaves the socket alone. */
function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => {
      resolve(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT');
    });
  });
}

async function listenOnPort(app: FastifyInstance, target: ListenAddress): Promise<string> {
  try {
    return await app.listen(target);
  } catch (error) {
    throw listenError(error, `${target.host}:${target.port}`, 'api.listen');
  }
}

function listenError(error: unknown, where: string, key: string): unknown {
  if (error instanceof LsrError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'EADDRINUSE') {
    return new LsrError(
      'ADDRESS_IN_USE',
      `${where} is in use by another program; stop it or set another ${key}`,
    );
  }
  if (code === 'EACCES' || code === 'EPERM') {
    return new LsrError('PRIVILEGES', `no right to listen on ${where} (${key})`);
  }
  return new LsrError('CONFIG_INVALID', `cannot listen on ${where} (${key}): ${message}`);
}

/** Requests under way may finish; a client that keeps one open does not hold the daemon. */
async function closeAll(apps: FastifyInstance[]): Promise<void> {
  const deadline = setTimeout(() => {
    for (const app of apps) app.server.closeAllConnections();
  }, 2000);
  await Promise.all(apps.map((app) => app.close()));
  clearTimeout(deadline);
}
