/**
 * What a chain of four hosts leaves of the TCP throughput that plain forwarding over the same hosts has, by
 * MTU layout. Plain and chained runs alternate; the ratio is made pair by pair. `npm run bench -- mtu`
 */
import { Command, Option } from 'commander';
import type { DropsView } from '../src/api-schemas.js';
import { type Cell, formatTable } from '../src/table.js';
import { type Layout, layouts } from './layouts.js';
import { parseCount } from './numbers.js';
import {
  attachAgents,
  buildRoad,
  checkPlainWay,
  detachAgents,
  type Run,
  readChainCounts,
  sendBulk,
  type Traffic,
} from './road.js';
import { type Spread, spread } from './spread.js';

interface Options {
  layout: string[];
  pairs: number;
  seconds: number;
  congestion?: string;
  affinity?: string;
  json?: boolean;
}

interface Result {
  layout: string;
  congestion: string;
  /** Gbit/s. */
  plain: Spread & { retransmits: number };
  chain: Spread & { retransmits: number };
  /** Of each pair, chain to plain. */
  ratio: Spread;
  /** Reason -> packets, in all chained runs and agents. */
  drops: Record<string, number>;
}

const explanations: DropsView['explanations'] = {};
const interruption = new AbortController();
for (const [signal, code] of Object.entries({ SIGHUP: 129, SIGINT: 130, SIGTERM: 143 })) {
  process.on(signal, () => {
    process.exitCode = code;
    interruption.abort();
  });
}

await readCommand().parseAsync();

function readCommand(): Command {
  const names = layouts.map(({ name }) => name);
  return new Command('mtu')
    .description('TCP throughput through a chain of four hosts, as a ratio to plain forwarding over them')
    .addOption(new Option('--layout <name...>', 'MTU layouts').choices(names).default(names))
    .option('--pairs <number>', 'plain and chained runs of each layout', parseCount, 7)
    .option('--seconds <number>', 'length of a run', parseCount, 1)
    .option('--congestion <name>', "TCP congestion control; default: the host's")
    .option('--affinity <client,server>', 'CPUs of the sender and the receiver; default: any')
    .option('--json', 'print data as JSON')
    .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
    .action(compareLayouts);
}

async function compareLayouts(options: Options): Promise<void> {
  if (process.getuid?.() !== 0) {
    console.error('this benchmark makes network namespaces: run it as root');
    process.exitCode = 1;
    return;
  }
  const results: Result[] = [];
  try {
    for (const layout of layouts.filter(({ name }) => options.layout.includes(name)))
      results.push(await compare(layout, options));
  } catch (error) {
    if (!interruption.signal.aborted) throw error;
    return;
  }
  if (options.json) {
    const { pairs, seconds } = options;
    console.log(JSON.stringify({ pairs, seconds, layouts: results, explanations }, null, 2));
  } else console.log(describeResults(results));
}

async function compare(layout: Layout, options: Options): Promise<Result> {
  const traffic: Traffic = { ...options, signal: interruption.signal };
  const plain: Run[] = [];
  const chain: Run[] = [];
  const drops: Record<string, number> = {};
  const lab = await buildRoad(layout, traffic.signal);
  try {
    for (let pair = 1; pair <= options.pairs; pair++) {
      await checkPlainWay(lab);
      plain.push(await sendBulk(lab, traffic));
      await attachAgents(lab, traffic.signal);
      chain.push(await sendBulk(lab, traffic));
      addDrops(drops, await readChainCounts(lab));
      await detachAgents(lab);
      console.error(`${layout.name}: pair ${pair} of ${options.pairs}`);
    }
  } finally {
    await lab.remove();
  }
  return {
    layout: layout.name,
    congestion: plain[0]?.congestion ?? '',
    plain: summarize(plain),
    chain: summarize(chain),
    ratio: spread(chain.map(({ rate }, pair) => rate / (plain[pair]?.rate ?? Number.NaN))),
    drops,
  };
}

function addDrops(drops: Record<string, number>, views: DropsView[]): void {
  for (const view of views) {
    for (const port of view.interfaces) {
      for (const [reason, count] of Object.entries(port.drops)) {
        drops[reason] = (drops[reason] ?? 0) + count;
        const explanation = view.explanations[reason];
        if (explanation) explanations[reason] = explanation;
      }
    }
  }
}

function summarize(runs: Run[]): Spread & { retransmits: number } {
  const retransmits = runs.reduce((sum, run) => sum + run.retransmits, 0);
  return { ...spread(runs.map(({ rate }) => rate / 1e9)), retransmits };
}

function describeResults(results: Result[]): string {
  const head = ['layout', 'plain Gbit/s', 'chain Gbit/s', 'ratio', 'min–max', 'retransmits', 'drops'];
  const rows = results.map(({ layout, plain, chain, ratio, drops }): Cell[] => [
    layout,
    plain.median.toFixed(1),
    chain.median.toFixed(1),
    ratio.median.toFixed(2),
    `${ratio.min.toFixed(2)}–${ratio.max.toFixed(2)}`,
    `${plain.retransmits}, ${chain.retransmits}`,
    Object.entries(drops)
      .map(([reason, count]) => `${reason} ${count}`)
      .join(', ') || 'none',
  ]);
  const reasons = Object.entries(explanations).map(([reason, { meaning }]) => `${reason}: ${meaning}`);
  return [formatTable(head, rows), '', `TCP ${results[0]?.congestion}`, ...reasons].join('\n');
}
