import { createHash } from 'node:crypto';
import { type Address, formatAddress, type Prefix, parseAddress } from './address.js';
import { type Derivation, deriveMesh } from './derive.js';
import { LsrError } from './errors.js';
import { enums } from './layout.js';
import { ADDRESS_BYTES, OPTION_BYTES_MAX, ROUTE_HEAD_BYTES, TAG_BYTES } from './limits.js';
import { readRulePrefix } from './match.js';
import { lookUp, type Mesh, type MeshChain, type MeshRule, type MeshService, readIntegrity } from './mesh.js';
import { countOptionBytes, countRecordBytes } from './option-bytes.js';

export interface Hop {
  node: string;
  /** The service it was named by; null where the chain names the node. */
  service: string | null;
  address: Address;
  /** The service whose function gets its packets there; null where they only pass. */
  function: string | null;
  /** Smallest MTU towards the node, bytes; null where the document says none. */
  mtu: number | null;
}

/** What the tag of a path's packets covers; `none`: they have no tag. */
export type Binding = 'none' | 'addresses' | 'ports';

export interface RenderedPath {
  /** The same on every host: from mode, addresses, record and binding. Never 0. */
  id: number;
  binding: Binding;
  /** Its hops take no packet twice. */
  once: boolean;
  mode: 'loose' | 'strict';
  hops: Hop[];
  /** Record Route slots. */
  record: number;
  /** Of the Record Route option; 0 without. */
  recordBytes: number;
  /** Smallest MTU of its legs, bytes; null where the document says none. */
  mtu: number | null;
  /** As the edge writes them, the destination still 0.0.0.0. */
  options: Uint8Array;
  /** Where in `options` the destination goes. */
  destinationOffset: number;
}

export interface RenderedChain extends Derivation {
  name: string;
  /** From the name. Never 0. */
  id: number;
  /** In the integrity option, 1…16383; 0 where its packets have none. */
  number: number;
  path: RenderedPath;
  /** The same path without a tag, where packets without one are taken as well. */
  untagged: RenderedPath | null;
  /** What becomes of fragments that its rules match. */
  fragments: 'chain' | 'drop';
  /** The destinations of its rules, each once. */
  destinations: Prefix[];
}

export interface Rendered {
  /** The document with what follows from it: see deriveMesh(). */
  mesh: Mesh;
  chains: RenderedChain[];
  /** Distinct ones. */
  paths: RenderedPath[];
}

const optionTypes = { end: 0, recordRoute: 7, loose: 131, strict: 137, integrity: 158 } as const;

/** What travels on the wire for each chain of a checked mesh, and of those that follow from it. */
export function renderMesh(document: Mesh): Rendered {
  const { mesh, chains: derivations } = deriveMesh(document);
  const paths = new Map<string, RenderedPath>();
  const numbers = numberChains(mesh);
  const share = (rendered: RenderedPath): RenderedPath => {
    const text = describePath(rendered);
    const path = paths.get(text) ?? rendered;
    paths.set(text, path);
    return path;
  };
  const chains = Object.entries(mesh.chains).map(([name, chain]): RenderedChain => {
    const { fragments = 'chain', binding = 'ports' } = chain;
    const mode = readIntegrity(mesh, chain);
    const derivation = derivations.get(name);
    if (!derivation) throw new LsrError('INTERNAL', `chain ${name} follows from none`);
    return {
      ...derivation,
      name,
      id: hashText(name),
      number: numbers.get(name) ?? 0,
      path: share(renderPath(mesh, chain, mode === 'off' ? 'none' : binding)),
      untagged: mode === 'verify' ? share(renderPath(mesh, chain, 'none')) : null,
      fragments,
      destinations: listDestinations(derivation.takenBy),
    };
  });
  return { mesh, chains, paths: [...paths.values()] };
}

/**
 * Destination and option bytes of a packet that arrives at hop `position` (1…k): the hops before it are recorded in the
 * source route (RFC 791 §3.1) and, as far as there are slots, in Record Route; the edge records itself in neither.
 * What is made for each packet, the number and the tag of the integrity option, is zero.
 */
export function headerAt(
  path: RenderedPath,
  position: number,
  destination: Address,
): { destination: Address; options: Uint8Array } {
  const hop = path.hops[position - 1];
  if (!hop) throw new LsrError('INTERNAL', `a path of ${path.hops.length} hops has no position ${position}`);
  const before = path.hops.slice(0, position - 1).map(({ address }) => address);
  const after = path.hops.slice(position).map(({ address }) => address);
  const options = encodeOptions(path, position, [...before, ...after, destination], before);
  return { destination: hop.address, options };
}

/** Packets of which path a chain takes: with its tag, and without where that is allowed. */
export const pathsOf = ({ path, untagged }: RenderedChain): RenderedPath[] =>
  untagged ? [path, untagged] : [path];

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

