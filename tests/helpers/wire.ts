import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { DropsView, Status } from '../../src/api-schemas.js';
import { callApi } from '../../src/client.js';
import { apiSocket } from '../../src/lab-standing.js';
import { enterNamespace } from '../../src/lab-topology.js';
import type { PathRecord } from '../../src/record.js';
import type { TestLab } from './namespaces.js';

/**
 * How tcpdump takes packets over from the kernel: each at once, or thousands of any size through a ring of 64 MiB, whose
 * blocks it is given after 1 s at the latest. In `readMs` it reads what came last; when it is told to end, it does so at once.
 */
const modes = {
  each: { words: ['--immediate-mode'], readMs: 250, decode: [] },
  // Without `decode` tshark takes minutes now and then: random payload looks like anything to it.
  bulk: { words: ['-B', '65536'], readMs: 1500, decode: ['-d', 'tcp.port==1-65535,data'] },
} as const;

/** Captures on a host's interface while `action` runs; returns tshark's fields of each packet. */
export async function capture(
  lab: TestLab,
  host: string,
  device: string,
  filter: string,
  fields: readonly string[],
  action: () => Promise<unknown>,
  mode: keyof typeof modes = 'each',
): Promise<string[][]> {
  const folder = mkdtempSync(join(tmpdir(), 'lsr-capture-'));
  try {
    const file = join(folder, 'wire.pcap');
    await record(lab, host, ['-i', device, '-w', file, filter], action, mode);
    const checked = ['ip', 'tcp', 'udp'].flatMap((layer) => ['-o', `${layer}.check_checksum:TRUE`]);
    const wanted = fields.flatMap((field) => ['-e', field]);
    const printed = await lab.on(
      host,
      'tshark',
      '-r',
      file,
      ...checked,
      ...modes[mode].decode,
      '-T',
      'fields',
      ...wanted,
    );
    return printed
      .split('\n')
      .filter(Boolean)
      .map((line) => line.split('\t'));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function record(
  lab: TestLab,
  host: string,
  words: readonly string[],
  action: () => Promise<unknown>,
  mode: keyof typeof modes,
): Promise<void> {
  const { words: taking, readMs } = modes[mode];
  const command = ['tcpdump', '-U', ...taking, ...words];
  const tcpdump = spawn('nsenter', enterNamespace(lab.prefix + host, command), {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  tcpdump.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
  await once(tcpdump.stderr, 'data'); // "listening on …"
  try {
    await action();
    await setTimeout(readMs);
  } finally {
    const ended = once(tcpdump, 'close');
    tcpdump.kill('SIGINT');
    await ended;
  }
  if (mode === 'bulk' && !/^0 packets dropped by kernel/m.test(said)) throw new Error(said);
}

export async function readPaths(lab: TestLab, host: string, query = ''): Promise<PathRecord[]> {
  const page = await callApi<{ records: PathRecord[] }>(apiSocket(lab, host), { path: `/v1/paths${query}` });
  return page.records;
}

export function readStatus(lab: TestLab, host: string): Promise<Status> {
  return callApi<Status>(apiSocket(lab, host), { path: '/v1/status' });
}

export function readDrops(lab: TestLab, host: string): Promise<DropsView> {
  return callApi<DropsView>(apiSocket(lab, host), { path: '/v1/drops' });
}

/** Everything counted on a host's ports under one name. */
export function sumCounts(view: DropsView, name: string): number {
  return view.interfaces
    .flatMap(({ outcomes, drops, notes }) => [outcomes[name], drops[name], notes[name]])
    .reduce<number>((sum, count) => sum + (count ?? 0), 0);
}

/** Ports where received is not the sum of outcomes and drops. */
export function findUnbalanced(view: DropsView): string[] {
  return view.interfaces.filter((port) => !isBalanced(port)).map((port) => JSON.stringify(port));
}

export function isBalanced({ received, outcomes, drops }: DropsView['interfaces'][number]): boolean {
  const total = (counts: Record<string, number>): number =>
    Object.values(counts).reduce((sum, count) => sum + count, 0);
  return received === total(outcomes) + total(drops);
}

/** Runs a scapy program; `script` sees what `from scapy.all import *` brings. */
export async function runScapy(lab: TestLab, host: string, script: string): Promise<string> {
  return lab.on(host, '/usr/bin/python3', '-c', `from scapy.all import *\nconf.verb=0\n${script}`);
}
