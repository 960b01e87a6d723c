import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { type Static, Type } from 'typebox';
import { formatProblem, readDocument } from './document.js';
import { LsrError } from './errors.js';
import { parseListen } from './loopback.js';

const closed = { additionalProperties: false } as const;
const Role = Type.Unsafe<'edge' | 'mesh'>({ type: 'string', enum: ['edge', 'mesh'] });

/** A port by its role alone, or with what an edge port does with packets that carry options. */
const InterfaceSchema = Type.Union([
  Role,
  Type.Object(
    {
      role: Role,
      options: Type.Optional(Type.Unsafe<'drop' | 'strip'>({ type: 'string', enum: ['drop', 'strip'] })),
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
    store: Type.Optional(Type.String()),
    bpffs: Type.Optional(Type.String()),
  },
  closed,
);

export type IcmpPolicy = 'off' | 'pmtu' | 'all';

export interface PortConfig {
  name: string;
  role: 'edge' | 'mesh';
  options: 'drop' | 'strip';
  icmp: IcmpPolicy;
}

export interface AgentConfig {
  file: string;
  node: string;
  mesh: string | null;
  interfaces: PortConfig[];
  api: { socket: string; listen: string | null };
  store: string;
  bpffs: string;
}

export const defaults = {
  socket: '/run/lsr-agent/api.sock',
  store: '/var/lib/lsr-agent/audit.db',
  bpffs: '/sys/fs/bpf/lsr-agent',
  icmp: 'pmtu',
} as const;

/** agent.yaml with defaults filled in; paths are taken from the file's folder. Throws CONFIG_INVALID. */
export function readAgentConfig(file: string): AgentConfig {
  const { value, problems, locate } = readDocument(readText(file), file, AgentConfigSchema);
  if (!value) {
    throw new LsrError('CONFIG_INVALID', problems.map(formatProblem).join('\n'), { problems });
  }
  if (value.api?.listen !== undefined) checkListen(value.api.listen, file, locate('/api/listen'));
  return fillDefaults(value, file);
}

/** Said before anything is touched, and with its place. */
function checkListen(listen: string, file: string, place: { line: number; column: number }): void {
  try {
    parseListen(listen);
  } catch (error) {
    const problem = {
      pointer: '/api/listen',
      code: 'LISTEN',
      message: (error as Error).message,
      file,
      ...place,
    };
    throw new LsrError('CONFIG_INVALID', formatProblem(problem), { problems: [problem] });
  }
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
      const { role, options = 'drop' } = typeof port === 'string' ? { role: port } : port;
      return { name, role, options, icmp: value.icmp ?? defaults.icmp };
    }),
    api: { socket: at(value.api?.socket ?? defaults.socket), listen: value.api?.listen ?? null },
    store: at(value.store ?? defaults.store),
    bpffs: at(value.bpffs ?? defaults.bpffs),
  };
}
