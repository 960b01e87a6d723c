import type { Command } from 'commander';
import { callApi } from '../client.js';
import { printAnswer } from '../output.js';
import type { Amount, PathSummary, Summary } from '../summary.js';
import { type Cell, formatTable } from '../table.js';

interface SummaryOptions {
  api: string;
  json?: boolean;
  join?: string[];
}

/** `lsr-agent summary`. */
export function addSummaryCommand(program: Command): void {
  program
    .command('summary')
    .description('what became of the packets of a chain, hop by hop as far as agents are asked')
    .argument('<chain>', 'a chain, or one of its segments')
    .option('--join <socket or url...>', 'agents of its other nodes')
    .addHelpText(
      'after',
      '\nExample:\n  $ lsr-agent summary web --join http://127.0.0.1:8001 http://127.0.0.1:8002',
    )
    .action(summarizeChain);
}

async function summarizeChain(chain: string, _options: unknown, command: Command): Promise<void> {
  const { api, json = false, join = [] } = command.optsWithGlobals<SummaryOptions>();
  const path = `/v1/chains/${encodeURIComponent(chain)}/summary`;
  const summaries = await Promise.all([api, ...join].map((agent) => callApi<Summary>(agent, { path })));
  printAnswer(json, join.length === 0 ? summaries[0] : summaries, () => formatSummaries(summaries));
}

function formatSummaries(summaries: readonly Summary[]): string {
  const verdicts = summaries.flatMap(({ node, verdicts }) => listAmounts(verdicts, `ended at ${node}: `));
  const unrouted = summaries.flatMap(({ node, unrouted }) => listAmounts(unrouted, `no path from ${node}: `));
  const paths = new Map(summaries.flatMap((summary) => summary.paths.map((path) => [path.id, path.nodes])));
  const tables = [...paths].map(([id, nodes]) => formatPath(id, nodes, summaries));
  return [...tables, [...verdicts, ...unrouted].join('\n')].filter((part) => part !== '').join('\n\n');
}

const listAmounts = (amounts: Summary['verdicts'], head: string): string[] =>
  Object.entries(amounts).map(
    ([name, { packets, bytes }]) => `${head}${name}, ${packets} packets, ${bytes} bytes`,
  );

/** Each place of a path, with what was lost on the way to it and what was kept there. */
function formatPath(id: number, nodes: readonly string[], summaries: readonly Summary[]): string {
  const known = new Map<number, { node: string; path: PathSummary }>();
  for (const { node, paths } of summaries)
    for (const path of paths) if (path.id === id) known.set(path.position, { node, path });
  let before: Amount | null = null;
  const rows = [0, ...nodes.map((_, index) => index + 1)].map((position): Cell[] => {
    const { node = nodes[position - 1] ?? 'edge', path } = known.get(position) ?? {};
    const lost = path && before ? before.packets - path.in.packets : null;
    before = path?.out ?? null;
    if (!path) return [position, node, null, null, null, null, ''];
    const dropped = Object.entries(path.drops).map(([reason, { packets }]) => `${reason} ${packets}`);
    const kept = path.in.packets - path.out.packets - sumPackets(path.drops);
    return [position, node, lost, path.in.packets, path.out.packets, kept, dropped.join(', ')];
  });
  const head = ['hop', 'node', 'lost before', 'in', 'out', 'kept', 'dropped'];
  return `path ${id}: ${nodes.join(' → ')}\n${formatTable(head, rows)}`;
}

const sumPackets = (amounts: Summary['verdicts']): number =>
  Object.values(amounts).reduce((sum, { packets }) => sum + packets, 0);
