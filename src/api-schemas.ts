import { type Static, type TSchema, Type } from 'typebox';
import { type ExportFormat, exportFormats } from './export-format.js';
import { type FunctionKind, functionKinds } from './mesh.js';
import { type SortKey, sortKeys } from './path-query.js';
import { VerdictSchema } from './record.js';
import { type PortRole, portRoles } from './role.js';

const closed = { additionalProperties: false } as const;
const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);
const counts = (description: string) =>
  Type.Record(Type.String(), Type.Integer({ minimum: 0 }), { description });
const Time = Type.String({ format: 'date-time' });
const Count = Type.Integer({ minimum: 0 });
const Direction = Type.Unsafe<'ingress' | 'egress'>({ type: 'string', enum: ['ingress', 'egress'] });

export const StatusSchema = Type.Object(
  {
    node: Type.String(),
    version: Type.String(),
    state: Type.Unsafe<'ready' | 'degraded'>({ type: 'string', enum: ['ready', 'degraded'] }),
    generation: Count,
    mesh: Type.Object(
      {
        source: Type.String({ description: 'where the document came from: a file, or the API' }),
        appliedAt: nullable(Time),
        error: nullable(
          Type.String({ description: 'why the newest document was refused; the last good one stays' }),
        ),
      },
      closed,
    ),
    keys: Type.Object(
      {
        sending: nullable(Type.Integer({ description: 'the slot that packets are signed with' })),
        error: nullable(
          Type.String({ description: 'why the newest keys were refused; those in force stay' }),
        ),
      },
      closed,
    ),
    backstop: Type.Object(
      {
        chains: Type.Array(Type.String(), { description: 'those of this node with `onMissing: drop`' }),
        error: nullable(Type.String({ description: 'why nftables is not as it should be' })),
      },
      closed,
    ),
    store: Type.Object(
      {
        bytes: Type.Integer({ minimum: 0, description: 'of the pages in use' }),
        error: nullable(
          Type.String({ description: 'why flows are not stored now; the kernel keeps counting them' }),
        ),
      },
      closed,
    ),
    functions: Type.Array(
      Type.Object(
        {
          service: Type.String(),
          function: Type.Unsafe<FunctionKind>({ type: 'string', enum: [...functionKinds] }),
          error: Type.Optional(Type.String({ description: 'why its packets do not reach the function' })),
          advice: Type.Optional(Type.String()),
        },
        closed,
      ),
      { description: 'services of this node whose function gets packets here' },
    ),
    interfaces: Type.Array(
      Type.Object(
        {
          name: Type.String(),
          role: Type.Unsafe<PortRole>({ type: 'string', enum: [...portRoles] }),
          ifindex: nullable(Type.Integer({ description: 'null where the interface does not exist' })),
          attached: Type.Unsafe<'tcx' | 'clsact' | null>({ enum: ['tcx', 'clsact', null] }),
          mtu: nullable(Type.Integer()),
          address: nullable(Type.String()),
          error: Type.Optional(
            Type.String({ description: 'why this interface is not managed; it is as soon as it can be' }),
          ),
        },
        closed,
      ),
    ),
    maps: Type.Array(Type.Object({ name: Type.String(), entries: Count, capacity: Count }, closed)),
    uptimeSeconds: Type.Number({ minimum: 0 }),
    pid: Type.Integer(),
  },
  closed,
);
export type Status = Static<typeof StatusSchema>;

export const ApplyResultSchema = Type.Object(
  {
    generation: Count,
    changed: Type.Record(
      Type.String(),
      Type.Object({ added: Count, removed: Count, updated: Count }, closed),
      {
        description: 'entries changed, by map',
      },
    ),
    durationMs: Type.Number({ minimum: 0 }),
  },
  closed,
);
export type ApplyResult = Static<typeof ApplyResultSchema>;

export const ChainViewSchema = Type.Object(
  {
    name: Type.String(),
    id: Count,
    mode: Type.Unsafe<'loose' | 'strict'>({ type: 'string', enum: ['loose', 'strict'] }),
    hops: Type.Array(
      Type.Object(
        {
          name: Type.String({ description: 'as the chain has it: a service or a node' }),
          nodes: Type.Array(Type.Object({ node: Type.String(), address: Type.String() }, closed)),
        },
        closed,
      ),
    ),
    paths: Type.Array(
      Type.Object(
        {
          id: Count,
          nodes: Type.Array(Type.String()),
          absent: Type.Array(Type.String(), { description: 'services that it does without' }),
          state: Type.Unsafe<'up' | 'down' | 'unwatched'>({
            type: 'string',
            enum: ['up', 'down', 'unwatched'],
            description: 'unwatched: it does not begin here, or there is nothing to choose',
          }),
          share: Type.Number({
            minimum: 0,
            maximum: 1,
            description: 'of the flows that begin now, as far as is known here',
          }),
        },
        closed,
      ),
    ),
    record: Count,
    overhead: Type.Integer({ minimum: 0, description: 'option bytes in each packet' }),
    destinations: Type.Array(Type.String()),
    rules: Type.Array(Type.String()),
    packets: Count,
  },
  closed,
);
export type ChainView = Static<typeof ChainViewSchema>;
export const ChainsSchema = Type.Object({ chains: Type.Array(ChainViewSchema) }, closed);

