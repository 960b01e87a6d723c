import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DropsView } from '../src/api-schemas.js';
import { startProcess, stopProcesses } from '../src/lab-processes.js';
import { agentHosts, hostFolder, meshFile, program, startAgent } from '../src/lab-standing.js';
import { inNamespace } from '../src/lab-topology.js';
import { loadMesh } from '../src/mesh-file.js';
import { createLab, type TestLab } from '../tests/helpers/namespaces.js';
import { readDrops, readPaths, sumCounts } from '../tests/helpers/wire.js';
import type { Layout } from './layouts.js';

export interface Traffic {
  seconds: number;
  /** TCP congestion control; the client's own default where there is none. */
  congestion?: string;
  /** CPUs of iperf3's client and server, as its -A takes them. */
  affinity?: string;
  signal: AbortSignal;
}

export interface Run {
  /** What the server received, bit/s. */
  rate: number;
  retransmits: number;
  congestion: string;
}

const server = '10.9.0.10';
/** Who records an echo and its answer until all nine slots are used; the server does for both. */
const plainWay = ['client', 'edge', 'fw', 'ids', 'gw', 'server', 'server', 'gw', 'edge'];
const outcomes = { edge: 'imposed', fw: 'advanced', ids: 'advanced', gw: 'ended' } as const;
/** What iperf3 needs beside the time that it sends for. */
const patienceMs = 15_000;

/** A lab of this layout whose hosts forward plainly: no agent runs, no program is attached. */
export async function buildRoad(layout: Layout, signal: AbortSignal): Promise<TestLab> {
  const folder = mkdtempSync(join(tmpdir(), 'lsr-bench-'));
  const file = join(folder, 'mesh.yaml');
  writeFileSync(file, JSON.stringify(describeMesh(layout)));
  const lab = await createLab({ mesh: file, topology: layout.topology, signal }).finally(() =>
    rmSync(folder, { recursive: true }),
  );
  try {
    await detachAgents(lab);
    // Else a host that forwards back out of the same port looks up whom to redirect, for each packet.
    const quiet = 'for file in /proc/sys/net/ipv4/conf/*/send_redirects; do echo 0 >$file; done';
    await Promise.all(agentHosts.map((host) => lab.on(host, 'sh', '-ec', quiet)));
    await startServer(lab, signal);
  } catch (error) {
    await lab.remove();
    throw error;
  }
  return lab;
}

export async function attachAgents(lab: TestLab, signal: AbortSignal): Promise<void> {
  await Promise.all(agentHosts.map((host) => startAgent(lab, host, signal)));
}

/** Takes the agents, their programs and their counters away. */
export async function detachAgents(lab: TestLab): Promise<void> {
  const detach = async (host: string): Promise<void> => {
    const folder = hostFolder(lab, host);
    await stopProcesses(lab.prefix + host, folder);
    await lab.on(host, process.execPath, program, 'unload', '--config', `${folder}/agent.yaml`);
  };
  await Promise.all(agentHosts.map(detach));
}

/** TCP for some time. What earlier runs taught the hosts of path MTUs and of the connection is forgotten first. */
export async function sendBulk(lab: TestLab, traffic: Traffic): Promise<Run> {
  await Promise.all(
    Object.keys(lab.topology.hosts).map((host) => lab.on(host, 'ip', 'route', 'flush', 'cache')),
  );
  await lab.on('client', 'ip', 'tcp_metrics', 'flush');
  await lab.on('client', 'ping', '-c', '1', '-W', '5', server);
  const { seconds, congestion, affinity, signal } = traffic;
  const command = [
    ...['iperf3', '--json', '--client', server, '--time', String(seconds)],
    ...(congestion ? ['--congestion', congestion] : []),
    ...(affinity ? ['--affinity', affinity] : []),
  ];
  const limit = AbortSignal.any([signal, AbortSignal.timeout(seconds * 1000 + patienceMs)]);
  const { end } = JSON.parse(await inNamespace(`${lab.prefix}client`, command, { signal: limit }));
  return {
    rate: end.sum_received.bits_per_second,
    retransmits: end.sum_sent.retransmits,
    congestion: end.sender_tcp_congestion,
  };
}

/** Throws where a plain packet does not pass all hosts: Record Route, which an edge with a program would drop. */
export async function checkPlainWay(lab: TestLab): Promise<void> {
  const printed = await lab.on('client', 'ping', '-R', '-n', '-c', '1', '-W', '5', server);
  const [, recorded = ''] = /RR:([\s\d.]+)/.exec(printed) ?? [];
  const way = recorded
    .trim()
    .split(/\s+/)
    .map((address) => findHost(lab, address));
  if (way.join() !== plainWay.join())
    throw new Error(`a plain packet went by ${way.join(', ')} instead of ${plainWay.join(', ')}`);
}

/** What the agents counted, if their counts and records say that all went by the chain; else throws. */
export async function readChainCounts(lab: TestLab): Promise<DropsView[]> {
  const views = await Promise.all(agentHosts.map((host) => readDrops(lab, host)));
  for (const [index, host] of agentHosts.entries()) {
    const view = views[index];
    if (!view || sumCounts(view, outcomes[host]) === 0)
      throw new Error(`${host} has nothing ${outcomes[host]}`);
  }
  const others = (await readPaths(lab, 'gw')).filter(({ verdict }) => verdict !== 'complete');
  if (others.length > 0) throw new Error(`a chain was not complete: ${JSON.stringify(others[0])}`);
  return views;
}

function describeMesh({ addresses }: Layout): unknown {
  const { mesh } = loadMesh(meshFile);
  const named = Object.entries(addresses).map(([name, address]) => [
    name,
    { ...mesh.nodes[name], addresses: [address] },
  ]);
  return { ...mesh, nodes: { ...mesh.nodes, ...Object.fromEntries(named) } };
}

async function startServer(lab: TestLab, signal: AbortSignal): Promise<void> {
  const folder = hostFolder(lab, 'server');
  const command = ['iperf3', '--server', '--logfile', `${folder}/iperf3.log`];
  const listens = async (): Promise<boolean> =>
    (await lab.on('server', 'ss', '-Hltn', 'sport = :5201')) !== '';
  await startProcess({ namespace: `${lab.prefix}server`, folder, command }, listens, signal);
}

function findHost(lab: TestLab, address: string): string {
  const owns = ([, host]: [string, { addresses?: Record<string, string> }]): boolean =>
    Object.values(host.addresses ?? {}).some((own) => own.startsWith(`${address}/`));
  return Object.entries(lab.topology.hosts).find(owns)?.[0] ?? address;
}
