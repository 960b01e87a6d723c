/**
 * Packets a second from the client over edge, fw, ids and gw to the server, by lsr-agent and by what else could lead
 * them there. All systems take turns, so that what else the machine does meets all of them; one CPU does all the work.
 * `npm run bench -- forward`
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, Option } from 'commander';
import type { BpfObject } from '../src/native.js';
import { type Cell, formatTable } from '../src/table.js';
import { compileBpf } from '../tests/helpers/bpf-object.js';
import { compileFlood, flood } from '../tests/helpers/flood.js';
import type { TestLab } from '../tests/helpers/namespaces.js';
import { readDrops } from '../tests/helpers/wire.js';
import { layouts } from './layouts.js';
import { makeFrames, passBridges, pinned, readArrived } from './load.js';
import { parseCount } from './numbers.js';
import { saveResults } from './results.js';
import { buildRoad } from './road.js';
import { type Spread, spread } from './spread.js';
import { attach, type System, systems } from './systems.js';

interface Options {
  rounds: number;
  seconds: number;
  /** As the command line has them. */
  size: string[];
  json?: boolean;
  save?: boolean;
}

interface Run {
  /** Packets a second that arrived. */
  rate: number;
  sent: number;
  lost: number;
}

/** Bytes of an Ethernet frame as the client sends it, without the checksum. */
const sizes = [64, 512, 1400] as const;
const interruption = new AbortController();
for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM'] as const)
  process.on(signal, () => {
    process.exitCode = 130;
    interruption.abort();
  });

await new Command('forward')
  .description(
    'packets a second over four hosts, by lsr-agent, the kernel, a program that only redirects, and SRv6',
  )
  .option('--rounds <number>', 'of all systems', parseCount, 7)
  .option('--seconds <number>', 'for each size, system and round', parseCount, 1)
  .addOption(
    new Option('--size <bytes...>', 'of the frames').choices(sizes.map(String)).default(sizes.map(String)),
  )
  .option('--json', 'print data as JSON')
  .option('--save', 'keep the results in bench/results')
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
  .action(compareSystems)
  .parseAsync();

async function compareSystems({
  rounds,
  seconds,
  size: wanted,
  json = false,
  save = false,
}: Options): Promise<void> {
  const { signal } = interruption;
  const [layout] = layouts;
  if (!layout) throw new Error('there is no layout');
  const folder = mkdtempSync(join(tmpdir(), 'lsr-bench-'));
  const tools = { object: compileBpf(new URL('forward.bpf.c', import.meta.url), folder), signal };
  const program = compileFlood(folder);
  const lab = await buildRoad(layout, signal);
  const runs = new Map<string, Run[]>();
  try {
    await passBridges(lab);
    const sink = await attach(lab, 'server', 'eth0', tools.object, 'sink');
    for (let round = 1; round <= rounds; round++) {
      for (const system of systems) {
        await system.enter(lab, tools);
        for (const size of sizes.filter((bytes) => wanted.includes(`${bytes}`))) {
          const run = await measure({ lab, program, sink, system, size, seconds });
          const key = `${system.name} ${size}`;
          runs.set(key, [...(runs.get(key) ?? []), run]);
        }
        await system.leave(lab);
        signal.throwIfAborted();
      }
      console.error(`round ${round} of ${rounds}`);
    }
    sink.close();
  } finally {
    await lab.remove();
    rmSync(folder, { recursive: true });
  }
  const results = describe(runs);
  if (save) keep(results);
  console.log(json ? JSON.stringify(results, null, 2) : formatResults(results));
}

interface Measurement {
  lab: TestLab;
  program: string;
  sink: BpfObject;
  system: System;
  size: number;
  seconds: number;
}

