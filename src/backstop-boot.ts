import type { AgentConfig } from './agent-config.js';
import { renderBackstop, renderPrograms } from './backstop.js';
import { findInForce } from './datapath.js';
import { LsrError } from './errors.js';
import { findPorts, listLinks, portMtu } from './interfaces.js';
import { lastGoodFile, loadWanted } from './mesh-store.js';
import { runNft } from './nft.js';

export interface RaisedBackstop {
  /** Those whose packets cannot leave un-chained from now on. */
  chains: string[];
  /** The ports where the data path is in force already, as after a restart. */
  ports: string[];
}

/**
 * Puts the backstop in place before there is a daemon, for the document that it will start with. Needs CAP_NET_ADMIN.
 * Without any document there is nothing to guard; one that nobody can read is an error.
 */
export async function raiseBackstop(config: AgentConfig): Promise<RaisedBackstop> {
  const { loaded, error } = loadWanted(config.mesh, lastGoodFile(config.store));
  if (!loaded && error !== null) throw new LsrError('MESH_INVALID', error);
  const ports = findPorts(config.interfaces, await listLinks());
  const guarded = { node: config.node, ports: config.interfaces, mtu: portMtu(ports) };
  const backstop = loaded && renderBackstop([loaded.mesh], guarded);
  // An older backstop stays until the daemon has the tables that do without it.
  if (!backstop) return { chains: [], ports: [] };
  const inForce = findInForce(config.bpffs, ports);
  await runNft(backstop.text + renderPrograms(inForce.map(({ link }) => link.index)));
  return { chains: backstop.chains, ports: inForce.map(({ name }) => name) };
}
