import { type Address, containsAddress, parseAddress } from './address.js';
import { encode } from './codec.js';
import { hopKeys } from './entries.js';
import { enums } from './layout.js';
import type { RenderedPath } from './path.js';
import { pathsOf, type Rendered, type RenderedChain } from './render.js';

/** A path's header as it arrives at the hop with this position, from 1. */
export interface Prediction {
  path: RenderedPath;
  position: number;
}

/** What a packet's source route says, as the agents' tables ask for it. */
export interface RouteKey {
  type: number;
  length: number;
  pointer: number;
  /** Length of Record Route; 0 without. */
  record: number;
  /** Length of the integrity option; 0 without. */
  tag: number;
  hop: Address;
  /** All entries but the final destination. */
  entries: readonly Address[];
}

/** What all agents of a mesh know together: the tables `hops`, `destinations` and `addresses` of each of its nodes. */
export interface HeaderTable {
  findWhole(key: RouteKey): Prediction | undefined;
  /** With its route, or a part of it, at any hop of those that this node knows. */
  findPart(key: RouteKey, part: 'route' | 'recorded' | 'ahead'): Prediction | undefined;
  /** Which chain's packets these are where their path ends; undefined: none that may end there. */
  findChain(path: RenderedPath, number: number, destination: Address): RenderedChain | undefined;
  /** The node with this address in chains. */
  findNode(address: Address): string | undefined;
  owns(node: string, address: Address): boolean;
  isOfMesh(address: Address): boolean;
}

export function makeHeaderTable({ mesh, chains, paths }: Rendered): HeaderTable {
  const { whole, parts } = indexPaths(paths);
  const users = new Map<RenderedPath, RenderedChain[]>();
  for (const chain of chains)
    for (const path of pathsOf(chain)) users.set(path, [...(users.get(path) ?? []), chain]);
  const nodes = new Map<Address, string>();
  const addresses = new Map<string, Set<Address>>();
  for (const [node, { address, addresses: others = [] }] of Object.entries(mesh.nodes)) {
    const own = [address, ...others].map((text) => parseAddress(text) ?? 0);
    nodes.set(own[0] ?? 0, node);
    addresses.set(node, new Set(own));
  }
  const all = new Set([...addresses.values()].flatMap((own) => [...own]));
  const found = new Map<string, RenderedChain | null>();
  const knows = (node: string | undefined, path: RenderedPath): boolean =>
    node !== undefined &&
    (path.hops.some((hop) => hop.node === node) ||
      (users.get(path) ?? []).some((chain) => chain.at.includes(node)));

  return {
    findWhole: (key) => whole.get(encodeKey(key, 'whole')),
    findPart(key, part) {
      const node = nodes.get(key.hop);
      return parts.get(encodeKey(key, part))?.findLast(({ path }) => knows(node, path));
    },
    findChain(path, number, destination) {
      const key = `${path.id} ${number} ${destination}`;
      const known = found.get(key);
      if (known !== undefined) return known ?? undefined;
      if (found.size >= FOUND_MAX) found.clear();
      const chain = findLongest(users.get(path) ?? [], path, number, destination);
      found.set(key, chain ?? null);
      return chain;
    },
    findNode: (address) => nodes.get(address),
    owns: (node, address) => addresses.get(node)?.has(address) ?? false,
    isOfMesh: (address) => all.has(address),
  };
}

/** Destinations whose chain is remembered: a mesh may have 100,000 prefixes to look through. */
const FOUND_MAX = 65_536;

function indexPaths(paths: readonly RenderedPath[]) {
  const whole = new Map<string, Prediction>();
  const parts = new Map<string, Prediction[]>();
  for (const path of paths) {
    for (const index of path.hops.keys()) {
      const prediction = { path, position: index + 1 };
      const [first, ...others] = hopKeys(path, index + 1).map((key) => key.toString('latin1'));
      whole.set(first ?? '', prediction);
      for (const key of others) parts.set(key, [...(parts.get(key) ?? []), prediction]);
    }
  }
  return { whole, parts };
}

const { LSR_PART_AHEAD, LSR_PART_RECORDED, LSR_PART_ROUTE, LSR_PART_WHOLE } = enums.lsr_part;
const partNumbers = {
  whole: LSR_PART_WHOLE,
  route: LSR_PART_ROUTE,
  recorded: LSR_PART_RECORDED,
  ahead: LSR_PART_AHEAD,
} as const;

/** As find_part() in bpf/hop.h: entries on the other side of the pointer are zero. */
function encodeKey({ hop, entries, ...head }: RouteKey, part: keyof typeof partNumbers): string {
  const passed = head.pointer / 4 - 1;
  const isAsked = (index: number): boolean =>
    part === 'recorded' ? index < passed : part === 'ahead' ? index >= passed : true;
  return encode('lsr_hop_key', {
    ...head,
    part: partNumbers[part],
    hop: part === 'whole' ? hop : 0,
    route: entries.map((entry, index) => (isAsked(index) ? entry : 0)),
  }).toString('latin1');
}

/** The longest prefix wins, and of equal ones the last, as in the agents' table. */
function findLongest(
  chains: readonly RenderedChain[],
  path: RenderedPath,
  number: number,
  destination: Address,
): RenderedChain | undefined {
  let best: { chain: RenderedChain; length: number } | undefined;
  for (const chain of chains) {
    if ((path.binding === 'none' ? 0 : chain.number) !== number) continue;
    for (const prefix of chain.destinations) {
      if (prefix.length >= (best?.length ?? 0) && containsAddress(prefix, destination))
        best = { chain, length: prefix.length };
    }
  }
  return best?.chain;
}
