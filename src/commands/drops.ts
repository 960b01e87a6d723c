import type { Command } from 'commander';
import type { DropsView } from '../api-schemas.js';
import { callApi } from '../client.js';
import { printAnswer } from '../output.js';
import { formatTable } from '../table.js';

/** `lsr-agent drops`. */
export function addDropsCommand(program: Command): void {
  program
    .command('drops')
    .description('what was dropped on this host, where, why, and what to do')
    .addHelpText('after', '\nExample:\n  $ lsr-agent drops')
    .action(showDrops);
}

async function showDrops(_options: unknown, command: Command): Promise<void> {
  const { api, json = false } = command.optsWithGlobals<{ api: string; json?: boolean }>();
  const drops = await callApi<DropsView>(api, { path: '/v1/drops' });
  const { protocolName } = await import('../match.js');
  printAnswer(json, drops, () => formatDrops(drops, protocolName));
}

type ProtocolNames = (protocol: number) => string;

function formatDrops(view: DropsView, protocolName: ProtocolNames): string {
  const blocks = [
    formatInterfaces(view.interfaces),
    ...formatReasons(view, 'drops', 'dropped'),
    ...formatBackstop(view),
  ];
  if (blocks.length === 1) blocks.push('nothing was dropped');
  blocks.push(...formatReasons(view, 'notes', 'noted, not dropped'));
  if (view.samples.length > 0)
    blocks.push(`samples, newest first:\n${formatSamples(view.samples, protocolName)}`);
  return blocks.join('\n\n');
}

function formatInterfaces(interfaces: DropsView['interfaces']): string {
  const outcomes = [...new Set(interfaces.flatMap((one) => Object.keys(one.outcomes)))];
  const rows = interfaces.map((one) => [
    one.interface,
    one.direction,
    one.received,
    ...outcomes.map((outcome) => one.outcomes[outcome] ?? 0),
    sum(Object.values(one.drops)),
  ]);
  return formatTable(['interface', 'direction', 'received', ...outcomes, 'dropped'], rows);
}

/** A block for each reason that was counted, the most frequent first: how often, where, what it means, what to do. */
function formatReasons(
  { interfaces, explanations }: DropsView,
  kind: 'drops' | 'notes',
  word: string,
): string[] {
  const places = new Map<string, { count: number; where: string }[]>();
  for (const one of interfaces) {
    for (const [reason, count] of Object.entries(one[kind])) {
      if (count === 0) continue;
      const list = places.get(reason) ?? [];
      places.set(reason, [...list, { count, where: `${one.interface} ${one.direction} ${count}` }]);
    }
  }
  return [...places]
    .map(([reason, list]) => ({ reason, list, total: sum(list.map(({ count }) => count)) }))
    .sort((a, b) => b.total - a.total)
    .map(({ reason, list, total }) => {
      const { meaning, advice } = explanations[reason] ?? {
        meaning: 'this agent does not explain it',
        advice: '',
      };
      const lines = [
        `${reason}: ${total} ${word} (${list.map(({ where }) => where).join(', ')})`,
        `  ${meaning}`,
      ];
      return (advice === '' ? lines : [...lines, `  ${advice}`]).join('\n');
    });
}

function formatBackstop({ backstop, explanations }: DropsView): string[] {
  const chains = Object.entries(backstop).filter(([, { packets }]) => packets > 0);
  if (chains.length === 0) return [];
  const where = chains.map(([chain, { packets }]) => `chain ${chain} ${packets}`).join(', ');
  const { meaning = '', advice = '' } = explanations.backstop ?? {};
  return [
    `backstop: ${sum(chains.map(([, { packets }]) => packets))} dropped (${where})\n  ${meaning}\n  ${advice}`,
  ];
}

function formatSamples(samples: DropsView['samples'], protocolName: ProtocolNames): string {
  const rows = samples
    .toSorted((a, b) => b.time.localeCompare(a.time))
    .slice(0, 10)
    .map(({ time, interface: name, direction, reason, source, destination, protocol, options }) => {
      const packet = `${protocolName(protocol)} ${source} → ${destination}`;
      return [time, `${name} ${direction}`, reason, packet, options === '' ? null : options];
    });
  return formatTable(['time', 'where', 'reason', 'packet', 'options'], rows);
}

function sum(counts: number[]): number {
  return counts.reduce((total, count) => total + count, 0);
}
