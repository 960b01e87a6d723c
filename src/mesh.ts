import { type Static, Type } from 'typebox';
import { defaultHealth } from './health.js';
import { enums } from './layout.js';
import {
  BASE_HEADER_BYTES,
  NAME_LENGTH_MAX,
  NODE_MTU_MIN,
  PATHS_OF_CHAIN,
  PATHS_OF_CHAIN_MAX,
  RECORD_SLOTS_MAX,
} from './limits.js';

export const namePattern = `^[a-z0-9][a-z0-9._-]{0,${NAME_LENGTH_MAX - 1}}$`;
/** A path below the root of cgroup2, without a slash at either end. */
export const cgroupPattern = `^[^/]+(/[^/]+){0,${enums.lsr_limits.LSR_CGROUP_LEVELS - 1}}$`;
export const portRangePattern = '^[0-9]{1,5}-[0-9]{1,5}$';

/** IANA protocol numbers that have a name in a mesh document. */
export const protocolNumbers = { tcp: 6, udp: 17, icmp: 1, sctp: 132, gre: 47, esp: 50, ah: 51 } as const;
export type ProtocolName = keyof typeof protocolNumbers;

export const origins = ['edge', 'local', 'mesh', 'function'] as const;
/** Where a packet to classify comes from: an edge port, a socket of this host, a mesh port, a function's port. */
export type Origin = (typeof origins)[number];

/** Words that the design has and this version has not; they are told apart from mistakes. */
export const planned = {
  values: {},
  keys: ['legs'],
} as const;

const closed = { additionalProperties: false } as const;
const words = <T extends string>(values: readonly T[], description: string) =>
  Type.Unsafe<T>({ type: 'string', enum: [...values], description });

const nameRule = `lower-case letters, digits, ".", "_" and "-", at most ${NAME_LENGTH_MAX}, first a letter or digit`;
const Name = Type.String({ pattern: namePattern, description: nameRule });
const Port = Type.Union([
  Type.Integer({ minimum: 0, maximum: 65535 }),
  Type.String({ pattern: portRangePattern }),
]);
const Ports = Type.Array(Port, { minItems: 1, description: 'port numbers or ranges like "8000-8999"' });
const PrefixText = Type.String({ description: 'IPv4 prefix like 10.9.0.0/24, or an address' });

const Node = Type.Object(
  {
    address: Type.String({ description: 'the IPv4 address that stands for the node in source routes' }),
    addresses: Type.Optional(
      Type.Array(Type.String(), {
        description: 'further IPv4 addresses of the host; Record Route is read by them',
      }),
    ),
    mtu: Type.Optional(
      Type.Integer({
        minimum: NODE_MTU_MIN,
        maximum: 65535,
        description:
          'smallest MTU on the way to this node in bytes, where it is below that of the sender’s own port',
      }),
    ),
  },
  { ...closed, title: 'node' },
);

export const functionKinds = ['transit', 'stack', 'inline', 'tap', 'terminate'] as const;
export type FunctionKind = (typeof functionKinds)[number];

const Device = Type.String({
  pattern: '^[^\\s/]{1,15}$',
  description:
    'inline, tap: interface of the service’s hosts that leads to the function; returnDevice: where packets come back, default the same',
});

