import type { CaptureReport } from './capture-audit.js';
import { ROWS_MAX } from './capture-flows.js';
import type { Violation } from './capture-violations.js';
import { formatFlow } from './flow.js';
import { formatRecords } from './path-table.js';

/** For people: what was read, the ways, and what is wrong by reason, the first packet of each named. */
export function formatAudit({ capture, records, violations, explanations }: CaptureReport): string {
  const table =
    records.length === 0 ? 'no packet of a chain that fits' : formatRecords(records.slice(0, SHOWN_MAX));
  const rest = records.length - SHOWN_MAX;
  const more = rest > 0 ? `\nand ${rest} older ones: --json has them all` : '';
  const kinds = new Map<string, Violation[]>();
  for (const violation of violations)
    kinds.set(violation.reason, [...(kinds.get(violation.reason) ?? []), violation]);
  const blocks = [...kinds].map(([reason, list]) => {
    const { meaning = '', advice = '' } = explanations[reason] ?? {};
    return [formatKind(reason, list), `  ${meaning}`, ...(advice === '' ? [] : [`  ${advice}`])].join('\n');
  });
  const lines = [formatCounts(capture, records.length, violations), ...listNotes(capture)];
  return [lines.join('\n'), table + more, ...blocks].join('\n\n');
}

/** Of records, in a table for people. */
const SHOWN_MAX = 1000;

function formatCounts(
  { file, packets, ipv4, sourceRoutes }: CaptureReport['capture'],
  records: number,
  violations: readonly Violation[],
): string {
  const bad = violations.reduce((sum, violation) => sum + violation.packets, 0);
  const read = `${packets} packets, ${ipv4} IPv4, ${sourceRoutes} with source routes`;
  const wrong = bad === 0 ? 'no violations' : `violations: ${bad} packets`;
  return `${file}: ${read}; records: ${records}; ${wrong}`;
}

/** What makes the numbers smaller than the truth. */
function listNotes(capture: CaptureReport['capture']): string[] {
  const { truncatedAt, snapped, tagsUnchecked, untold, probes, interfaces } = capture;
  const unread = interfaces.filter(({ supported, packets }) => !supported && packets > 0);
  const notes: [boolean, string][] = [
    [
      truncatedAt !== null,
      `the file ends inside what begins at byte ${truncatedAt}: what follows is missing`,
    ],
    [
      snapped > 0,
      `${snapped} packets were cut before the end of their options: keep 78 bytes of IPv4 or more`,
    ],
    [
      tagsUnchecked > 0,
      `${tagsUnchecked} integrity tags were not checked: they need --keys, times, and ports`,
    ],
    [untold > 0, `${untold} packets are in no record: more than ${ROWS_MAX} different headers`],
    [probes > 0, `${probes} probes of agents are left out`],
    ...unread.map(({ name, linkType, packets }): [boolean, string] => [
      true,
      `${packets} packets of ${name ?? 'an interface'} were not read: link type ${linkType}`,
    ]),
  ];
  return notes.filter(([isTrue]) => isTrue).map(([, note]) => `note: ${note}`);
}

function formatKind(reason: string, list: readonly Violation[]): string {
  const packets = list.reduce((sum, violation) => sum + violation.packets, 0);
  const [first] = list;
  if (!first) return reason;
  const { firstPacket, firstSeen, flow, hop } = first;
  const when = firstSeen === null ? '' : ` at ${firstSeen}`;
  const flows = list.length === 1 ? '' : ` of ${list.length} flows`;
  return `${reason}: ${packets} packets${flows}; first packet ${firstPacket}${when}, ${formatFlow(flow)}, to ${hop.node ?? hop.address}`;
}
