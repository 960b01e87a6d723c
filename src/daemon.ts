import { dirname, join } from 'node:path';
import type { AgentConfig } from './agent-config.js';
import { claimHost } from './claim.js';
import { openDatapath } from './datapath.js';
import { findPorts, listLinks } from './interfaces.js';
import { openListeners } from './listener.js';
import { componentLogger, type Logger } from './logger.js';
import { describeError, loadWanted, watchDocument } from './mesh-store.js';
import { RunningAgent } from './running-agent.js';
import { openStore } from './store.js';
import { unload } from './unload.js';

/**
 * Runs the agent of this host until SIGTERM or SIGINT. The order is the promise: tables are filled,
 * then the programs are attached, then the API says ready. On the way out the data path stays.
 */
export async function runDaemon(
  config: AgentConfig,
  logger: Logger,
  { detachOnExit }: { detachOnExit: boolean },
): Promise<void> {
  const log = componentLogger(logger, 'daemon');
  const claim = await claimHost(config);
  const ports = findPorts(config.interfaces, await listLinks());
  const store = openStore(config.store);
  if (store.movedAside)
    log.error({ movedAside: store.movedAside }, 'the audit store was corrupt; a new one was begun');

  const datapath = openDatapath(config.bpffs);
  const agent = new RunningAgent({ config, ports, datapath, store, logger });
  datapath.setPorts(ports);
  const lastGood = lastGoodFile(config);
  const { loaded, error } = loadWanted(config.mesh, lastGood);
  if (error)
    log.error(
      { error, inForce: loaded?.source ?? null },
      'the mesh document is refused; the last good one stays',
    );
  agent.refuse(error);
  if (loaded) agent.load(loaded);
  else
    log.warn({ mesh: config.mesh }, 'no mesh document yet: packets pass unchained until `lsr-agent apply`');

  datapath.attach(ports);
  log.info({ ports: Object.fromEntries(datapath.attached) }, 'programs are attached');
  const listeners = await openListeners(agent, { logger, store, ...config.api });
  agent.start();
  log.info({ node: config.node, generation: agent.generation }, 'ready');

  const reload = (): void => {
    if (config.mesh === null) return;
    const wanted = loadWanted(config.mesh, lastGood);
    agent.refuse(wanted.error);
    if (wanted.error)
      log.error({ error: wanted.error }, 'the mesh document is refused; the one in force stays');
    else if (wanted.loaded) applyQuietly(agent, wanted.loaded, log);
  };
  const watcher = config.mesh === null ? null : watchDocument(config.mesh, reload);
  process.on('SIGHUP', reload);

  await waitForEnd();
  log.info({ detachOnExit }, 'ending');
  watcher?.close();
  await listeners.close();
  agent.stop();
  store.close();
  datapath.close();
  if (detachOnExit) await unload(config);
  claim.close();
}

/** The copy of the newest document that was in force, beside the audit store. */
const lastGoodFile = (config: AgentConfig): string => join(dirname(config.store), 'mesh.last-good.yaml');

function applyQuietly(agent: RunningAgent, loaded: Parameters<RunningAgent['load']>[0], log: Logger): void {
  try {
    agent.load(loaded);
  } catch (error) {
    agent.refuse(describeError(error));
    log.error(
      { error: describeError(error) },
      'the mesh document could not be applied; the one in force stays',
    );
  }
}

function waitForEnd(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve());
  });
}
