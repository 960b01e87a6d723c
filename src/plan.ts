import { type Address, formatAddress, isUnicast, parseAddress } from './address.js';
import { LsrError } from './errors.js';
import { quote, suggest } from './finding.js';
import { readAddress, readProtocol } from './flow-argument.js';
import { chooseSlot } from './flow-hash.js';
import {
  ADDRESS_BYTES,
  BASE_HEADER_BYTES,
  ETHERNET_MTU,
  ROUTE_HEAD_BYTES,
  TCP_IP_HEADER_BYTES,
} from './limits.js';
import { type Difference, findDifferences, hasPorts, matchRule, type Packet, protocolName } from './match.js';
import { lookUp, type Mesh, type Origin, origins, protocolNumbers } from './mesh.js';
import { countTagBytes, headerAt, type RenderedPath } from './path.js';
import { type RenderedChain, renderMesh } from './render.js';

export { formatPlan } from './plan-text.js';

/** A packet as a user describes it. */
export interface PlanRequest {
  from: string;
  to: string;
  protocol?: string | number | undefined;
  sourcePort?: number | undefined;
  destinationPort?: number | undefined;
  /** It is a fragment of a datagram. */
  fragment?: boolean | undefined;
  dscp?: number | undefined;
  mark?: number | undefined;
  /** Of the socket that sends it. */
  cgroup?: string | undefined;
  /** The node where it enters the mesh; default the node whose address `from` is, else whichever has a rule. */
  at?: string | undefined;
  /** Default local where `from` is an address of that node, else edge. */
  origin?: Origin | undefined;
}

/** What travels from one hop to the next. */
export interface Leg {
  from: string;
  to: string;
  /** IPv4 destination while on this leg. */
  destination: string;
  /** Of the source route. */
  pointer: number;
  /** All option bytes, hex. */
  options: string;
  /** Entries of the source route. */
  route: string[];
  /** Addresses recorded in Record Route so far. */
  recordRoute: string[];
}

export interface Plan {
  packet: {
    from: string;
    to: string;
    protocol: string | null;
    sourcePort: number | null;
    destinationPort: number | null;
    dscp: number;
    mark: number;
    cgroup: string | null;
    origin: Origin;
  };
  /** The node that classifies it. */
  at: string | null;
  /** null: the packet passes unchained, and `reason` says why. */
  rule: string | null;
  chain: string | null;
  mode: 'loose' | 'strict' | null;
  reason: string | null;
  /** The rule that differs least, where none matches. */
  nearest: { rule: string; differences: Difference[] } | null;
  /** Option bytes in each packet. */
  overhead: number;
  headerBytes: number;
  mtu: number;
  /** The largest TCP MSS that fits the MTU; null for other protocols. */
  mss: number | null;
  /** Record Route slots. */
  record: number;
  /** The number of the chain in the integrity option; null without one. */
  number: number | null;
  /** How many paths the chain has, with all its services. */
  paths: number;
  /** The slot that the flow falls into; null without a choice, or where its ports would have to be known. */
  slot: number | null;
  legs: Leg[];
}

/** What happens to one packet. Throws USAGE for one that cannot be. */
export function planPacket(mesh: Mesh, request: PlanRequest): Plan {
  const packet = readPacket(mesh, request);
  const { mesh: derived, chains } = renderMesh(mesh);
  const rule = matchRule(derived, packet);
  const chain = rule && chains.find(({ name }) => name === rule.chain);
  const ways = chain?.ways[0]?.slots ?? [];
  const slot = ways.length > 1 ? findSlot(packet) : 0;
  const path = (slot === null ? ways[0] : ways[slot]) ?? null;
  const overhead = path?.options.length ?? 0;
  const mtu = Math.min(ETHERNET_MTU, path?.mtu ?? ETHERNET_MTU);
  const at = packet.at ?? rule?.at[0] ?? null;
  const missed = rule ? { reason: null, nearest: null } : explainMiss(derived, packet);
  return {
    packet: describePacket(packet),
    at,
    rule: rule?.name ?? null,
    chain: rule?.chain ?? null,
    mode: path?.mode ?? null,
    ...missed,
    overhead,
    headerBytes: BASE_HEADER_BYTES + overhead,
    mtu,
    mss: packet.protocol === protocolNumbers.tcp ? mtu - TCP_IP_HEADER_BYTES - overhead : null,
    record: path?.record ?? 0,
    number: chain?.number || null,
    paths: new Set(ways).size,
    slot: ways.length > 1 ? slot : null,
    legs: chain && path && at !== null ? makeAllLegs(chains, chain, path, at, packet, slot) : [],
  };
}

