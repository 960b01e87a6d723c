import { type Command, InvalidArgumentError } from 'commander';
import type { ChainView } from '../api-schemas.js';
import { callApi } from '../client.js';
import { LsrError } from '../errors.js';
import { printAnswer } from '../output.js';
import { type Cell, formatTable } from '../table.js';
import type { Trace, TracedHop } from '../trace.js';

interface TraceOptions {
  api: string;
  json?: boolean;
  all?: boolean;
  path?: number;
  from?: string;
  to?: string;
  protocol?: string;
  port?: number;
  sourcePort?: number;
}

/** `lsr-agent trace`. */
export function addTraceCommand(program: Command): void {
  program
    .command('trace')
    .description('probe the way of a chain, or of a flow, hop by hop; at the agent where it begins')
    .argument('[chain]', 'a chain; without, --from and --to name a flow')
    .option(
      '--path <id>',
      'this one of its paths; the ids are those of "chains --json"',
      readNumber(0xffffffff),
    )
    .option('--all', 'each of its paths')
    .option('--from <address>', 'source of a flow')
    .option('--to <address>', 'destination of a flow')
    .option('--protocol <name or number>', 'tcp, udp, icmp, …, or a number')
    .option('--port <number>', 'destination port', readNumber(65535))
    .option('--source-port <number>', 'source port', readNumber(65535))
    .addHelpText('after', '\nExample:\n  $ lsr-agent trace web --all')
    .action(traceChain);
}

async function traceChain(chain: string | undefined, _options: unknown, command: Command): Promise<void> {
  const { api, json = false, all = false, ...request } = command.optsWithGlobals<TraceOptions>();
  const { from: source, to: destination, protocol, port: destinationPort, sourcePort, path } = request;
  const flow = { source, destination, protocol, sourcePort, destinationPort };
  const ask = (id: number | undefined): Promise<Trace> =>
    callApi<Trace>(api, { method: 'POST', path: '/v1/trace', query: { chain, path: id, ...flow } });
  const traces: Trace[] = [];
  for (const id of all ? await listPaths(api, chain) : [path]) traces.push(await ask(id));
  printAnswer(json, all ? traces : traces[0], () => traces.map(formatTrace).join('\n\n'));
  if (traces.some(({ reached }) => !reached)) process.exitCode = 1;
}

async function listPaths(api: string, chain: string | undefined): Promise<number[]> {
  if (chain === undefined) throw new LsrError('USAGE', '--all is for a chain; a flow takes one path');
  const { chains } = await callApi<{ chains: ChainView[] }>(api, { path: '/v1/chains' });
  const ids = chains.find(({ name }) => name === chain)?.paths.map(({ id }) => id) ?? [];
  return ids.length > 0 ? ids : [0];
}

function formatTrace({ chain, path, from, hops, explanation, next }: Trace): string {
  const rows = hops.map((hop, index): Cell[] => [
    index + 1,
    hop.node,
    hop.address,
    hop.service,
    ...listTimes(hop),
  ]);
  const head = ['hop', 'node', 'address', 'service', 'there and back', 'from behind the function'];
  return [
    `${chain}, path ${path}, from ${from}`,
    formatTable(head, rows),
    explanation,
    ...(next ? [`it goes on as ${next.chain}, which begins at ${next.at.join(', ')}`] : []),
  ].join('\n');
}

function listTimes({ arrived, behind }: TracedHop): Cell[] {
  return [formatTimes(arrived), behind && formatTimes(behind)];
}

/** As traceroute has it. */
const formatTimes = (times: readonly (number | null)[]): string =>
  times.map((time) => (time === null ? '*' : `${time.toFixed(3)} ms`)).join('  ');

function readNumber(maximum: number): (text: string) => number {
  return (text) => {
    const number = Number(text);
    if (/^\d{1,10}$/.test(text) && number <= maximum) return number;
    throw new InvalidArgumentError(`Write a number from 0 to ${maximum}.`);
  };
}