const Service = Type.Object(
  {
    nodes: Type.Array(
      Type.Union([
        Type.String(),
        Type.Object(
          {
            node: Type.String(),
            weight: Type.Optional(
              Type.Integer({ minimum: 1, maximum: 100, description: 'its share of the flows; default 1' }),
            ),
          },
          { ...closed, title: 'replica' },
        ),
      ]),
      { minItems: 1, description: 'where it runs; each flow goes to one of them' },
    ),
    check: Type.Optional(
      Type.Union(
        [
          Type.Object({ tcp: Type.Integer({ minimum: 1, maximum: 65535 }) }, closed),
          Type.Object({ http: Type.String({ pattern: '^https?://' }) }, closed),
        ],
        {
          description:
            'asked every second on each of its hosts: whether a local port takes connections, or a URL answers below 400; three in a row decide',
        },
      ),
    ),
    unavailable: Type.Optional(
      words(
        ['drop', 'skip', 'alternate'],
        'when none of its nodes can be reached: drop the chain’s packets (default), leave it out, or take `alternate`',
      ),
    ),
    alternate: Type.Optional(Type.String({ description: 'the service that is taken instead then' })),
    function: words(
      functionKinds,
      'what it gets: transit nothing, stack the packets in its host’s own stack, inline the same on a device, tap copies, terminate the end of the chain',
    ),
    device: Type.Optional(Device),
    returnDevice: Type.Optional(Device),
    via: Type.Optional(
      Type.String({ description: 'inline: the function’s IPv4 address on `device`, where it is a router' }),
    ),
    returnVia: Type.Optional(
      Type.String({ description: 'its address on `returnDevice`, for the way back of symmetric chains' }),
    ),
    options: Type.Optional(
      words(
        ['kept', 'stripped'],
        'inline; stripped: the function would lose IPv4 options, so it gets packets without, and what comes back is classified anew; default kept',
      ),
    ),
    snap: Type.Optional(
      Type.Integer({
        minimum: BASE_HEADER_BYTES,
        maximum: 65535,
        description: 'tap: the most bytes of IPv4 in a copy; default all',
      }),
    ),
    sample: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 1_000_000,
        description: 'tap: a copy of one packet in so many, chosen at random; default 1',
      }),
    ),
  },
  { ...closed, title: 'service' },
);

const IntegrityMode = words(
  ['off', 'verify', 'require'],
  'verify: packets carry a tag, and a wrong one is refused; require: one without is refused too; default off',
);

const Times = Type.Integer({ minimum: 1, maximum: 100 });
const HealthRule = Type.Object(
  {
    interval: Type.Optional(
      Type.Integer({
        minimum: 20,
        maximum: 60_000,
        description: `milliseconds between two probes of a path; default ${defaultHealth.interval}`,
      }),
    ),
    down: Type.Optional(Times),
    up: Type.Optional(Times),
  },
  {
    ...closed,
    title: 'health rule',
    description: `probes missed in a row until a path is down, default ${defaultHealth.down}, and answered until it is up, default ${defaultHealth.up}`,
  },
);

const Chain = Type.Object(
  {
    hops: Type.Array(Type.String(), { minItems: 1, description: 'names of nodes or services, in order' }),
    mode: Type.Optional(
      words(['loose', 'strict'], 'strict: each hop is a direct neighbour of the one before'),
    ),
    record: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: RECORD_SLOTS_MAX,
        description: 'Record Route slots; 0 writes none',
      }),
    ),
    paths: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: PATHS_OF_CHAIN_MAX,
        description: `the most ways over its services’ nodes that are used; default ${PATHS_OF_CHAIN}`,
      }),
    ),
    fragments: Type.Optional(
      words(['chain', 'drop'], 'drop: fragments that a rule sends into the chain are dropped; default chain'),
    ),
    integrity: Type.Optional(IntegrityMode),
    binding: Type.Optional(
      words(
        ['ports', 'addresses'],
        'what the integrity option covers beside path, addresses and protocol: ports too (default), or no more',
      ),
    ),
    duplicates: Type.Optional(
      words(
        ['pass', 'drop'],
        'drop: each hop remembers packets while their tags hold, and takes none twice; needs integrity; default pass',
      ),
    ),
    security: Type.Optional(
      Type.Boolean({ description: 'true: onMissing and onDeviation are drop, where they are not written' }),
    ),
    onMissing: Type.Optional(
      words(
        ['drop', 'bypass'],
        'drop: packets of the chain’s rules never leave a host of these rules un-chained, also without programs or tables; default bypass',
      ),
    ),
    onDeviation: Type.Optional(
      words(
        ['drop', 'report'],
        'what becomes of packets that Record Route, or where they came in from, shows on another way; default drop with security, else a detour is reported and the other dropped',
      ),
    ),
    return: Type.Optional(
      words(
        ['direct', 'symmetric'],
        'direct: answers take the routing table’s way (default); symmetric: the same hops back, at the same replicas',
      ),
    ),
  },
  { ...closed, title: 'chain' },
);

