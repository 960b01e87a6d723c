import {
  type Address,
  containsAddress,
  formatAddress,
  isUnicast,
  type Prefix,
  parsePrefix,
} from './address.js';
import { isWithin } from './cgroups.js';
import { LsrError } from './errors.js';
import { lookUp, type Mesh, type MeshRule, type Origin, type ProtocolName, protocolNumbers } from './mesh.js';

export interface PortRange {
  first: number;
  last: number;
}

/** What a rule can look at. null: not known, so that no rule that asks for it matches. */
export interface Packet {
  source: Address;
  destination: Address;
  protocol: number | null;
  sourcePort: number | null;
  destinationPort: number | null;
  /** A fragment of a datagram: its ports are not looked at, so that all fragments take one way. */
  fragment?: boolean;
  dscp: number;
  mark: number;
  /** Of the socket that sends it, below the root; null where it is in none, or comes from elsewhere. */
  cgroup: string | null;
  origin: Origin;
  /** The node that classifies it; null for whichever has a rule. */
  at: string | null;
}

/** One field in which a packet is not what a rule asks for. */
export interface Difference {
  field: string;
  wanted: string;
  found: string;
}

/** The rule that decides about a packet: of those that match, the one with the lowest priority number. */
export function matchRule(mesh: Mesh, packet: Packet): MeshRule | null {
  if (!isUnicast(packet.destination)) return null;
  return mesh.rules.reduce<MeshRule | null>((best, rule) => {
    if (best && rulePriority(best) <= rulePriority(rule)) return best;
    return findDifferences(rule, packet).length === 0 ? rule : best;
  }, null);
}

/** In which fields a packet is not what the rule asks for; none means it matches. */
export function findDifferences(rule: MeshRule, packet: Packet): Difference[] {
  const { match } = rule;
  const differences: (Difference | null)[] = [
    compareList('at', rule.at, packet.at),
    compareList('from', ruleOrigins(rule), packet.origin),
    comparePrefix('source', match.source, packet.source),
    comparePrefix('destination', match.destination, packet.destination),
    compareProtocol(match.protocol, packet.protocol),
    comparePorts('sourcePorts', match.sourcePorts, packet, packet.sourcePort),
    comparePorts('destinationPorts', match.destinationPorts, packet, packet.destinationPort),
    compareNumber('dscp', match.dscp, packet.dscp),
    compareNumber('mark', match.mark, packet.mark),
    compareCgroup(match.cgroup, packet.cgroup),
  ];
  return differences.filter((difference) => difference !== null);
}

export function rulePriority(rule: MeshRule): number {
  return rule.priority ?? 100;
}

export function ruleOrigins({ from, match }: MeshRule): readonly Origin[] {
  return from ?? (match.cgroup === undefined ? ['edge', 'local'] : ['local']);
}

export function protocolNumber(protocol: ProtocolName | number): number {
  return typeof protocol === 'number' ? protocol : protocolNumbers[protocol];
}

/** The name that a mesh document has for a protocol number, or the number. */
export function protocolName(protocol: number): string {
  const named = Object.entries(protocolNumbers).find(([, number]) => number === protocol);
  return named?.[0] ?? String(protocol);
}

/** The number of a protocol given by name or number; null when there is no such name. */
export function parseProtocol(protocol: string | number): number | null {
  if (typeof protocol === 'number') return protocol;
  return lookUp<number>(protocolNumbers, protocol) ?? null;
}

/** TCP, UDP, UDP-Lite and SCTP carry ports, as the data path has it. */
export function hasPorts(protocol: number): boolean {
  return protocol === 6 || protocol === 17 || protocol === 136 || protocol === 132;
}

/** A rule's ports as ranges that are sorted and apart. */
export function parsePorts(ports: readonly (number | string)[]): PortRange[] {
  const merged: PortRange[] = [];
  for (const range of ports.map(parsePortRange).sort((a, b) => a.first - b.first)) {
    const before = merged.at(-1);
    if (before && range.first <= before.last + 1) before.last = Math.max(before.last, range.last);
    else merged.push(range);
  }
  return merged;
}

/** A port as the range of itself, or "8000-8999". Throws INTERNAL: the checks refuse anything else. */
export function parsePortRange(port: number | string): PortRange {
  if (typeof port === 'number') return { first: port, last: port };
  const [first = Number.NaN, last = Number.NaN] = port.split('-').map(Number);
  const range = { first, last };
  if (range.first <= range.last && range.last <= 65535) return range;
  throw new LsrError('INTERNAL', `${JSON.stringify(port)} is no port range`);
}

/** A rule's prefix; what is not given is every address. Throws INTERNAL: the checks refuse anything else. */
export function readRulePrefix(text: string | undefined): Prefix {
  const prefix = parsePrefix(text ?? '0.0.0.0/0');
  if (prefix) return prefix;
  throw new LsrError('INTERNAL', `${JSON.stringify(text)} is no prefix`);
}

function compareList(field: string, wanted: readonly string[], found: string | null): Difference | null {
  if (found === null || wanted.includes(found)) return null;
  return { field, wanted: wanted.join(', '), found };
}

function comparePrefix(field: string, wanted: string | undefined, found: Address): Difference | null {
  if (wanted === undefined || containsAddress(readRulePrefix(wanted), found)) return null;
  return { field, wanted, found: formatAddress(found) };
}

function compareProtocol(wanted: MeshRule['match']['protocol'], found: number | null): Difference | null {
  if (wanted === undefined || protocolNumber(wanted) === found) return null;
  const field = 'protocol';
  return { field, wanted: String(wanted), found: found === null ? 'not given' : protocolName(found) };
}

function compareNumber(field: string, wanted: number | undefined, found: number): Difference | null {
  if (wanted === undefined || wanted === found) return null;
  return { field, wanted: String(wanted), found: String(found) };
}

function compareCgroup(wanted: string | undefined, found: string | null): Difference | null {
  if (wanted === undefined || (found !== null && isWithin(found, wanted))) return null;
  return { field: 'cgroup', wanted, found: found ?? 'none' };
}

function comparePorts(
  field: string,
  wanted: readonly (number | string)[] | undefined,
  packet: Packet,
  found: number | null,
): Difference | null {
  if (wanted === undefined || packet.fragment) return null;
  const known = packet.protocol !== null && hasPorts(packet.protocol) ? found : null;
  if (
    known !== null &&
    wanted.map(parsePortRange).some(({ first, last }) => first <= known && known <= last)
  ) {
    return null;
  }
  return { field, wanted: wanted.join(', '), found: describePort(packet.protocol, found) };
}

function describePort(protocol: number | null, port: number | null): string {
  if (protocol !== null && !hasPorts(protocol)) return `${protocolName(protocol)} has none`;
  return port === null ? 'not given' : String(port);
}