export const DropsSchema = Type.Object(
  {
    interfaces: Type.Array(
      Type.Object(
        {
          interface: Type.String(),
          direction: Direction,
          received: Count,
          outcomes: counts('packets that went on, by outcome'),
          drops: counts('packets dropped, by reason; received = outcomes + drops'),
          notes: counts('things worth knowing that did not decide a packet'),
        },
        closed,
      ),
    ),
    backstop: Type.Record(Type.String(), Type.Object({ packets: Count, bytes: Count }, closed), {
      description: 'what nftables dropped rather than let it go un-chained, by chain',
    }),
    samples: Type.Array(
      Type.Object(
        {
          time: Time,
          interface: Type.String(),
          direction: Direction,
          reason: Type.String(),
          source: Type.String(),
          destination: Type.String(),
          protocol: Type.Integer({ minimum: 0, maximum: 255 }),
          options: Type.String({ description: 'the IPv4 option bytes, hex' }),
        },
        closed,
      ),
    ),
    explanations: Type.Record(
      Type.String(),
      Type.Object({ meaning: Type.String(), advice: Type.String() }, closed),
      {
        description: 'what each reason means and what to do',
      },
    ),
  },
  closed,
);
export type DropsView = Static<typeof DropsSchema>;

export const pageLimit = { default: 100, maximum: 1000 } as const;

const pathFilters = {
  chain: Type.Optional(Type.String({ minLength: 1, maxLength: 63 })),
  node: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 63,
      description: 'a node of the flow’s path, or one that it went to',
    }),
  ),
  source: Type.Optional(Type.String({ description: 'an address or a prefix: 10.1.0.10 or 10.1.0.0/24' })),
  destination: Type.Optional(Type.String({ description: 'an address or a prefix' })),
  verdict: Type.Optional(VerdictSchema),
  since: Type.Optional(Type.String({ format: 'date-time', description: 'seen at or after this time' })),
  until: Type.Optional(Type.String({ format: 'date-time', description: 'seen before this time' })),
};

export const PathsQuerySchema = Type.Object(
  {
    ...pathFilters,
    sort: Type.Optional(Type.Unsafe<SortKey>({ type: 'string', enum: [...sortKeys], default: 'lastSeen' })),
    order: Type.Optional(
      Type.Unsafe<'asc' | 'desc'>({ type: 'string', enum: ['asc', 'desc'], default: 'desc' }),
    ),
    limit: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: pageLimit.maximum,
        default: pageLimit.default,
        description:
          'a page may have fewer, or none, and yet a nextCursor: then what fits is rare, and the search goes on there',
      }),
    ),
    cursor: Type.Optional(Type.String({ maxLength: 200, description: 'nextCursor of the page before' })),
  },
  closed,
);
export type PathsQuery = Static<typeof PathsQuerySchema>;

export const ExportQuerySchema = Type.Object(
  {
    ...pathFilters,
    format: Type.Optional(
      Type.Unsafe<ExportFormat>({ type: 'string', enum: [...exportFormats], default: 'ndjson' }),
    ),
  },
  closed,
);
const { since: _, until: __, ...timeless } = pathFilters;
export const StreamQuerySchema = Type.Object(timeless, closed);
export type StreamQuery = Static<typeof StreamQuerySchema>;
export type ExportQuery = Static<typeof ExportQuerySchema>;

export const ChainNameSchema = Type.Object(
  { name: Type.String({ minLength: 1, maxLength: 80, description: 'a chain, or one of its segments' }) },
  closed,
);
export type ChainName = Static<typeof ChainNameSchema>;

export const NoQuerySchema = Type.Object({}, closed);

/** RFC 9457 §3.1, with a stable code and, for documents, each thing that is wrong. */
export const ProblemSchema = Type.Object({
  type: Type.String({ format: 'uri' }),
  title: Type.String(),
  status: Type.Integer({ minimum: 400, maximum: 599 }),
  detail: Type.String(),
  code: Type.String(),
  instance: Type.Optional(Type.String()),
  problems: Type.Optional(Type.Array(Type.Unknown())),
});
export type ProblemDocument = Static<typeof ProblemSchema>;
