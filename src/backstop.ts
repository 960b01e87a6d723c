import { formatPrefix } from './address.js';
import type { PortConfig } from './agent-config.js';
import { deriveMesh, documentName } from './derive.js';
import { LsrError } from './errors.js';
import { hasPorts, parsePorts, protocolNumber, readRulePrefix, ruleOrigins, rulePriority } from './match.js';
import { lookUp, type Mesh, type MeshRule, type Origin, onMissing, origins } from './mesh.js';

/** The agent's own table in nftables, and the set of the ports that need no backstop. */
export const tableName = 'lsr-agent';
export const setName = 'programs';

/** What a backstop depends on beside the mesh. */
export interface Guarded {
  node: string;
  ports: readonly PortConfig[];
  /** Smallest MTU of the ports, bytes: longer datagrams leave in fragments. */
  mtu: number;
}

export interface Backstop {
  /** Those whose packets are dropped rather than sent on un-chained. */
  chains: string[];
  /** The table as `nft -f` takes it, in one transaction over what is there; the set keeps what is in it. */
  text: string;
}

/**
 * What nftables has to drop while the data path is not in force: each packet that a rule of this node sends to
 * a chain with `onMissing: drop`, unless it has come and goes by ports whose ifindex is in the set. Null where
 * no chain asks for it. For two meshes, as during a change, the drops of both. Pure.
 */
export function renderBackstop(meshes: readonly Mesh[], guarded: Guarded): Backstop | null {
  if (!meshes.some(({ chains }) => Object.values(chains).some((chain) => onMissing(chain) === 'drop')))
    return null;
  const lines = meshes.flatMap((mesh) => listLines(deriveMesh(mesh).mesh, guarded));
  const kept = meshes.length > 1 ? lines.filter(({ chain }) => chain !== null) : lines;
  const chains = [...new Set(kept.flatMap(({ chain }) => chain ?? []))].sort();
  if (chains.length === 0) return null;
  const rules = [
    ...origins.flatMap((origin) => renderOrigin(origin, kept)),
    ...[...onArrival, ...ownPackets].map((rule) => `arriving ${rule}`),
    ...renderPorts(guarded.ports).map((rule) => `arriving ${rule}`),
    ...[...onLeaving, ...ownPackets].map((rule) => `leaving ${rule}`),
    ...renderPorts(guarded.ports).map((rule) => `leaving ${rule}`),
    ...fromSockets.map((rule) => `leaving ${rule}`),
  ];
  const text = [
    `add table ip ${tableName}`,
    `add set ip ${tableName} ${setName} { type iface_index; comment "ports whose programs and tables are in force"; }`,
    ...chains.map((chain) => `add counter ip ${tableName} ${counterName(chain)}`),
    ...origins.map((origin) => `add chain ip ${tableName} from-${origin}`),
    ...Object.entries(hooks).map(
      ([name, hook]) => `add chain ip ${tableName} ${name} { ${hook}; policy accept; }`,
    ),
    `flush table ip ${tableName}`,
    ...rules.map((rule) => `add rule ip ${tableName} ${rule}`),
  ];
  return { chains, text: `${text.join('\n')}\n` };
}

/** What makes exactly these ports need no backstop. */
export function renderPrograms(indexes: readonly number[]): string {
  const set = `ip ${tableName} ${setName}`;
  return [
    `flush set ${set}`,
    ...(indexes.length > 0 ? [`add element ${set} { ${indexes.join(', ')} }`] : []),
    '',
  ].join('\n');
}

const counterPrefix = 'chain-';
const counterName = (chain: string): string => `${counterPrefix}${chain}`;

/** The chain whose drops a counter of the table counts. */
export const chainOfCounter = (counter: string): string => counter.slice(counterPrefix.length);

/**
 * As our programs see packets: at ingress before anything else of netfilter, at egress with the addresses and the
 * mark that they leave with. Hence not `forward` and `output`, where NAT and routes may still change.
 */
const hooks = {
  arriving: 'type filter hook prerouting priority -450',
  leaving: 'type filter hook postrouting priority 1000',
} as const;

const admitted = `@${setName}`;

/** The usual case first, so that the number of rules costs nothing while all is well. */
const onArrival = [`iif ${admitted} return`];
const onLeaving = [`iif ${admitted} oif ${admitted} return`, `iif 0 oif ${admitted} return`, 'oif lo return'];

/** What no rule speaks of: classify() in bpf/impose.h. */
const ownPackets = ['ip daddr { 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/3 } return', 'fib daddr type local return'];

