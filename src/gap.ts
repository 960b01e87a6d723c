import { type Static, Type } from 'typebox';

/** Why records are missing. */
export const gapCauses = ['table_full', 'reboot', 'unloaded', 'store_corrupt'] as const;
export type GapCause = (typeof gapCauses)[number];

const Time = Type.String({ format: 'date-time' });

export const GapSchema = Type.Object(
  {
    cause: Type.Unsafe<GapCause>({
      type: 'string',
      enum: [...gapCauses],
      description:
        'table_full: more new flows than the kernel table holds; reboot, unloaded: what the tables held went with them; ' +
        'store_corrupt: older records are in the file that was moved aside',
    }),
    since: Type.Union([Time, Type.Null()], { description: 'null: not known' }),
    until: Time,
    packets: Type.Union([Type.Integer({ minimum: 1 }), Type.Null()], {
      description: 'that are in no record; null: not known',
    }),
  },
  { additionalProperties: false },
);

/** A time in which packets went without a record. They went on all the same. */
export type Gap = Static<typeof GapSchema>;
