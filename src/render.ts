import type { Prefix } from './address.js';
import { type Derivation, deriveMesh } from './derive.js';
import { LsrError } from './errors.js';
import { enums } from './layout.js';
import { readRulePrefix } from './match.js';
import { lookUp, type Mesh, type MeshChain, type MeshRule, onDeviation, readIntegrity } from './mesh.js';
import { type Binding, describePath, hashText, type RenderedPath, renderPath, resolveHop } from './path.js';
import { type Absence, listWays } from './ways.js';

export interface RenderedChain extends Derivation {
  name: string;
  /** From the name. Never 0. */
  id: number;
  /** In the integrity option, 1…16383; 0 where its packets have none. */
  number: number;
  /** The first of its paths; mode, record, binding and, but for services that are away, the size are those of all. */
  path: RenderedPath;
  /** Which path each slot takes: with all its services, then with some of them away. */
  ways: RenderedWay[];
  /** The same paths without a tag, where packets without one are taken as well. */
  untagged: RenderedPath[];
  /** What becomes of fragments that its rules match. */
  fragments: 'chain' | 'drop';
  /** What becomes of packets that took another way; null: see onDeviation() in mesh.ts. */
  onDeviation: 'drop' | 'report' | null;
  /** The destinations of its rules, each once. */
  destinations: Prefix[];
}

export interface RenderedWay {
  absent: readonly Absence[];
  /** One, or as many as the data path has. */
  slots: RenderedPath[];
}

export interface Rendered {
  /** The document with what follows from it: see deriveMesh(). */
  mesh: Mesh;
  chains: RenderedChain[];
  /** Distinct ones. */
  paths: RenderedPath[];
}

/** What travels on the wire for each chain of a checked mesh, and of those that follow from it. */
export function renderMesh(document: Mesh): Rendered {
  const { mesh, chains: derivations } = deriveMesh(document);
  const paths = new Map<string, RenderedPath>();
  const numbers = numberChains(mesh);
  const share = (path: RenderedPath): RenderedPath => {
    const text = describePath(path);
    const shared = paths.get(text) ?? path;
    paths.set(text, shared);
    return shared;
  };
  const chains = Object.entries(mesh.chains).map(([name, chain]): RenderedChain => {
    const { fragments = 'chain', binding = 'ports' } = chain;
    const mode = readIntegrity(mesh, chain);
    const derivation = derivations.get(name);
    const whole = derivation && lookUp(document.chains, derivation.of);
    if (!whole) throw new LsrError('INTERNAL', `chain ${name} follows from none`);
    const render = (tagged: Binding): RenderedWay[] => renderWays(mesh, chain, whole, tagged, share);
    const ways = render(mode === 'off' ? 'none' : binding);
    const path = ways[0]?.slots[0];
    if (!path) throw new LsrError('INTERNAL', `chain ${name} has no path`);
    return {
      ...derivation,
      name,
      id: hashText(name),
      number: numbers.get(name) ?? 0,
      path,
      ways,
      untagged: mode === 'verify' ? listPaths(render('none')) : [],
      fragments,
      onDeviation: onDeviation(chain),
      destinations: listDestinations(derivation.takenBy),
    };
  });
  return { mesh, chains, paths: [...paths.values()] };
}

/** Each combination of nodes is rendered once, however many slots use it. */
function renderWays(
  mesh: Mesh,
  chain: MeshChain,
  whole: MeshChain,
  binding: Binding,
  share: (path: RenderedPath) => RenderedPath,
): RenderedWay[] {
  return listWays(mesh, chain, whole).map(({ absent, hops, slots }) => {
    const known = new Map<string, RenderedPath>();
    const render = (nodes: readonly string[]): RenderedPath => {
      const places = hops.flatMap((hop, index) => resolveHop(mesh, hop, nodes[index] ?? '') ?? []);
      if (places.length !== hops.length)
        throw new LsrError('INTERNAL', `a chain with the hops ${hops.join(', ')} got past the checks`);
      return share(renderPath(chain, places, binding));
    };
    return {
      absent,
      slots: slots.map((nodes) => {
        const key = nodes.join(' ');
        const path = known.get(key) ?? render(nodes);
        known.set(key, path);
        return path;
      }),
    };
  });
}

/** Packets of which paths a chain takes: with its tag, and without where that is allowed. */
export const pathsOf = ({ ways, untagged }: RenderedChain): RenderedPath[] => [
  ...listPaths(ways),
  ...untagged,
];

/** Distinct paths of ways, in their order. */
const listPaths = (ways: readonly RenderedWay[]): RenderedPath[] => [
  ...new Set(ways.flatMap(({ slots }) => slots)),
];

/** By name, and the next free one where two names would have the same: few move when chains come and go. */
function numberChains(mesh: Mesh): Map<string, number> {
  const count = enums.lsr_limits.LSR_CHAIN_MAX;
  const taken = new Set<number>();
  const tagged = Object.entries(mesh.chains).filter(([, chain]) => readIntegrity(mesh, chain) !== 'off');
  if (tagged.length > count) return new Map();
  return new Map(
    tagged
      .map(([name]) => name)
      .sort()
      .map((name) => {
        let number = 1 + (hashText(name) % count);
        while (taken.has(number)) number = 1 + (number % count);
        taken.add(number);
        return [name, number];
      }),
  );
}

function listDestinations(rules: readonly MeshRule[]): Prefix[] {
  const prefixes = rules.map(({ match }) => readRulePrefix(match.destination));
  return [...new Map(prefixes.map((prefix) => [`${prefix.address}/${prefix.length}`, prefix])).values()];
}
