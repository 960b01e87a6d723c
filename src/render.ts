import { createHash } from 'node:crypto';
import { type Address, formatAddress, type Prefix, parseAddress } from './address.js';
import { LsrError } from './errors.js';
import { ADDRESS_BYTES, OPTION_BYTES_MAX, ROUTE_HEAD_BYTES } from './limits.js';
import { readRulePrefix } from './match.js';
import { lookUp, type Mesh, type MeshChain } from './mesh.js';

export interface Hop {
  node: string;
  /** The service it was named by; null where the chain names the node. */
  service: string | null;
  address: Address;
  /** Smallest MTU towards the node, bytes; null where the document says none. */
  mtu: number | null;
}

export interface RenderedPath {
  /** The same on every host: from mode, addresses and record. Never 0. */
  id: number;
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

export interface RenderedChain {
  name: string;
  /** From the name. Never 0. */
  id: number;
  path: RenderedPath;
  /** What becomes of fragments that its rules match. */
  fragments: 'chain' | 'drop';
  /** The destinations of its rules, each once. */
  destinations: Prefix[];
}

export interface Rendered {
  chains: RenderedChain[];
  /** Distinct ones. */
  paths: RenderedPath[];
}

const optionTypes = { end: 0, recordRoute: 7, loose: 131, strict: 137 } as const;

/** What travels on the wire for each chain of a checked mesh. */
export function renderMesh(mesh: Mesh): Rendered {
  const paths = new Map<string, RenderedPath>();
  const destinations = groupDestinations(mesh);
  const chains = Object.entries(mesh.chains).map(([name, chain]) => {
    const rendered = renderPath(mesh, chain);
    const text = describePath(rendered);
    const path = paths.get(text) ?? rendered;
    paths.set(text, path);
    const { fragments = 'chain' } = chain;
    return { name, id: hashText(name), path, fragments, destinations: destinations.get(name) ?? [] };
  });
  return { chains, paths: [...paths.values()] };
}

/**
 * Destination and option bytes of a packet that arrives at hop `position` (1…k): the hops before it are recorded in the
 * source route (RFC 791 §3.1) and, as far as there are slots, in Record Route; the edge records itself in neither.
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
  const options = encodeOptions(path.mode, position, [...before, ...after, destination], path.record, before);
  return { destination: hop.address, options };
}

/** The nodes of a chain's hops; null for a hop that does not exist. */
export function resolveHops(mesh: Mesh, chain: MeshChain): (Hop | null)[] {
  return chain.hops.map((name) => {
    const service = lookUp(mesh.services, name);
    const node = service?.nodes[0] ?? name;
    const { address: text = '', mtu = null } = lookUp(mesh.nodes, node) ?? {};
    const address = parseAddress(text);
    return address === null ? null : { node, service: service ? name : null, address, mtu };
  });
}

/** Bytes of options for a path, padding included. */
export function countOptionBytes(hops: number, record: number): number {
  const bytes = ROUTE_HEAD_BYTES + ADDRESS_BYTES * hops + countRecordBytes(record);
  return Math.ceil(bytes / 4) * 4; // IHL counts words of 4 bytes
}

const countRecordBytes = (slots: number): number =>
  slots > 0 ? ROUTE_HEAD_BYTES + ADDRESS_BYTES * slots : 0;

/** What tells paths apart; two chains with the same text cannot be told apart on the wire. */
export function describePath({ mode, hops, record }: Pick<RenderedPath, 'mode' | 'hops' | 'record'>): string {
  return `${mode} ${hops.map(({ address }) => formatAddress(address)).join(',')} ${record}`;
}

/** The first 4 bytes of SHA-256; 0 means "none" in the data path and becomes 1. */
export function hashText(text: string): number {
  return createHash('sha256').update(text).digest().readUInt32BE(0) || 1;
}

function renderPath(mesh: Mesh, chain: MeshChain): RenderedPath {
  const { mode = 'loose', record = 0 } = chain;
  const hops = resolveHops(mesh, chain).filter((hop) => hop !== null);
  if (hops.length !== chain.hops.length || countOptionBytes(hops.length, record) > OPTION_BYTES_MAX) {
    throw new LsrError('INTERNAL', `a chain with the hops ${chain.hops.join(', ')} got past the checks`);
  }
  const addresses = hops.map(({ address }) => address);
  return {
    id: hashText(describePath({ mode, hops, record })),
    mode,
    hops,
    record,
    recordBytes: countRecordBytes(record),
    mtu: hops.reduce<number | null>(
      (least, { mtu }) => (mtu === null ? least : Math.min(mtu, least ?? mtu)),
      null,
    ),
    options: encodeOptions(mode, 1, [...addresses.slice(1), 0], record, []),
    destinationOffset: ROUTE_HEAD_BYTES + ADDRESS_BYTES * (hops.length - 1),
  };
}

/** Canonical layout: source route, Record Route, end-of-list padding. */
function encodeOptions(
  mode: RenderedPath['mode'],
  position: number,
  route: readonly Address[],
  record: number,
  recorded: readonly Address[],
): Uint8Array {
  const options = Buffer.alloc(countOptionBytes(route.length, record), optionTypes.end);
  const at = writeRoute(options, 0, optionTypes[mode], position, route);
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

function groupDestinations(mesh: Mesh): Map<string, Prefix[]> {
  const groups = new Map<string, Map<string, Prefix>>();
  for (const { chain, match } of mesh.rules) {
    const group = groups.get(chain) ?? new Map<string, Prefix>();
    const prefix = readRulePrefix(match.destination);
    groups.set(chain, group.set(`${prefix.address}/${prefix.length}`, prefix));
  }
  return new Map([...groups].map(([chain, prefixes]) => [chain, [...prefixes.values()]]));
}
