import { type Static, Type } from 'typebox';
import { reasons } from './reasons.js';

const closed = { additionalProperties: false } as const;
const Port = Type.Integer({ minimum: 1, maximum: 65535 });

export const WatchQuerySchema = Type.Object(
  {
    source: Type.String({ description: 'IPv4 address' }),
    destination: Type.String({ description: 'IPv4 address that the packets go to in the end' }),
    protocol: Type.Optional(Type.String({ description: 'a name or a number; default all' })),
    sourcePort: Type.Optional(Port),
    destinationPort: Type.Optional(Port),
  },
  closed,
);
export type WatchQuery = Static<typeof WatchQuerySchema>;

const results = reasons.filter(({ kind }) => kind === 'outcome' || kind === 'drop');

export const WatchSchema = Type.Object(
  {
    node: Type.String(),
    since: Type.String({ format: 'date-time', description: 'when the flow was marked' }),
    seen: Type.Array(
      Type.Object(
        {
          reason: Type.Unsafe<string>({ type: 'string', enum: results.map(({ name }) => name) }),
          packets: Type.Integer({ minimum: 1, description: 'since then' }),
          lastSeen: Type.String({ format: 'date-time' }),
        },
        { ...closed, description: 'an outcome of packets of this flow here, or why they were dropped' },
      ),
      { description: 'in the order in which they were seen last' },
    ),
  },
  closed,
);
export type Watch = Static<typeof WatchSchema>;
