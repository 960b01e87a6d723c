import { type Availability, chooseAvailable } from './availability.js';
import { LsrError } from './errors.js';
import { quote, suggest } from './finding.js';
import type { Mesh } from './mesh.js';
import type { RenderedPath } from './path.js';
import { planPacket } from './plan.js';
import { pathsOf, type RenderedChain, renderMesh } from './render.js';
import type { TraceQuery } from './trace.js';

export interface TraceTarget {
  chain: RenderedChain;
  path: RenderedPath;
  /** Services whose function keeps packets for a while, as it gives them back. */
  keeping: ReadonlySet<string>;
  /** The segment that follows. */
  next: RenderedChain | null;
}

/** The path that a query means, at the node where it is asked. Throws REQUEST_INVALID. */
export function findTarget(
  mesh: Mesh,
  node: string,
  query: TraceQuery,
  available: Availability,
): TraceTarget {
  const { mesh: derived, chains } = renderMesh(mesh);
  const { name, slot } =
    query.chain === undefined ? planFlow(mesh, node, query) : { name: query.chain, slot: 0 };
  const chain = chains.find((candidate) => candidate.name === name);
  if (!chain) {
    const names = chains.map((candidate) => candidate.name);
    throw new LsrError('REQUEST_INVALID', `there is no chain ${quote(name)}${suggest(name, names)}`);
  }
  if (!chain.at.includes(node)) {
    const edges = chain.at.join(', ');
    throw new LsrError(
      'REQUEST_INVALID',
      `chain ${quote(name)} begins at ${edges}, not at ${node}; ask the agent there`,
    );
  }
  const keeping = Object.entries(derived.services ?? {}).flatMap(([service, { function: kind, options }]) =>
    kind === 'stack' || (kind === 'inline' && options !== 'stripped') ? [service] : [],
  );
  return {
    chain,
    path: findPath(chain, query.path, slot, available),
    keeping: new Set(keeping),
    next: chains.find((candidate) => candidate.name === chain.next) ?? null,
  };
}

/** The path with this id; without one, that of flows in the slot or, where none of theirs is up, as if all were. */
function findPath(
  chain: RenderedChain,
  id: number | undefined,
  slot: number,
  available: Availability,
): RenderedPath {
  if (id === undefined) {
    const { now } = chooseAvailable(chain.ways, available, Date.now());
    return now[slot] ?? chain.ways[0]?.slots[slot] ?? chain.path;
  }
  const paths = pathsOf(chain);
  const path = paths.find((candidate) => candidate.id === id);
  if (path) return path;
  const known = paths.map((candidate) => candidate.id).join(', ');
  throw new LsrError(
    'REQUEST_INVALID',
    `chain ${quote(chain.name)} has no path ${id}; its paths are ${known}`,
  );
}

function planFlow(mesh: Mesh, node: string, query: TraceQuery): { name: string; slot: number } {
  const { source, destination, protocol, sourcePort, destinationPort } = query;
  if (source === undefined || destination === undefined)
    throw new LsrError('REQUEST_INVALID', 'name a chain, or the source and destination of a flow');
  const plan = planPacket(mesh, {
    from: source,
    to: destination,
    protocol,
    sourcePort,
    destinationPort,
    at: node,
  });
  if (plan.chain === null)
    throw new LsrError(
      'REQUEST_INVALID',
      `the flow takes no chain here: ${plan.reason ?? 'no rule matches'}`,
    );
  if (plan.slot === null && plan.paths > 1)
    throw new LsrError(
      'REQUEST_INVALID',
      `which of the ${plan.paths} paths of ${quote(plan.chain)} the flow takes depends on its protocol and ports; give them too`,
    );
  return { name: plan.chain, slot: plan.slot ?? 0 };
}
