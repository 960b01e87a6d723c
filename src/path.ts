import { createHash } from 'node:crypto';
import { type Address, formatAddress, parseAddress } from './address.js';
import { LsrError } from './errors.js';
import { ADDRESS_BYTES, OPTION_BYTES_MAX, ROUTE_HEAD_BYTES, TAG_BYTES } from './limits.js';
import { lookUp, type Mesh, type MeshChain, type MeshService } from './mesh.js';
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
  hops: readonly Hop[];
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

const optionTypes = { end: 0, recordRoute: 7, loose: 131, strict: 137, integrity: 158 } as const;

/** A hop as it is at one of its nodes; null where there is no such node. */
export function resolveHop(mesh: Mesh, name: string, node: string): Hop | null {
  const service = lookUp(mesh.services, name);
  const { address: text = '', mtu = null } = lookUp(mesh.nodes, node) ?? {};
  const address = parseAddress(text);
  const served = service && isServed(service) ? name : null;
  return address === null ? null : { node, service: service ? name : null, address, function: served, mtu };
}

/** Whether a hop has to look at more than the route for this service: it has a function there, or one that may be unwell. */
export const isServed = ({ function: kind, check }: MeshService): boolean =>
  kind === 'stack' || kind === 'inline' || kind === 'tap' || check !== undefined;

/** The path of a chain over these nodes, in the order of its hops. */
export function renderPath(chain: MeshChain, hops: readonly Hop[], binding: Binding): RenderedPath {
  const { mode = 'loose', record = 0 } = chain;
  if (countOptionBytes(hops.length, record, binding !== 'none') > OPTION_BYTES_MAX)
    throw new LsrError('INTERNAL', `a chain of ${hops.length} hops got past the checks`);
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
