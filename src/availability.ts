import type { Drains } from './drains.js';
import type { RenderedPath } from './path.js';
import type { RenderedWay } from './render.js';
import { choosePaths } from './ways.js';

/** What keeps an edge from using all paths of its chains. */
export interface Availability {
  /** Paths that cannot be used, by id. */
  down: ReadonlySet<number>;
  /** Nodes that flows leave: to the value, ms since 1970, only those that begin from now on. */
  drained: ReadonlyMap<string, number>;
}

export const allAvailable: Availability = { down: new Set(), drained: new Map() };

export const readDrained = (drains: Drains): ReadonlyMap<string, number> =>
  new Map(drains.map(({ node, until }) => [node, Date.parse(until)]));

export interface Choice {
  /** The path of each slot; null where none can be used. */
  now: (RenderedPath | null)[];
  /** While nodes are drained: of the flows that were there before; null at all other times. */
  before: (RenderedPath | null)[] | null;
}

/** A drained node is still used where nothing else is left. */
export function chooseAvailable(
  ways: readonly RenderedWay[],
  { down, drained }: Availability,
  now: number,
): Choice {
  const choose = (avoided: (until: number) => boolean): (RenderedPath | null)[] => {
    const isAvoided = ({ hops }: RenderedPath): boolean =>
      hops.some(({ node }) => {
        const until = drained.get(node);
        return until !== undefined && avoided(until);
      });
    const isUp = (path: RenderedPath): boolean => !down.has(path.id);
    const chosen = choosePaths(ways, (path) => isUp(path) && !isAvoided(path));
    return chosen.every((path) => path === null) ? choosePaths(ways, isUp) : chosen;
  };
  const leaving = [...drained.values()].some((until) => until > now);
  return { now: choose(() => true), before: leaving ? choose((until) => until <= now) : null };
}
