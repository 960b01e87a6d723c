import { type Command, InvalidArgumentError, Option } from 'commander';
import type { ChainView } from '../api-schemas.js';
import { callApi } from '../client.js';
import type { Gap, GapCause } from '../gap.js';
import { printAnswer } from '../output.js';
import { sortKeys } from '../path-query.js';
import type { PathRecord, PathsPage } from '../record.js';
import { addPathFilter, type PathFilterOptions } from './path-filter.js';

interface PathsOptions extends PathFilterOptions {
  api: string;
  json?: boolean;
  sort?: string;
  join?: string[];
  follow?: boolean;
  limit: number;
}

/** `lsr-agent paths`. */
export function addPathsCommand(program: Command): void {
  addPathFilter(program.command('paths'))
    .description('the ways that flows really went, newest first')
    .addOption(new Option('--sort <key>', 'what comes first is highest').choices([...sortKeys]))
    .option(
      '--join <socket or url...>',
      'agents where other segments of a chain end: what they recorded of a flow becomes one record',
    )
    .option('--limit <number>', 'at most so many records', parseLimit, 100)
    .addOption(
      new Option('--follow', 'each record as it is made or becomes more, until you end it').conflicts([
        'join',
        'limit',
        'since',
        'sort',
      ]),
    )
    .addHelpText('after', '\nExample:\n  $ lsr-agent paths --chain web --destination 10.9.0.0/24 --since 5m')
    .action(listPaths);
}

async function listPaths(_options: unknown, command: Command): Promise<void> {
  const { api, json = false, limit, join, follow, ...filter } = command.optsWithGlobals<PathsOptions>();
  const { chain, node, source, destination, verdict, since, sort } = filter;
  if (follow) {
    const { followPaths } = await import('../follow.js');
    return followPaths(api, { chain, node, source, destination, verdict }, json);
  }
  const query = { chain, node, source, destination, verdict, since, sort };
  const page = join ? await joinPages([api, ...join], query, limit) : await collectPages(api, query, limit);
  const { formatRecords } = await import('../path-table.js');
  printAnswer(json, page, () => formatPaths(page, formatRecords));
}

/** The API's largest page. */
const pageSize = 1000;

type Filter = Record<
  'chain' | 'node' | 'source' | 'destination' | 'verdict' | 'since' | 'sort',
  string | undefined
>;

/** `limit` is for each agent and segment. */
async function joinPages(agents: readonly string[], filter: Filter, limit: number): Promise<PathsPage> {
  const { joinSegments, listSegments } = await import('../join.js');
  const views = await Promise.all(
    agents.map((api) => callApi<{ chains: ChainView[] }>(api, { path: '/v1/chains' })),
  );
  const chains = [...new Set(views.flatMap((view) => view.chains.map(({ name }) => name)))];
  const segments = filter.chain === undefined ? [undefined] : listSegments(chains, filter.chain);
  const pages = await Promise.all(
    agents.flatMap((api) => segments.map((chain) => collectPages(api, { ...filter, chain }, limit))),
  );
  const records = joinSegments(
    pages.flatMap((page) => page.records),
    chains,
  );
  const gaps = pages.flatMap((page) => page.gaps);
  return {
    records,
    gaps,
    nextCursor: pages.find(({ nextCursor }) => nextCursor !== null)?.nextCursor ?? null,
  };
}

async function collectPages(api: string, filter: Filter, limit: number): Promise<PathsPage> {
  const records: PathRecord[] = [];
  const gaps: Gap[] = [];
  let cursor: string | undefined;
  do {
    const query = { ...filter, limit: Math.min(pageSize, limit - records.length), cursor };
    const page = await callApi<PathsPage>(api, { path: '/v1/paths', query });
    records.push(...page.records);
    gaps.push(...page.gaps);
    cursor = page.nextCursor ?? undefined;
  } while (cursor !== undefined && records.length < limit);
  return { records, gaps, nextCursor: cursor ?? null };
}

type FormatRecords = typeof import('../path-table.js').formatRecords;

function formatPaths({ records, gaps, nextCursor }: PathsPage, formatRecords: FormatRecords): string {
  const missing = gaps.map(formatGap);
  if (records.length === 0)
    return [
      'no flow was recorded here that fits; records are made by the last hop of a chain',
      ...missing,
    ].join('\n');
  const table = formatRecords(records);
  const older = nextCursor === null ? [] : [`and older ones: --limit ${records.length * 10} shows more`];
  return [table, ...older, ...explainDeviations(records), ...missing].join('\n');
}

/** A line for each sentence, with the number of records that it is about. */
function explainDeviations(records: readonly PathRecord[]): string[] {
  const sentences = new Map<string, number>();
  for (const { verdict, explanation } of records.filter(({ verdict }) => verdict !== 'complete')) {
    const sentence = `${verdict}: ${explanation}`;
    sentences.set(sentence, (sentences.get(sentence) ?? 0) + 1);
  }
  return [...sentences].map(([sentence, count]) => (count > 1 ? `${sentence} (${count} records)` : sentence));
}

const causes: Record<GapCause, string> = {
  table_full: 'the kernel table was full',
  reboot: 'this host started anew, and what was not yet stored is gone',
  unloaded: 'the programs were unloaded, and what was not yet stored went with them',
  store_corrupt: 'the store was corrupt; older records are in the file beside it',
};

function formatGap({ cause, since, until, packets }: Gap): string {
  const span = since === null ? `before ${until}` : `from ${since} to ${until}`;
  return `records are missing ${span}: ${causes[cause]}${packets === null ? '' : `, ${packets} packets`}`;
}

function parseLimit(text: string): number {
  const limit = Number(text);
  if (/^\d{1,7}$/.test(text) && limit > 0) return limit;
  throw new InvalidArgumentError('Write a number from 1 to 9999999.');
}
