import { formatAddress, formatPrefix } from './address.js';
import type { ChainView } from './api-schemas.js';
import { type Availability, chooseAvailable } from './availability.js';
import type { ProbedPath } from './prober.js';
import type { RenderedChain } from './render.js';

interface Watch {
  /** Paths that this host probes, by id. */
  watched: ReadonlySet<number>;
  available: Availability;
}

/** A chain as people see it. */
export function describeChain(
  chain: RenderedChain,
  { watched, available }: Watch,
): Omit<ChainView, 'packets'> {
  const { name, id, path, ways, destinations, takenBy } = chain;
  return {
    name,
    id,
    mode: path.mode,
    hops: listHops(chain),
    paths: listPaths(ways, { watched, available }),
    record: path.record,
    overhead: path.options.length,
    destinations: destinations.map(formatPrefix),
    rules: takenBy.map((rule) => rule.name),
  };
}

/** The paths that a node has to choose between for its chains, and where they end. */
export function listChoices(chains: readonly RenderedChain[], node: string): ProbedPath[] {
  const choices = chains
    .filter(({ at }) => at.includes(node))
    .map(({ ways }) => [...new Set(ways.flatMap(({ slots }) => slots))])
    .filter((paths) => paths.length > 1)
    .flat();
  return [...new Set(choices)].map(({ id, hops }) => ({ id, end: hops.at(-1)?.address ?? 0 }));
}

/** With all services: by place, each node once. */
function listHops({ ways }: RenderedChain): ChainView['hops'] {
  const slots = ways[0]?.slots ?? [];
  return (slots[0]?.hops ?? []).map(({ service, node }, index) => {
    const nodes = new Map(slots.map(({ hops }) => [hops[index]?.node ?? '', hops[index]?.address ?? 0]));
    return {
      name: service ?? node,
      nodes: [...nodes].sort().map(([name, address]) => ({ node: name, address: formatAddress(address) })),
    };
  });
}

function listPaths(ways: RenderedChain['ways'], { watched, available }: Watch): ChainView['paths'] {
  const { now: chosen } = chooseAvailable(ways, available, Date.now());
  const seen = new Set<number>();
  return ways.flatMap(({ absent, slots }) =>
    [...new Set(slots)].flatMap(({ id, hops }): ChainView['paths'] => {
      if (seen.has(id)) return [];
      seen.add(id);
      return [
        {
          id,
          nodes: hops.map(({ node }) => node),
          absent: absent.map(({ service }) => service),
          state: available.down.has(id) ? 'down' : watched.has(id) ? 'up' : 'unwatched',
          share: chosen.filter((path) => path?.id === id).length / chosen.length,
        },
      ];
    }),
  );
}
