import { type Static, type TSchema, Type } from 'typebox';
import { GapSchema } from './gap.js';
import { type Verdict, verdicts } from './verdict.js';

export type Integrity = 'none' | 'verified';
export type { Verdict } from './verdict.js';

const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);
const Count = Type.Integer({ minimum: 0 });
const Port = nullable(Type.Integer({ minimum: 0, maximum: 65535 }));
const Time = Type.String({ format: 'date-time' });

export const VerdictSchema = Type.Unsafe<Verdict>({ type: 'string', enum: [...verdicts] });

export const RouteEntrySchema = Type.Object(
  {
    node: nullable(Type.String({ description: 'null where the address belongs to nobody' })),
    address: Type.String(),
  },
  { additionalProperties: false },
);
export type RouteEntry = Static<typeof RouteEntrySchema>;

export const FlowSchema = Type.Object(
  {
    source: Type.String(),
    destination: Type.String(),
    protocol: Type.Integer({ minimum: 0, maximum: 255 }),
    sourcePort: Port,
    destinationPort: Port,
  },
  { additionalProperties: false },
);
export type Flow = Static<typeof FlowSchema>;

export const PathRecordSchema = Type.Object(
  {
    id: Type.String({ description: 'the same for the same flow, path and verdict, also after a restart' }),
    chain: nullable(Type.String()),
    generation: Count,
    flow: FlowSchema,
    expected: Type.Array(RouteEntrySchema),
    recorded: Type.Array(RouteEntrySchema),
    recordRoute: Type.Array(Type.String()),
    verdict: VerdictSchema,
    reasons: Type.Array(Type.String()),
    packets: Count,
    bytes: Count,
    firstSeen: Time,
    lastSeen: Time,
    arrivedFrom: nullable(
      Type.Object(
        { node: nullable(Type.String()), mac: Type.String() },
        {
          additionalProperties: false,
          description: 'of records that a hop made of what is not as it should be',
        },
      ),
    ),
    explanation: Type.String({ description: 'the verdict in one sentence' }),
    integrity: Type.Unsafe<Integrity>({
      type: 'string',
      enum: ['none', 'verified'],
      description: 'verified: each hop has checked that an edge of the mesh made the packets',
    }),
  },
  { additionalProperties: false },
);

/** One flow that went one way with one verdict (DESIGN: one record per flow, path and verdict). */
export type PathRecord = Static<typeof PathRecordSchema>;

/** What the daemon hands to the store: packets and bytes are those seen since it last did so. */
export type FlowRow = Omit<PathRecord, 'id' | 'explanation'>;

export const PathsPageSchema = Type.Object(
  {
    records: Type.Array(PathRecordSchema),
    gaps: Type.Array(GapSchema, {
      description: 'times of which records are missing; newest first, on the first page',
    }),
    nextCursor: nullable(Type.String()),
  },
  { additionalProperties: false },
);
export type PathsPage = Static<typeof PathsPageSchema>;
