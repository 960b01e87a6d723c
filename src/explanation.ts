import { lookUp } from './mesh.js';
import { explanations } from './reasons.js';
import type { FlowRow, RouteEntry } from './record.js';

type Explained = Pick<
  FlowRow,
  'chain' | 'expected' | 'recorded' | 'recordRoute' | 'verdict' | 'reasons' | 'arrivedFrom'
>;

/** What a record says, in one sentence. */
export function explainRecord(record: Explained): string {
  const { chain, expected, recorded, verdict, reasons } = record;
  const way = listNames(expected);
  const without = reasons.flatMap((reason) => explainAbsence(reason) ?? []).join(', ');
  switch (verdict) {
    case 'complete':
      return `went ${way}, as chain ${chain} says${without && `, ${without}`}`;
    case 'detour':
      return explainDetour(record);
    case 'truncated':
      return `the source route was used up when the packet arrived at ${nameOf(recorded.at(-1))}, and it was dropped`;
    case 'skipped':
      return without ? `went ${way}, ${without}` : explainSkip(record);
    case 'forged':
      return `nothing that a hop of this mesh sends: ${reasons.map(explainReason).join(', ')}; it was dropped`;
  }
}

function explainDetour({ chain, reasons, recordRoute }: Explained): string {
  const strangers = reasons.flatMap((reason) => /^record_route:(.*)$/.exec(reason)?.[1] ?? []);
  const after = reasons.includes('detour') ? ', so the packet was dropped' : '';
  const place = recordRoute.length > 1 ? ` (${recordRoute.join(', ')})` : '';
  return `${strangers.join(' and ')} stands in Record Route${place}, and is no address of a hop of chain ${chain}${after}`;
}

function explainSkip({ chain, expected, recorded, reasons, arrivedFrom }: Explained): string {
  const here = recorded.at(-1);
  const done = recorded.length - 1;
  const place = expected.findIndex(({ address }) => address === here?.address);
  const turn = reasons.includes('position') ? done : place - 1;
  const from = arrivedFrom ? ` from ${arrivedFrom.node ?? arrivedFrom.mac}` : '';
  const after = reasons.includes('reported') ? `, and went on, as chain ${chain} says` : ', and was dropped';
  const skipped = expected.slice(Math.max(turn, 0), Math.max(place, 0));
  if (skipped.length === 0)
    return `it was not the turn of ${nameOf(here)}: the packet arrived there${from}${after}`;
  return `${listNames(skipped)} ${skipped.length > 1 ? 'were' : 'was'} skipped: the packet arrived at ${nameOf(here)}${from}${after}`;
}

function explainAbsence(reason: string): string | null {
  const [, word, service, instead] = /^(unavailable|alternate):([^=]*)=?(.*)$/.exec(reason) ?? [];
  if (word === 'unavailable') return `without ${service}, of which no host was up`;
  return word === 'alternate' ? `with ${instead} in place of ${service}` : null;
}

const explainReason = (reason: string): string =>
  lookUp<{ meaning: string }>(explanations, reason)?.meaning ?? reason;
const nameOf = (entry: RouteEntry | undefined): string => entry?.node ?? entry?.address ?? 'nowhere';
const listNames = (entries: readonly RouteEntry[]): string => entries.map(nameOf).join(' → ');