/** The nodes of a chain's hops; null for a hop that does not exist. */
export function resolveHops(mesh: Mesh, chain: MeshChain): (Hop | null)[] {
  return chain.hops.map((name) => {
    const service = lookUp(mesh.services, name);
    const node = service?.nodes[0] ?? name;
    const { address: text = '', mtu = null } = lookUp(mesh.nodes, node) ?? {};
    const address = parseAddress(text);
    const served = service && isServed(service) ? name : null;
    return address === null ? null : { node, service: service ? name : null, address, function: served, mtu };
  });
}

/** Whether packets leave the way of a transit hop for this service. */
export const isServed = ({ function: kind }: MeshService): boolean =>
  kind === 'stack' || kind === 'inline' || kind === 'tap';

/** What tells paths apart: how they look on the wire, and what is done with their packets. */
export function describePath(path: PathShape): string {
  const functions = path.hops.map((hop) => hop.function ?? '').join(',');
  const route = describeRoute(path);
  const served = functions.replaceAll(',', '') === '' ? route : `${route} ${functions}`;
  return path.binding === 'none' ? served : `${served} ${path.binding}${path.once ? ' once' : ''}`;
}

/** How the packets of a path look on the wire, but for the integrity option. */
export function describeRoute({ mode, hops, record }: Pick<PathShape, 'mode' | 'hops' | 'record'>): string {
  return `${mode} ${hops.map(({ address }) => formatAddress(address)).join(',')} ${record}`;
}

type PathShape = Pick<RenderedPath, 'mode' | 'hops' | 'record' | 'binding' | 'once'>;

/** The first 4 bytes of SHA-256; 0 means "none" in the data path and becomes 1. */
export function hashText(text: string): number {
  return createHash('sha256').update(text).digest().readUInt32BE(0) || 1;
}

function renderPath(mesh: Mesh, chain: MeshChain, binding: Binding): RenderedPath {
  const { mode = 'loose', record = 0 } = chain;
  const hops = resolveHops(mesh, chain).filter((hop) => hop !== null);
  if (
    hops.length !== chain.hops.length ||
    countOptionBytes(hops.length, record, binding !== 'none') > OPTION_BYTES_MAX
  ) {
    throw new LsrError('INTERNAL', `a chain with the hops ${chain.hops.join(', ')} got past the checks`);
  }
  const addresses = hops.map(({ address }) => address);
  const once = binding !== 'none' && chain.duplicates === 'drop';
  const shape: PathShape = { mode, hops, record, binding, once };
  return {
    id: hashText(describePath(shape)),
    ...shape,
    recordBytes: countRecordBytes(record),
    mtu: hops.reduce<number | null>(
      (least, { mtu }) => (mtu === null ? least : Math.min(mtu, least ?? mtu)),
      null,
    ),
    options: encodeOptions(shape, 1, [...addresses.slice(1), 0], []),
    destinationOffset: countTagBytes(shape) + ROUTE_HEAD_BYTES + ADDRESS_BYTES * (hops.length - 1),
  };
}

/** Where the source route begins. */
export const countTagBytes = ({ binding }: Pick<RenderedPath, 'binding'>): number =>
  binding === 'none' ? 0 : TAG_BYTES;

/** Canonical layout: integrity option, source route, Record Route, end-of-list padding. */
function encodeOptions(
  path: PathShape,
  position: number,
  route: readonly Address[],
  recorded: readonly Address[],
): Uint8Array {
  const { mode, record } = path;
  const begin = countTagBytes(path);
  const options = Buffer.alloc(countOptionBytes(route.length, record, begin > 0), optionTypes.end);
  if (begin > 0) options.set([optionTypes.integrity, TAG_BYTES]);
  const at = writeRoute(options, begin, optionTypes[mode], position, route);
  if (record > 0) {
    const slots = Array.from({ length: record }, (_, slot) => recorded[slot] ?? 0);
    writeRoute(options, at, optionTypes.recordRoute, Math.min(recorded.length, record) + 1, slots);
  }
  return options;
}

/** Writes type, length, pointer (4 for the first address) and addresses; returns where the next option begins. */
function writeRoute(
  options: Buffer,
  at: number,
  type: number,
  position: number,
  route: readonly Address[],
): number {
  const length = ROUTE_HEAD_BYTES + ADDRESS_BYTES * route.length;
  options.set([type, length, ADDRESS_BYTES * position], at);
  route.forEach((address, index) => {
    options.writeUInt32BE(address, at + ROUTE_HEAD_BYTES + ADDRESS_BYTES * index);
  });
  return at + length;
}

function listDestinations(rules: readonly MeshRule[]): Prefix[] {
  const prefixes = rules.map(({ match }) => readRulePrefix(match.destination));
  return [...new Map(prefixes.map((prefix) => [`${prefix.address}/${prefix.length}`, prefix])).values()];
}
