/**
 * What is lost while documents are put in force and daemons are started anew, under as much load as one CPU sends.
 * `npm run bench -- change`. Ends with 1 where a packet is missing, or came by another way than a chain.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { callApi } from '../src/client.js';
import { stopProcesses } from '../src/lab-processes.js';
import { agentHosts, apiSocket, hostFolder, meshFile, startAgent } from '../src/lab-standing.js';
import { loadMesh } from '../src/mesh-file.js';
import type { BpfObject } from '../src/native.js';
import { formatTable } from '../src/table.js';
import { compileBpf } from '../tests/helpers/bpf-object.js';
import { compileFlood, flood } from '../tests/helpers/flood.js';
import type { TestLab } from '../tests/helpers/namespaces.js';
import { readDrops, sumCounts } from '../tests/helpers/wire.js';
import { layouts } from './layouts.js';
import { makeFrames, passBridges, pinned, readArrived } from './load.js';
import { parseCount } from './numbers.js';
import { attachAgents, buildRoad } from './road.js';
import { attach } from './systems.js';

interface Options {
  applies: number;
  restarts: number;
}

interface Outcome {
  changes: number;
  sent: number;
  arrived: number;
  /** As the agent of gw counted; a packet that came past the chain is not among them. */
  ended: number;
  seconds: number;
}

const none = { destination: '10.9.0.10', options: Buffer.alloc(0) };
const interruption = new AbortController();
for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM'] as const)
  process.on(signal, () => {
    process.exitCode = 130;
    interruption.abort();
  });

await new Command('change')
  .description('packets lost while meshes are changed and daemons are restarted, at full load')
  .option('--applies <number>', 'documents put in force on all hosts', parseCount, 1000)
  .option('--restarts <number>', 'of a daemon, the hosts in turn', parseCount, 100)
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
  .action(measureChanges)
  .parseAsync();

async function measureChanges({ applies, restarts }: Options): Promise<void> {
  const { signal } = interruption;
  const [layout] = layouts;
  if (!layout) throw new Error('there is no layout');
  const folder = mkdtempSync(join(tmpdir(), 'lsr-bench-'));
  const object = compileBpf(new URL('forward.bpf.c', import.meta.url), folder);
  const program = compileFlood(folder);
  const lab = await buildRoad(layout, signal);
  try {
    await passBridges(lab);
    await attachAgents(lab, signal);
    const sink = await attach(lab, 'server', 'eth0', object, 'sink');
    const frames = await makeFrames(lab, { packet: none }, 512);
    const under = { lab, program, sink, frames };
    const outcomes = {
      applies: await loaded(under, applies, (i) => applyOther(lab, i)),
      restarts: await loaded(under, restarts, (i) => restart(lab, i)),
    };
    sink.close();
    const rows = Object.entries(outcomes).map(([what, { changes, sent, arrived, ended, seconds }]) => [
      what,
      changes,
      seconds.toFixed(0),
      sent,
      sent - arrived,
      arrived - ended,
    ]);
    console.log(formatTable(['what', 'how often', 'seconds', 'packets', 'lost', 'past the chain'], rows));
    if (Object.values(outcomes).some(({ sent, arrived, ended }) => sent !== arrived || arrived !== ended))
      process.exitCode = 1;
  } finally {
    await lab.remove();
    rmSync(folder, { recursive: true });
  }
}

interface Load {
  lab: TestLab;
  program: string;
  sink: BpfObject;
  frames: readonly Buffer[];
}

/** Has changes made one after the other, and packets sent from before the first to behind the last. */
async function loaded(
  { lab, program, sink, frames }: Load,
  changes: number,
  change: (index: number) => Promise<void>,
): Promise<Outcome> {
  const from = { lab, host: 'client', device: 'eth0' };
  await flood(program, from, frames, 0.05, pinned);
  await sleep(100);
  const before = { arrived: readArrived(sink), ended: await readEnded(lab) };
  const begun = Date.now();
  let ended = 0;
  const working = changeAll().finally(() => {
    ended = Date.now();
  });
  let sent = 0;
  while (ended === 0) {
    const { taken } = await flood(program, from, frames, 1, pinned);
    sent += taken.reduce((sum, count) => sum + count, 0);
  }
  await working;
  await sleep(100);
  return {
    changes,
    sent,
    arrived: readArrived(sink) - before.arrived,
    ended: (await readEnded(lab)) - before.ended,
    seconds: (ended - begun) / 1000,
  };

  async function changeAll(): Promise<void> {
    for (let i = 0; i < changes; i++) {
      interruption.signal.throwIfAborted();
      await change(i);
    }
  }
}

async function readEnded(lab: TestLab): Promise<number> {
  return sumCounts(await readDrops(lab, 'gw'), 'ended');
}

/** The hops change their order with each; at each moment some host still has the document before. */
async function applyOther(lab: TestLab, index: number): Promise<void> {
  const { mesh } = loadMesh(meshFile);
  const hops = index % 2 ? ['firewall', 'detector', 'gw'] : ['detector', 'firewall', 'gw'];
  const body = JSON.stringify({ ...mesh, chains: { ...mesh.chains, web: { ...mesh.chains.web, hops } } });
  for (const host of agentHosts.toReversed()) {
    const contentType = 'application/json';
    await callApi(apiSocket(lab, host), { method: 'PUT', path: '/v1/mesh', body, contentType });
  }
}

async function restart(lab: TestLab, index: number): Promise<void> {
  const host = agentHosts[index % agentHosts.length] ?? 'edge';
  await stopProcesses(lab.prefix + host, hostFolder(lab, host));
  await startAgent(lab, host, interruption.signal);
}
