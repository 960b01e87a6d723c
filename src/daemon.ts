import type { AgentConfig } from './agent-config.js';
import { claimHost } from './claim.js';
import { openDatapath } from './datapath.js';
import { LsrError } from './errors.js';
import { findFaults, findPorts, type Link, listLinks } from './interfaces.js';
import { openListeners } from './listener.js';
import { componentLogger, type Logger } from './logger.js';
import { describeError, type Loaded, lastGoodFile, loadWanted, watchDocument } from './mesh-store.js';
import { loadNative } from './native.js';
import { watchPorts } from './port-watch.js';
import { Ports } from './ports.js';
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
  loadNative().forbidCoreDumps();
  const claim = await claimHost(config);
  const links = await listLinks();
  requirePort(config, links);
  const store = openStore(config.store);
  if (store.movedAside)
    log.error({ movedAside: store.movedAside }, 'the audit store was corrupt; a new one was begun');

  const datapath = openDatapath(config.bpffs);
  const ports = new Ports(config.interfaces, datapath);
  const agent = new RunningAgent({ config, ports, datapath, store, logger });
  ports.write(links);
  agent.loadKeys();
  await putFirstInForce(agent, config, log);

  await agent.attach();
  requireAttached(ports, log);
  // Before anybody can see that we run, and so end us.
  const ended = waitForEnd();
  const listeners = await openListeners(agent, { logger, store, ...config.api });
  agent.start();
  const following = watchPorts(() => agent.followLinks(listLinks));
  log.info({ node: config.node, generation: agent.generation }, 'ready');

  const reload = async (): Promise<void> => {
    agent.loadKeys();
    if (config.mesh === null) return;
    const { loaded, error } = loadWanted(config.mesh, lastGoodFile(config.store));
    const refused = error ?? (loaded ? await tryDocument(agent, loaded) : null);
    agent.refuse(refused);
    if (refused) log.error({ error: refused }, 'the mesh document is refused; the one in force stays');
  };
  const watcher = config.mesh === null ? null : watchDocument(config.mesh, reload);
  process.on('SIGHUP', reload);

  await ended;
  log.info({ detachOnExit }, 'ending');
  watcher?.close();
  await following.close();
  await listeners.close();
  await agent.stop();
  store.close();
  datapath.close();
  if (detachOnExit) {
    const { dropped } = await unload(config);
    if (dropped.length > 0)
      log.warn({ chains: dropped }, 'the backstop stays: packets of these chains are dropped');
  }
  claim.close();
}

/** A host that has none of its interfaces yet waits for them outside: its agent.yaml may as well be wrong. */
function requirePort(config: AgentConfig, links: readonly Link[]): void {
  if (findPorts(config.interfaces, links).length > 0) return;
  const faults = findFaults(config.interfaces, links).map(({ error }) => error);
  const known = links.map(({ name }) => name).join(', ');
  throw new LsrError('INTERFACE_MISSING', `${faults.join('; ')}; this host has ${known}`);
}

/** One port that takes its programs is enough to begin with; the others are tried again. */
function requireAttached(ports: Ports, log: Logger): void {
  for (const { name, error } of ports.faults) log.error({ interface: name }, error);
  const attached = ports.describe().filter((port) => port.attached !== null);
  if (attached.length === 0) throw new LsrError('KERNEL', ports.faults.map(({ error }) => error).join('\n'));
  const programs = Object.fromEntries(attached.map((port) => [port.name, port.attached]));
  log.info({ ports: programs }, 'programs are attached');
}

/** The wanted document or, where it is refused, the last good one: a host never starts without its chains over a typing error. */
async function putFirstInForce(agent: RunningAgent, config: AgentConfig, log: Logger): Promise<void> {
  const lastGood = lastGoodFile(config.store);
  const { loaded, error } = loadWanted(config.mesh, lastGood);
  let refused = error;
  const failed = loaded ? await tryDocument(agent, loaded) : null;
  if (failed) {
    refused ??= failed;
    const { loaded: old } = loadWanted(null, lastGood);
    if (old && old.text !== loaded?.text) await tryDocument(agent, old);
  }
  agent.refuse(refused);
  const inForce = agent.mesh()?.source ?? null;
  if (refused) log.error({ error: refused, inForce }, 'the mesh document is refused');
  if (inForce === null)
    log.warn(
      { mesh: config.mesh },
      'no mesh document is in force: packets pass unless older tables are pinned',
    );
}

/** Why the document could not be put in force, or null. */
async function tryDocument(agent: RunningAgent, loaded: Loaded): Promise<string | null> {
  try {
    await agent.load(loaded);
    return null;
  } catch (error) {
    return describeError(error);
  }
}

function waitForEnd(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve());
  });
}
