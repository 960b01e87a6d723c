import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { type Static, Type } from 'typebox';
import { formatProblem, readDocument } from './document.js';
import { LsrError } from './errors.js';
import { makePointer } from './finding.js';
import { parseListen } from './loopback.js';
import { hasPorts, parseProtocol } from './match.js';
import { protocolNumbers } from './mesh.js';
import {
  fillPolicies,
  type OptionClass,
  type OptionPolicies,
  type OptionPolicy,
  type OptionPolicyConfig,
  optionClasses,
  optionPolicies,
  refusePolicy,
} from './option-policy.js';
import { defaultRetention, type Retention } from './retention.js';
import { type PortRole, portRoles } from './role.js';

const closed = { additionalProperties: false } as const;
const Role = Type.Unsafe<PortRole>({ type: 'string', enum: [...portRoles] });

const Policy = Type.Unsafe<OptionPolicy>({ type: 'string', enum: optionPolicies });

/** A port by its role alone, or with its policies. */
const InterfaceSchema = Type.Union([
  Role,
  Type.Object(
    {
      role: Role,
      options: Type.Optional(
        Type.Union([
          Policy,
          Type.Object(
            Object.fromEntries(['default', ...optionClasses].map((name) => [name, Type.Optional(Policy)])),
            closed,
          ),
        ]),
      ),
      infrastructure: Type.Optional(
        Type.Array(Type.String({ pattern: '^[a-z]+(/[0-9]{1,5})?$' }), {
          maxItems: 64,
          description: 'all that may reach the nodes themselves from an edge port, such as icmp or tcp/22',
        }),
      ),
      stack: Type.Optional(
        Type.Unsafe<'through' | 'bypass'>({
          type: 'string',
          enum: ['through', 'bypass'],
          description:
            "whether packets pass this host's own nftables, conntrack and NAT before their chain begins, or after it ends",
        }),
      ),
    },
    closed,
  ),
]);

export const AgentConfigSchema = Type.Object(
  {
    node: Type.String({ minLength: 1, maxLength: 63, description: "this host's name in the mesh" }),
    mesh: Type.Optional(Type.String({ description: 'file of the mesh document' })),
    interfaces: Type.Record(Type.String({ pattern: '^[^\\s/]{1,15}$' }), InterfaceSchema, {
      ...closed,
      minProperties: 1,
    }),
    api: Type.Optional(
      Type.Object(
        {
          socket: Type.Optional(Type.String()),
          listen: Type.Optional(Type.String({ description: 'loopback address and port; read-only' })),
        },
        closed,
      ),
    ),
    icmp: Type.Optional(
      Type.Unsafe<IcmpPolicy>({
        type: 'string',
        enum: ['off', 'pmtu', 'all'],
        description: 'ICMP errors of the agent itself: none, only "fragmentation needed", or all',
      }),
    ),
    previousHop: Type.Optional(
      Type.Unsafe<PreviousHop>({
        type: 'string',
        enum: ['off', 'interface', 'neighbour'],
        description:
          'where chained packets may come in from: anywhere, or as the route to the hop before goes',
      }),
    ),
    keys: Type.Optional(Type.String({ description: 'file of the integrity keys, mode 0600' })),
    store: Type.Optional(Type.String()),
    retention: Type.Optional(
      Type.Object(
        {
          days: Type.Optional(Type.Number({ exclusiveMinimum: 0, maximum: 36_500 })),
          megabytes: Type.Optional(Type.Number({ minimum: 1 })),
        },
        {
          ...closed,
          description: `the oldest records go first; default ${defaultRetention.days} days and ${defaultRetention.megabytes} megabytes`,
        },
      ),
    ),
    bpffs: Type.Optional(Type.String()),
  },
  closed,
);

export type IcmpPolicy = 'off' | 'pmtu' | 'all';
export type PreviousHop = 'off' | 'interface' | 'neighbour';

/** What an edge port lets through to the nodes themselves. */
export interface Opening {
  /** IP protocol number. */
  protocol: number;
  /** Destination port; 0 for all. */
  port: number;
}

export interface PortConfig {
  name: string;
  role: PortRole;
  options: OptionPolicies;
  icmp: IcmpPolicy;
  previousHop: PreviousHop;
  /** Null where everything may. */
  infrastructure: Opening[] | null;
  /** Chains begin and end past this host's own stack. */
  bypass: boolean;
}

export interface AgentConfig {
  file: string;
  node: string;
  mesh: string | null;
  interfaces: PortConfig[];
  api: { socket: string; listen: string | null };
  /** File of the integrity keys. */
  keys: string | null;
  store: string;
  retention: Retention;
  bpffs: string;
}

