import { formatFlow, formatRoute } from './flow.js';
import type { PathRecord } from './record.js';
import { formatTable } from './table.js';

/** What people see of records, here and of a capture. */
type Shown = Pick<PathRecord, 'flow' | 'chain' | 'reasons' | 'recorded' | 'packets' | 'bytes'> & {
  verdict: string;
  lastSeen: string | null;
};

export function formatRecords(records: readonly Shown[]): string {
  const rows = records.map((record) => [
    record.lastSeen,
    formatFlow(record.flow),
    record.chain,
    [record.verdict, ...record.reasons.map((reason) => `(${reason})`)].join(' '),
    formatRoute(record.recorded),
    record.packets,
    record.bytes,
  ]);
  return formatTable(['last seen', 'flow', 'chain', 'verdict', 'route', 'packets', 'bytes'], rows);
}