const Match = Type.Object(
  {
    source: Type.Optional(PrefixText),
    destination: Type.Optional(PrefixText),
    protocol: Type.Optional(
      Type.Union([
        words(Object.keys(protocolNumbers) as ProtocolName[], 'a name'),
        Type.Integer({ minimum: 0, maximum: 255 }),
      ]),
    ),
    sourcePorts: Type.Optional(Ports),
    destinationPorts: Type.Optional(Ports),
    dscp: Type.Optional(Type.Integer({ minimum: 0, maximum: 63 })),
    mark: Type.Optional(Type.Integer({ minimum: 0, maximum: 0xffffffff, description: 'fwmark' })),
    cgroup: Type.Optional(
      Type.String({
        pattern: cgroupPattern,
        description:
          'of the socket that sends: a cgroup of the host, or one within it, like system.slice/nginx.service; packets of other hosts are in none',
      }),
    ),
  },
  { ...closed, title: 'match', description: 'what is not given is not looked at' },
);

const Rule = Type.Object(
  {
    name: Name,
    at: Type.Array(Type.String(), { minItems: 1, description: 'nodes where the rule holds' }),
    from: Type.Optional(
      Type.Array(words(origins, 'a port or a local socket'), {
        minItems: 1,
        description: 'where packets come from; default edge and local, with a cgroup local alone',
      }),
    ),
    priority: Type.Optional(
      Type.Integer({ minimum: 0, maximum: 65535, description: 'lower first, as in ip rule; default 100' }),
    ),
    match: Match,
    chain: Type.String(),
  },
  { ...closed, title: 'rule' },
);

/** The mesh document: what is checked in YAML, taken over HTTP, described in OpenAPI and typed here. */
export const MeshSchema = Type.Object(
  {
    version: Type.Literal(1),
    nodes: Type.Record(Name, Node, closed),
    services: Type.Optional(Type.Record(Name, Service, closed)),
    chains: Type.Record(Name, Chain, closed),
    rules: Type.Array(Rule),
    integrity: Type.Optional(IntegrityMode),
    health: Type.Optional(HealthRule),
  },
  { ...closed, title: 'mesh document' },
);

export type Mesh = Static<typeof MeshSchema>;
export type MeshRule = Mesh['rules'][number];
export type MeshChain = Mesh['chains'][string];
export type MeshService = NonNullable<Mesh['services']>[string];

/** What becomes of a chain's packets where the data path is not in force. */
export function onMissing({
  security = false,
  onMissing = security ? 'drop' : 'bypass',
}: MeshChain): 'drop' | 'bypass' {
  return onMissing;
}

/** What becomes of packets that took another way; null: a detour is reported, what comes from a wrong place dropped. */
export function onDeviation({
  security = false,
  onDeviation,
}: Pick<MeshChain, 'security' | 'onDeviation'>): 'drop' | 'report' | null {
  return onDeviation ?? (security ? 'drop' : null);
}

/** What a chain does about integrity, by its own word or the mesh's. */
export function readIntegrity(mesh: Mesh, chain: MeshChain): 'off' | 'verify' | 'require' {
  return chain.integrity ?? mesh.integrity ?? 'off';
}

/** A node that runs a service, and its share. */
export interface Replica {
  node: string;
  /** Relative to those of the others. */
  weight: number;
}

/** The nodes that a hop may mean: those of a service, or the one that it names. */
export function listReplicas(mesh: Mesh, hop: string): Replica[] {
  const service = lookUp(mesh.services, hop);
  if (!service) return [{ node: hop, weight: 1 }];
  return service.nodes.map((entry) =>
    typeof entry === 'string' ? { node: entry, weight: 1 } : { weight: 1, ...entry },
  );
}

/** Whether a hop may be at this node. */
export const runsOn = (mesh: Mesh, hop: string, node: string): boolean =>
  listReplicas(mesh, hop).some((replica) => replica.node === node);

/** What a record has under a name; a name like `constructor` finds nothing by accident. */
export function lookUp<T>(record: Record<string, T> | undefined, name: string): T | undefined {
  return record && Object.hasOwn(record, name) ? record[name] : undefined;
}
