import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Static, Type } from 'typebox';
import { formatProblem, readDocument } from './document.js';
import { LsrError } from './errors.js';

/** Nodes whose flows are to go elsewhere: new ones at once, the others when their time is up. */
export const DrainsSchema = Type.Object(
  {
    drains: Type.Array(
      Type.Object(
        {
          node: Type.String({ description: 'of the mesh document' }),
          until: Type.String({
            format: 'date-time',
            description:
              'TCP connections that were there before keep their path until then, as all that is not TCP',
          }),
        },
        { additionalProperties: false },
      ),
      { maxItems: 1000 },
    ),
  },
  { additionalProperties: false, title: 'drains' },
);
export type Drains = Static<typeof DrainsSchema>['drains'];

/** They outlive the daemon, beside the audit store. */
export const drainsFile = (store: string): string => join(dirname(store), 'drains.json');

/** Those of before this daemon began. */
export function loadDrains(store: string): Drains {
  const file = drainsFile(store);
  return existsSync(file) ? readDrains(readFileSync(file, 'utf8'), file) : [];
}

/** Throws REQUEST_INVALID. */
export function readDrains(text: string, file: string): Drains {
  const { value, problems } = readDocument(text, file, DrainsSchema);
  if (!value) throw new LsrError('REQUEST_INVALID', problems.map(formatProblem).join('\n'), { problems });
  const wrong = value.drains.find(({ until }) => Number.isNaN(Date.parse(until)));
  if (wrong)
    throw new LsrError(
      'REQUEST_INVALID',
      `until is "${wrong.until}"; write a time like 2026-01-31T12:00:00Z`,
    );
  return value.drains;
}
