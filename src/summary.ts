import { type Static, Type } from 'typebox';
import { LsrError } from './errors.js';
import { quote, suggest } from './finding.js';
import type { RenderedPath } from './path.js';
import { reasons } from './reasons.js';
import { pathsOf, type RenderedChain } from './render.js';
import type { Traffic } from './traffic.js';

const closed = { additionalProperties: false } as const;
const Count = Type.Integer({ minimum: 0 });
const Amount = Type.Object({ packets: Count, bytes: Count }, closed);
export type Amount = Static<typeof Amount>;
const amounts = (description: string) => Type.Record(Type.String(), Amount, { description });

export const SummarySchema = Type.Object(
  {
    chain: Type.String(),
    node: Type.String(),
    verdicts: amounts('what ended here, by verdict, since the audit store was made'),
    unrouted: amounts('what began here and had no path to take, by reason'),
    paths: Type.Array(
      Type.Object(
        {
          id: Type.Integer(),
          nodes: Type.Array(Type.String(), { description: 'its hops, in order' }),
          chains: Type.Array(Type.String(), {
            description: 'that share it: their packets are counted together',
          }),
          position: Type.Integer({
            minimum: 0,
            description: 'of this node: 0 where the path begins, else its hop, from 1',
          }),
          in: Amount,
          out: Amount,
          drops: amounts('what was dropped here, by reason; what its function kept is in − out − these'),
        },
        closed,
      ),
      { description: 'those that this node has to do with, counted since its tables were made' },
    ),
  },
  closed,
);
export type Summary = Static<typeof SummarySchema>;
export type PathSummary = Summary['paths'][number];

export interface Leg {
  from: string;
  to: string;
  /** That went out at one node, and did not come in at the next. */
  packets: number;
}

/** For each path and leg between two nodes that were both asked, what was lost there. */
export function listLegs(summaries: readonly Summary[]): Leg[] {
  const seen = summaries.flatMap(({ node, paths }) => paths.map((path) => ({ node, ...path })));
  return seen.flatMap(({ id, node, position, out }) => {
    const next = seen.find((other) => other.id === id && other.position === position + 1);
    return next ? [{ from: node, to: next.node, packets: out.packets - next.in.packets }] : [];
  });
}

/** What a node knows of the packets of a chain. Throws REQUEST_INVALID. */
export function summarize(
  name: string,
  chains: readonly RenderedChain[],
  node: string,
  traffic: readonly Traffic[],
  verdicts: Summary['verdicts'],
): Summary {
  const chain = chains.find((candidate) => candidate.name === name);
  if (!chain) {
    const known = chains.map((candidate) => candidate.name);
    throw new LsrError('REQUEST_INVALID', `there is no chain ${quote(name)}${suggest(name, known)}`);
  }
  const lost = traffic.filter((row) => row.path === 0 && row.chain === chain.id);
  return {
    chain: name,
    node,
    verdicts,
    unrouted: Object.fromEntries(lost.map(({ reason, packets, bytes }) => [reason, { packets, bytes }])),
    paths: pathsOf(chain).flatMap((path) => {
      const position = findPosition(chain, path, node);
      if (position === null) return [];
      const sharing = chains.filter((other) => pathsOf(other).some(({ id }) => id === path.id));
      const counted = countPath(path, position, traffic);
      return [
        {
          id: path.id,
          nodes: path.hops.map((hop) => hop.node),
          chains: sharing.map((other) => other.name),
          position,
          ...counted,
        },
      ];
    }),
  };
}

function findPosition(chain: RenderedChain, path: RenderedPath, node: string): number | null {
  if (chain.at.includes(node)) return 0;
  const index = path.hops.findIndex((hop) => hop.node === node);
  return index < 0 ? null : index + 1;
}

/**
 * A function that keeps packets gives them back as others: they are counted once when it gets them, and once when they go
 * on. Where a chain ends, what a function gets has been counted as ended before.
 */
function countPath(
  path: RenderedPath,
  position: number,
  traffic: readonly Traffic[],
): Pick<PathSummary, 'in' | 'out' | 'drops'> {
  const own = traffic.filter((row) => row.path === path.id);
  const sum = (...names: string[]): Amount => addUp(own.filter(({ reason }) => names.includes(reason)));
  const dropped = own.filter(({ reason }) => dropNames.has(reason));
  const names = [...new Set(dropped.map(({ reason }) => reason))];
  const out = position === 0 ? sum('imposed') : sum('advanced', 'ended');
  const given = sum('to_stack', 'to_device');
  const keeps = position > 0 && position < path.hops.length && given.packets > 0;
  return {
    in: addUp([keeps ? given : out, ...dropped]),
    out,
    drops: Object.fromEntries(names.map((name) => [name, sum(name)])),
  };
}

const dropNames = new Set(reasons.filter(({ kind }) => kind === 'drop').map(({ name }) => name));

const addUp = (amounts: readonly Amount[]): Amount => ({
  packets: amounts.reduce((sum, { packets }) => sum + packets, 0),
  bytes: amounts.reduce((sum, { bytes }) => sum + bytes, 0),
});