/** Throws where packets did not go over fw and ids, or an agent cannot say why one is missing. */
async function measure({ lab, program, sink, system, size, seconds }: Measurement): Promise<Run> {
  const frames = await makeFrames(lab, system, size);
  const from = { lab, host: 'client', device: 'eth0' };
  // Neighbours are asked for, caches are filled.
  await flood(program, from, frames, 0.05, pinned);
  await sleep(50);
  const before = {
    arrived: readArrived(sink),
    passed: await readPassed(lab),
    drops: await countDrops(lab, system),
  };
  const sent = await flood(program, from, frames, seconds, pinned);
  await sleep(50);
  const arrived = readArrived(sink) - before.arrived;
  const taken = sent.taken.reduce((sum, count) => sum + count, 0);
  const lost = taken - arrived;
  const passed = await readPassed(lab);
  for (const [host, count] of Object.entries(passed)) {
    const own = count - (before.passed[host] ?? 0);
    if (arrived === 0 || own < arrived)
      throw new Error(`${system.name}: ${arrived} packets arrived, and ${own} came to ${host}`);
  }
  const drops = (await countDrops(lab, system)) - before.drops;
  if (lost > 0 && system.name.startsWith('chain') && drops < lost)
    throw new Error(`${system.name}: ${lost} packets are missing, and the agents dropped ${drops}`);
  return { rate: arrived / sent.seconds, sent: taken, lost };
}

/** Packets that came in at the hosts in the middle. */
async function readPassed(lab: TestLab): Promise<Record<string, number>> {
  const read = async (host: string): Promise<[string, number]> => {
    const [link] = JSON.parse(await lab.on(host, 'ip', '-json', '-s', 'link', 'show', 'mesh0'));
    return [host, link.stats64.rx.packets];
  };
  return Object.fromEntries(await Promise.all(['fw', 'ids'].map(read)));
}

async function countDrops(lab: TestLab, { name }: System): Promise<number> {
  if (!name.startsWith('chain')) return 0;
  const views = await Promise.all(['edge', 'fw', 'ids', 'gw'].map((host) => readDrops(lab, host)));
  const counts = views.flatMap(({ interfaces }) => interfaces.flatMap(({ drops }) => Object.values(drops)));
  return counts.reduce((sum, count) => sum + count, 0);
}

interface Result {
  system: string;
  bytes: number;
  /** Thousand packets a second. */
  rate: Spread;
  /** To kernel forwarding, of the same round. */
  ratio: Spread;
  sent: number;
  lost: number;
}

function describe(runs: ReadonlyMap<string, readonly Run[]>): Result[] {
  const measured = sizes.filter((bytes) => runs.has(`${systems[0]?.name} ${bytes}`));
  return measured.flatMap((bytes) =>
    systems.map(({ name }): Result => {
      const own = runs.get(`${name} ${bytes}`) ?? [];
      const plain = runs.get(`${systems[0]?.name} ${bytes}`) ?? [];
      const sum = (key: 'sent' | 'lost'): number => own.reduce((total, run) => total + run[key], 0);
      return {
        system: name,
        bytes,
        rate: spread(own.map(({ rate }) => rate / 1000)),
        ratio: spread(own.map(({ rate }, round) => rate / (plain[round]?.rate ?? Number.NaN))),
        sent: sum('sent'),
        lost: sum('lost'),
      };
    }),
  );
}

function keep(results: readonly Result[]): void {
  const bars = results.map(({ system, bytes, rate }) => ({ label: system, group: `${bytes}`, ...rate }));
  const title = `Thousand packets a second over four hosts, one CPU; frames of ${sizes.join(', ')} bytes`;
  saveResults('forward', results, formatResults(results), { title, bars });
}

function formatResults(results: readonly Result[]): string {
  const rows = results.map(({ system, bytes, rate, ratio, lost }): Cell[] => [
    bytes,
    system,
    Math.round(rate.median),
    `${Math.round(rate.min)}–${Math.round(rate.max)}`,
    ratio.median.toFixed(2),
    `${ratio.min.toFixed(2)}–${ratio.max.toFixed(2)}`,
    lost,
  ]);
  return formatTable(['bytes', 'system', 'kpps', 'min–max', 'x kernel', 'min–max', 'lost'], rows);
}
