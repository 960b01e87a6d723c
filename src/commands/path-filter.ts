import { type Command, InvalidArgumentError, Option } from 'commander';
import { verdicts } from '../verdict.js';

/** What is asked of the API; since as ISO 8601. */
export type PathFilterOptions = Partial<
  Record<'chain' | 'node' | 'source' | 'destination' | 'verdict' | 'since', string>
>;

/** The options of each command that reads path records. */
export function addPathFilter(command: Command): Command {
  return command
    .option('--chain <name>', 'only this chain')
    .option('--node <name>', 'only flows whose path has this node, or that went to it')
    .option('--source <address or prefix>', 'only flows from there')
    .option('--destination <address or prefix>', 'only flows to there')
    .addOption(new Option('--verdict <verdict>', 'only this verdict').choices([...verdicts]))
    .option(
      '--since <time>',
      'seen since a time (2025-01-31T12:00:00Z) or for a while (30s, 5m, 2h, 7d)',
      parseSince,
    );
}

const secondsIn: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400 };

function parseSince(text: string): string {
  const span = /^(\d{1,6})([smhd])$/.exec(text);
  if (span)
    return new Date(
      Date.now() - Number(span[1]) * 1000 * (secondsIn[span[2] as string] as number),
    ).toISOString();
  const date = new Date(text);
  if (/^\d{4}-\d{2}-\d{2}/.test(text) && !Number.isNaN(date.getTime())) return date.toISOString();
  throw new InvalidArgumentError('Write a time like 2025-01-31T12:00:00Z or a span like 30s, 5m, 2h, 7d.');
}