export const defaults = {
  socket: '/run/lsr-agent/api.sock',
  store: '/var/lib/lsr-agent/audit.db',
  bpffs: '/sys/fs/bpf/lsr-agent',
  icmp: 'pmtu',
  previousHop: 'interface',
} as const;

/** agent.yaml with defaults filled in; paths are taken from the file's folder. Throws CONFIG_INVALID. */
export function readAgentConfig(file: string): AgentConfig {
  const { value, problems, locate } = readDocument(readText(file), file, AgentConfigSchema);
  if (!value) {
    throw new LsrError('CONFIG_INVALID', problems.map(formatProblem).join('\n'), { problems });
  }
  const faults = findFaults(value);
  if (faults.length > 0) {
    const placed = faults.map((fault) => ({ ...fault, code: 'VALUE', file, ...locate(fault.pointer) }));
    throw new LsrError('CONFIG_INVALID', placed.map(formatProblem).join('\n'), { problems: placed });
  }
  return fillDefaults(value, file);
}

/** What the schema cannot say. It is said before anything is touched. */
function findFaults(value: Static<typeof AgentConfigSchema>): { pointer: string; message: string }[] {
  const faults = Object.entries(value.interfaces).flatMap(([name, port]) =>
    findPortFaults(makePointer('interfaces', name), describePort(port)),
  );
  try {
    if (value.api?.listen !== undefined) parseListen(value.api.listen);
  } catch (error) {
    faults.push({ pointer: '/api/listen', message: (error as Error).message });
  }
  return faults;
}

interface PortDescription {
  role: PortRole;
  options?: OptionPolicyConfig;
  infrastructure?: string[];
  stack?: 'through' | 'bypass';
}

const describePort = (port: Static<typeof InterfaceSchema>): PortDescription =>
  typeof port === 'string' ? { role: port } : port;

function findPortFaults(
  at: string,
  { role, options = {}, infrastructure = [], stack }: PortDescription,
): { pointer: string; message: string }[] {
  const policies =
    typeof options === 'string'
      ? [{ name: 'default' as const, policy: options, pointer: `${at}/options` }]
      : Object.entries(options).map(([name, policy]) => ({
          name: name as OptionClass | 'default',
          policy,
          pointer: `${at}/options/${name}`,
        }));
  const faults = policies.flatMap(({ name, policy, pointer }) => {
    const message = refusePolicy(role, name, policy);
    return message === null ? [] : [{ pointer, message }];
  });
  if (role !== 'edge' && infrastructure.length > 0) {
    faults.push({ pointer: `${at}/infrastructure`, message: `${role} ports keep nobody from the nodes` });
  }
  if (role !== 'edge' && role !== 'mesh' && stack !== undefined)
    faults.push({
      pointer: `${at}/stack`,
      message: `on ${role} ports no chain begins or ends past the stack`,
    });
  infrastructure.forEach((word, index) => {
    if (readOpening(word) !== null) return;
    const message = `"${word}" is neither a protocol (${Object.keys(protocolNumbers).join(', ')}) nor one with a port, such as tcp/22`;
    faults.push({ pointer: `${at}/infrastructure/${index}`, message });
  });
  return faults;
}

/** "icmp", "tcp" or "tcp/22"; null where it is none of them. */
function readOpening(word: string): Opening | null {
  const [name = '', port] = word.split('/');
  const protocol = parseProtocol(name);
  if (protocol === null) return null;
  if (port === undefined) return { protocol, port: 0 };
  const number = Number(port);
  return hasPorts(protocol) && number >= 1 && number <= 65535 ? { protocol, port: number } : null;
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new LsrError('CONFIG_INVALID', `${file} cannot be read: ${(error as Error).message}`);
  }
}

function fillDefaults(value: Static<typeof AgentConfigSchema>, file: string): AgentConfig {
  const at = (path: string): string => resolve(dirname(file), path);
  return {
    file: resolve(file),
    node: value.node,
    mesh: value.mesh === undefined ? null : at(value.mesh),
    interfaces: Object.entries(value.interfaces).map(([name, port]) => {
      const { role, options, infrastructure, stack } = describePort(port);
      return {
        name,
        role,
        options: fillPolicies(role, options),
        icmp: value.icmp ?? defaults.icmp,
        previousHop: value.previousHop ?? defaults.previousHop,
        infrastructure: infrastructure?.map(readOpening).filter((opening) => opening !== null) ?? null,
        bypass: stack === 'bypass',
      };
    }),
    api: { socket: at(value.api?.socket ?? defaults.socket), listen: value.api?.listen ?? null },
    keys: value.keys === undefined ? null : at(value.keys),
    store: at(value.store ?? defaults.store),
    retention: { ...defaultRetention, ...value.retention },
    bpffs: at(value.bpffs ?? defaults.bpffs),
  };
}
