import { setTimeout as sleep } from 'node:timers/promises';
import { type Command, InvalidArgumentError } from 'commander';
import { callApi } from '../client.js';
import { explanations } from '../reasons.js';
import { type Cell, formatTable } from '../table.js';
import type { Watch } from '../watch.js';

interface WatchOptions {
  api: string;
  json?: boolean;
  join?: string[];
  from: string;
  to: string;
  protocol?: string;
  port?: number;
  sourcePort?: number;
  seconds?: number;
}

type Sighting = Watch['seen'][number];

const everyMs = 1000;

/** `lsr-agent watch`. */
export function addWatchCommand(program: Command): void {
  program
    .command('watch')
    .description('marks a flow and follows it hop by hop while it runs, as far as agents are asked')
    .requiredOption('--from <address>', 'its source')
    .requiredOption('--to <address>', 'where it goes in the end')
    .option('--protocol <name or number>', 'tcp, udp, icmp, …, or a number; default all')
    .option('--port <number>', 'destination port; default all', readPort)
    .option('--source-port <number>', 'source port; default all', readPort)
    .option('--seconds <number>', 'end after so long; default when you end it', readSeconds)
    .option('--join <socket...>', 'agents of the hops, in the order of the way')
    .addHelpText(
      'after',
      '\nExample:\n  $ lsr-agent watch --from 10.1.0.10 --to 10.9.0.10 --port 80 --join /run/lsr-agent/lab/{fw,ids,gw}/api.sock',
    )
    .action(watchFlow);
}

async function watchFlow(_options: unknown, command: Command): Promise<void> {
  const {
    api,
    json = false,
    join = [],
    seconds = Infinity,
    ...flow
  } = command.optsWithGlobals<WatchOptions>();
  const query = {
    source: flow.from,
    destination: flow.to,
    protocol: flow.protocol,
    sourcePort: flow.sourcePort,
    destinationPort: flow.port,
  };
  const ended = endOnSignal(seconds);
  let last: Watch[] = [];
  while (true) {
    const now = await Promise.all(
      [api, ...join].map((agent) => callApi<Watch>(agent, { method: 'POST', path: '/v1/watch', query })),
    );
    if (last.length === 0 && !json)
      process.stderr.write(`following it at ${now.map(({ node }) => node).join(', ')}\n`);
    for (const line of listNews(last, now, json)) process.stdout.write(`${line}\n`);
    last = now;
    if (ended.aborted) break;
    await sleep(everyMs, undefined, { signal: ended }).catch(() => undefined);
  }
  if (!json) process.stdout.write(`${formatEnd(last)}\n`);
}

/** Whoever ends it still gets the last look. */
function endOnSignal(seconds: number): AbortSignal {
  const interrupted = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => interrupted.abort());
  if (seconds !== Infinity) setTimeout(() => interrupted.abort(), seconds * 1000).unref();
  return interrupted.signal;
}

/** What was seen since the last look, in the order of the hops. */
function listNews(last: readonly Watch[], now: readonly Watch[], json: boolean): string[] {
  return now.flatMap(({ node, seen }, hop) => {
    const before = new Map(last[hop]?.seen.map(({ reason, packets }) => [reason, packets]));
    return seen.flatMap((sighting) => {
      const more = sighting.packets - (before.get(sighting.reason) ?? 0);
      if (more === 0) return [];
      return json ? [JSON.stringify({ node, ...sighting, more })] : [formatNews(node, sighting, more)];
    });
  });
}

const formatNews = (node: string, { reason, packets, lastSeen }: Sighting, more: number): string =>
  `${lastSeen}  ${node}  ${reason} ${more}, ${packets} in all`;

/** What it came to, with what each drop means. */
function formatEnd(watches: readonly Watch[]): string {
  const rows = watches.flatMap(({ node, seen }): Cell[][] =>
    seen.length === 0
      ? [[node, 'nothing of it', null, null]]
      : seen.map(({ reason, packets, lastSeen }) => [node, reason, packets, lastSeen]),
  );
  const seen = new Set(watches.flatMap((watch) => watch.seen.map(({ reason }) => reason)));
  const meanings = Object.entries(explanations)
    .filter(([reason]) => seen.has(reason))
    .map(([reason, { meaning }]) => `${reason}: ${meaning}`);
  return [formatTable(['node', 'what', 'packets', 'last seen'], rows), ...meanings].join('\n');
}

function readPort(text: string): number {
  const port = Number(text);
  if (/^\d{1,5}$/.test(text) && port > 0 && port <= 65535) return port;
  throw new InvalidArgumentError('Write a port from 1 to 65535.');
}

function readSeconds(text: string): number {
  const seconds = Number(text);
  if (/^\d{1,6}(\.\d+)?$/.test(text)) return seconds;
  throw new InvalidArgumentError('Write a number of seconds.');
}