function readPacket(mesh: Mesh, request: PlanRequest): Packet {
  const source = readAddress('from', request.from);
  const destination = readAddress('to', request.to);
  const owner = findOwner(mesh, source);
  const at = request.at ?? owner;
  if (at !== null && !lookUp(mesh.nodes, at)) {
    throw new LsrError(
      'USAGE',
      `at is ${quote(at)}, which is no node${suggest(at, Object.keys(mesh.nodes))}`,
    );
  }
  const origin = request.origin ?? (owner !== null && owner === at ? 'local' : 'edge');
  if (!origins.includes(origin)) {
    throw new LsrError('USAGE', `origin is ${quote(origin)}; it must be one of ${origins.join(', ')}`);
  }
  return {
    source,
    destination,
    protocol: readProtocol(request.protocol),
    sourcePort: readNumber('sourcePort', request.sourcePort, 65535),
    destinationPort: readNumber('destinationPort', request.destinationPort, 65535),
    fragment: request.fragment ?? false,
    dscp: readNumber('dscp', request.dscp, 63) ?? 0,
    mark: readNumber('mark', request.mark, 0xffffffff) ?? 0,
    cgroup: request.cgroup ?? null,
    origin,
    at,
  };
}

function readNumber(name: string, value: number | undefined, maximum: number): number | null {
  if (value === undefined) return null;
  if (Number.isInteger(value) && value >= 0 && value <= maximum) return value;
  throw new LsrError('USAGE', `${name} is ${value}; write a whole number from 0 to ${maximum}`);
}

function findOwner(mesh: Mesh, address: Address): string | null {
  const owner = Object.entries(mesh.nodes).find(([, node]) =>
    [node.address, ...(node.addresses ?? [])].some((text) => parseAddress(text) === address),
  );
  return owner?.[0] ?? null;
}

function explainMiss(mesh: Mesh, packet: Packet): Pick<Plan, 'reason' | 'nearest'> {
  if (!isUnicast(packet.destination)) {
    const reason = `${formatAddress(packet.destination)} is no address of one host, and chains lead to one`;
    return { reason, nearest: null };
  }
  const [first, ...others] = mesh.rules.map(({ name }) => name);
  if (first === undefined) return { reason: 'the mesh has no rules', nearest: null };
  const compared = mesh.rules.map((rule) => ({
    rule: rule.name,
    differences: findDifferences(rule, packet),
  }));
  const nearest = compared.reduce((best, other) =>
    other.differences.length < best.differences.length ? other : best,
  );
  const reason =
    others.length === 0 ? 'the only rule does not match' : `none of ${mesh.rules.length} rules matches`;
  return { reason, nearest };
}

function describePacket(packet: Packet): Plan['packet'] {
  const { source, destination, protocol, sourcePort, destinationPort, dscp, mark, cgroup, origin } = packet;
  return {
    from: formatAddress(source),
    to: formatAddress(destination),
    protocol: protocol === null ? null : protocolName(protocol),
    sourcePort,
    destinationPort,
    dscp,
    mark,
    cgroup,
    origin,
  };
}

/** Where the ports count, both have to be given. */
function findSlot({
  source,
  sourcePort,
  destination,
  destinationPort,
  protocol,
  fragment,
}: Packet): number | null {
  if (protocol === null) return null;
  const ported = hasPorts(protocol) && !fragment;
  if (ported && (sourcePort === null || destinationPort === null)) return null;
  const port = (given: number | null): number => (ported ? (given ?? 0) : 0);
  return chooseSlot(
    { address: source, port: port(sourcePort) },
    { address: destination, port: port(destinationPort) },
    protocol,
  );
}

/** Over all segments of a chain. */
function makeAllLegs(
  chains: readonly RenderedChain[],
  chain: RenderedChain,
  path: RenderedPath,
  at: string,
  packet: Packet,
  slot: number | null,
): Leg[] {
  const legs = makeLegs(path, at, packet.destination);
  const next = chains.find(({ name }) => name === chain.next);
  const slots = next?.ways[0]?.slots ?? [];
  const following = slots[slots.length > 1 ? (slot ?? 0) : 0];
  if (!next || !following) return legs;
  return [...legs, ...makeAllLegs(chains, next, following, legs.at(-1)?.to ?? at, packet, slot)];
}

function makeLegs(path: RenderedPath, at: string, destination: Address): Leg[] {
  return path.hops.map((hop, index) => {
    const header = headerAt(path, index + 1, destination);
    const bytes = Buffer.from(header.options);
    const route = readOption(bytes, countTagBytes(path));
    const record = path.record > 0 ? readOption(bytes, countTagBytes(path) + route.length) : null;
    return {
      from: path.hops[index - 1]?.node ?? at,
      to: hop.node,
      destination: formatAddress(header.destination),
      pointer: route.pointer,
      options: bytes.toString('hex'),
      route: route.addresses,
      recordRoute: record ? record.addresses.slice(0, record.pointer / ADDRESS_BYTES - 1) : [],
    };
  });
}

function readOption(bytes: Buffer, at: number): { length: number; pointer: number; addresses: string[] } {
  const [, length = 0, pointer = 0] = bytes.subarray(at);
  const count = (length - ROUTE_HEAD_BYTES) / ADDRESS_BYTES;
  const addresses = Array.from({ length: count }, (_, i) =>
    formatAddress(bytes.readUInt32BE(at + ROUTE_HEAD_BYTES + ADDRESS_BYTES * i)),
  );
  return { length, pointer, addresses };
}
