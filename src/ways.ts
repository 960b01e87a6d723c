import { enums } from './layout.js';
import { PATHS_OF_CHAIN } from './limits.js';
import { listReplicas, lookUp, type Mesh, type MeshChain } from './mesh.js';
import { assignSlots, scramble } from './slots.js';

const { LSR_SLOTS } = enums.lsr_limits;

/** A service that a way leaves out, or replaces. */
export interface Absence {
  service: string;
  /** The service that is taken instead; null where none is. */
  instead: string | null;
}

/** The words of a chain's hops while some of its services are away, and for each slot the nodes that it uses. */
export interface Way {
  absent: readonly Absence[];
  hops: readonly string[];
  /** As many as the data path has, or one where there is no choice. */
  slots: readonly (readonly string[])[];
}

/**
 * All ways of a chain, the one with all services first, those with the fewest away next. `whole` is the chain of the
 * document, of which this one may be a segment or the way back: all of them use the same nodes in the same slot.
 */
export function listWays(mesh: Mesh, chain: MeshChain, whole: MeshChain): Way[] {
  const groups = countGroups(mesh, whole);
  return listAbsences(mesh, chain).map((absent) => {
    const hops = applyAbsences(chain.hops, absent);
    const nodes = hops.map((hop) => assignSlots(slotName(hop), listReplicas(mesh, hop), groups));
    const slots = Array.from({ length: groups === 1 ? 1 : LSR_SLOTS }, (_, slot) =>
      nodes.map((assigned) => assigned[Math.floor((slot * groups) / LSR_SLOTS)] ?? ''),
    );
    return { absent, hops, slots };
  });
}

/** How many combinations of nodes and of services that may be away a chain has, or somewhat more: what it may come to. */
export function countWays(mesh: Mesh, chain: MeshChain): number {
  return (
    Math.min(countCombinations(mesh, chain), chain.paths ?? PATHS_OF_CHAIN) *
    2 ** listOptional(mesh, chain).length
  );
}

/** Slots are spread over so many groups, each of which takes one path. */
function countGroups(mesh: Mesh, chain: MeshChain): number {
  const most = chain.paths ?? PATHS_OF_CHAIN;
  const combinations = countCombinations(mesh, chain);
  return combinations === 1 ? 1 : combinations <= most ? LSR_SLOTS : most;
}

function countCombinations(mesh: Mesh, chain: MeshChain): number {
  const alternates = listOptional(mesh, chain).flatMap(({ instead }) => instead ?? []);
  return [...chain.hops, ...alternates].reduce((product, hop) => product * listReplicas(mesh, hop).length, 1);
}

/** A service that packets enter by the other side on their way back has the same nodes in the same slots. */
const slotName = (hop: string): string => hop.split('/')[0] ?? hop;

/** What may be away, in the order of the hops. */
function listOptional(mesh: Mesh, { hops }: MeshChain): Absence[] {
  return hops.flatMap((service): Absence[] => {
    const { unavailable = 'drop', alternate = null } = lookUp(mesh.services, service) ?? {};
    return unavailable === 'drop' ? [] : [{ service, instead: unavailable === 'skip' ? null : alternate }];
  });
}

/** All sets of services that may be away together, the smallest first. */
function listAbsences(mesh: Mesh, chain: MeshChain): Absence[][] {
  const sets: Absence[][] = [[]];
  for (const absence of listOptional(mesh, chain)) sets.push(...sets.map((set) => [...set, absence]));
  return sets.sort((a, b) => a.length - b.length);
}

function applyAbsences(hops: readonly string[], absent: readonly Absence[]): string[] {
  return hops.flatMap((hop) => {
    const absence = absent.find(({ service }) => service === hop);
    return absence ? (absence.instead ?? []) : hop;
  });
}

/** A path over some nodes, as choosePaths() tells them apart. */
interface Path {
  id: number;
  hops: readonly { node: string }[];
}

/**
 * The path of each slot, where `isUp` tells which paths can be used; null where none can. A slot whose own path is up keeps it, whatever
 * becomes of others. One whose path is down goes along with a slot whose path is up: one of those with the most
 * hops in common, chosen by hash. Ways with services away are used when none of the ways before them is up.
 */
export function choosePaths<P extends Path>(
  ways: readonly { slots: readonly P[] }[],
  isUp: (path: P) => boolean,
): (P | null)[] {
  const best = ways.find(({ slots }) => slots.some(isUp));
  if (!best) return (ways[0]?.slots ?? []).map(() => null);
  const up = [...new Set(best.slots)].filter(isUp);
  if (up.length === new Set(best.slots).size) return [...best.slots];
  const shares = new Map(up.map((path) => [path, best.slots.filter((other) => other === path).length]));
  return best.slots.map((own, slot) => (shares.has(own) ? own : chooseInstead(own, slot, shares)));
}

/** By rendezvous hashing among the nearest, each with the weight of its slots. */
function chooseInstead<P extends Path>(own: P, slot: number, shares: ReadonlyMap<P, number>): P | null {
  const common = (path: P): number => path.hops.filter(({ node }, i) => own.hops[i]?.node === node).length;
  const most = Math.max(...[...shares.keys()].map(common));
  const nearest = [...shares].filter(([path]) => common(path) === most);
  const score = ([path, share]: [P, number]): number =>
    -Math.log((scramble(path.id, slot) + 0.5) / 2 ** 32) / share;
  return nearest.reduce((a, b) => (score(b) < score(a) ? b : a))[0];
}