/**
 * What is left are packets of this host, and those that came in by interfaces of others, which take no chain. A
 * tunnel's outer packets are this host's, though their input is the tunnel: they have an address of this host.
 */
const fromSockets = [
  `oif ${admitted} return`,
  'iif 0 goto from-local',
  'fib saddr type local goto from-local',
];

/** By name: an interface that was made anew has another index, and no programs yet. */
function renderPorts(ports: readonly PortConfig[]): string[] {
  return origins.flatMap((role) => {
    const names = ports.filter((port) => port.role === role).map(({ name }) => quoteInterface(name));
    return names.length === 0 ? [] : [`iifname { ${names.join(', ')} } goto from-${role}`];
  });
}

function quoteInterface(name: string): string {
  if (/["\\]/.test(name))
    throw new LsrError('BACKSTOP', `nftables has no way to name interface ${name}; rename it`);
  return `"${name.replaceAll('*', '\\*')}"`;
}

/** A rule of the mesh as nftables has it; `chain` is null where its packets are left alone. */
interface Line {
  origins: readonly Origin[];
  match: string;
  rule: string;
  chain: string | null;
}

/** The node's rules, first come first; at one priority those that drop, which only fragments can tell. */
function listLines(mesh: Mesh, { node, mtu }: Guarded): Line[] {
  return mesh.rules
    .filter(({ at }) => at.includes(node))
    .map((rule) => ({ rule, drops: dropsMissing(mesh, rule) }))
    .sort((a, b) => rulePriority(a.rule) - rulePriority(b.rule) || Number(b.drops) - Number(a.drops))
    .flatMap(({ rule, drops }) =>
      renderMatches(rule, drops ? mtu : null).map((match) => ({
        origins: ruleOrigins(rule),
        match,
        rule: rule.name,
        chain: drops ? documentName(rule.chain) : null,
      })),
    );
}

function dropsMissing(mesh: Mesh, { chain }: MeshRule): boolean {
  const found = lookUp(mesh.chains, chain);
  return found !== undefined && onMissing(found) === 'drop';
}

/** In order, up to the last that drops. */
function renderOrigin(origin: Origin, lines: readonly Line[]): string[] {
  const own = lines.filter((line) => line.origins.includes(origin));
  return own.slice(0, own.findLastIndex(({ chain }) => chain !== null) + 1).map(({ match, rule, chain }) => {
    const verdict = chain === null ? 'return' : `counter name ${counterName(chain)} drop`;
    return `from-${origin} ${match}${verdict} comment "${rule}"`;
  });
}

const tcp = 6;

/**
 * A rule with ports is there once more for fragments, which have none (tuples.ts, expandRule). nftables may meet a
 * datagram whole that leaves in fragments: conntrack puts them together, and sockets send it so. `mtu` tells those
 * that will be cut; not of TCP, whose long packets are cut into segments.
 */
function renderMatches({ match }: MeshRule, mtu: number | null): string[] {
  const { source, destination, protocol, sourcePorts, destinationPorts, dscp, mark } = match;
  const number = protocol === undefined ? null : protocolNumber(protocol);
  const fields = [
    renderPrefix('saddr', source),
    renderPrefix('daddr', destination),
    number === null ? '' : `ip protocol ${number} `,
    dscp === undefined ? '' : `ip dscp ${dscp} `,
    mark === undefined ? '' : `meta mark ${mark} `,
  ].join('');
  if (number === null || !hasPorts(number) || (!sourcePorts && !destinationPorts)) return [fields];
  const whole = mtu === null || number === tcp ? [] : [`${fields}ip length > ${mtu} `];
  return [
    ...renderRanges('sport', sourcePorts).flatMap((from) =>
      renderRanges('dport', destinationPorts).map((to) => fields + from + to),
    ),
    `${fields}ip frag-off & 0x3fff != 0 `,
    ...whole,
  ];
}

function renderPrefix(field: 'saddr' | 'daddr', text: string | undefined): string {
  const prefix = readRulePrefix(text);
  return prefix.length === 0 ? '' : `ip ${field} ${formatPrefix(prefix)} `;
}

/** One for each range: with thousands of anonymous sets the kernel takes minutes. */
function renderRanges(field: 'sport' | 'dport', ports: readonly (number | string)[] | undefined): string[] {
  if (ports === undefined) return [''];
  return parsePorts(ports).map(({ first, last }) =>
    first === last ? `th ${field} ${first} ` : `th ${field} ${first}-${last} `,
  );
}
