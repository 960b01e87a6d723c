import { type Static, type TSchema, Type } from 'typebox';

const closed = { additionalProperties: false } as const;
const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);
const Port = Type.Integer({ minimum: 0, maximum: 65535 });

export const TraceQuerySchema = Type.Object(
  {
    chain: Type.Optional(
      Type.String({ minLength: 1, maxLength: 80, description: 'a chain that begins here' }),
    ),
    path: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 0xffffffff,
        description: 'the id of one of its paths; default the one in use',
      }),
    ),
    source: Type.Optional(Type.String({ description: 'of a flow that begins here, instead of a chain' })),
    destination: Type.Optional(Type.String()),
    protocol: Type.Optional(Type.String({ description: 'a name or a number' })),
    sourcePort: Type.Optional(Port),
    destinationPort: Type.Optional(Port),
  },
  closed,
);
export type TraceQuery = Static<typeof TraceQuerySchema>;

const Times = Type.Array(nullable(Type.Number({ minimum: 0 })), {
  description: 'milliseconds there and back, of each probe; null where none came back',
});

export const TraceSchema = Type.Object(
  {
    chain: Type.String(),
    path: Type.Integer(),
    from: Type.String({ description: 'the node that sent the probes' }),
    hops: Type.Array(
      Type.Object(
        {
          node: Type.String(),
          address: Type.String(),
          service: nullable(Type.String()),
          arrived: Times,
          behind: nullable(
            Type.Array(nullable(Type.Number({ minimum: 0 })), {
              description: 'the same from behind its function; null where it has none that keeps packets',
            }),
          ),
        },
        closed,
      ),
    ),
    reached: Type.Boolean({ description: 'probes came back from the end' }),
    explanation: Type.String(),
    next: nullable(
      Type.Object(
        { chain: Type.String(), at: Type.Array(Type.String()) },
        { ...closed, description: 'where its next segment begins, which is traced there' },
      ),
    ),
  },
  closed,
);
export type Trace = Static<typeof TraceSchema>;
export type TracedHop = Trace['hops'][number];

const hasAnswered = (times: readonly (number | null)[]): boolean => times.some((time) => time !== null);

/** Whether probes came back from the end of the path. */
export function hasReached(hops: readonly TracedHop[]): boolean {
  return hasAnswered(hops.at(-1)?.arrived ?? []);
}

/** In one sentence what the probes say of the way; the first thing that is wrong decides. */
export function explainTrace(from: string, hops: readonly TracedHop[]): string {
  let before = from;
  for (const { node, service, arrived, behind } of hops) {
    if (!hasAnswered(arrived))
      return `lost between ${before} and ${node}: ${before} sends probes on, and ${node} turns none round; "lsr-agent drops" on ${node} tells whether they arrive`;
    if (behind && !hasAnswered(behind))
      return `lost in ${service ?? 'the function'} of ${node}: the function gets probes and gives none back; a firewall there has to let UDP port 7914 of the mesh pass`;
    before = node;
  }
  const all = hops.flatMap(({ arrived, behind }) => [...arrived, ...(behind ?? [])]);
  const lost = all.filter((time) => time === null).length;
  const answered = `all ${hops.length} hops answer`;
  return lost === 0 ? answered : `${answered}, but ${lost} of ${all.length} probes were lost`;
}
