import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import { agentHosts } from '../../src/lab-standing.js';
import { enterNamespace } from '../../src/lab-topology.js';
import type { TestLab } from './namespaces.js';
import { readDrops } from './wire.js';

/** Traffic from a lab's client to its server, by the tools that everybody has, and what became of it. */
export const server = '10.9.0.10';
const port = 9;
const streamPort = 5001;
const script = fileURLToPath(new URL('datagrams.py', import.meta.url));
const streams = fileURLToPath(new URL('stream.py', import.meta.url));

export interface Datagrams {
  size: number;
  count: number;
  /** IP_MTU_DISCOVER of the sender: without DF, with DF where it fits, always with DF. */
  discover: 'dont' | 'want' | 'do';
  /** UDP_SEGMENT of the sender. */
  segment?: number;
}

export interface Delivery {
  /** Datagrams that the sender's kernel took. */
  sent: number;
  /** Writes that it refused with EMSGSIZE. */
  refused: number;
  /** Writes that a netfilter of the sender's host dropped: EPERM. */
  denied: number;
  received: number;
  /** Whether what arrived is what was sent, byte for byte. */
  same: boolean;
}

export async function sendDatagrams(
  lab: TestLab,
  datagrams: Datagrams,
  { from = 'client', to = 'server', address = server } = {},
): Promise<Delivery> {
  const { size, count, discover, segment } = datagrams;
  const sink = serve(lab, to, [script, 'receive', String(port)]);
  await sink.ready;
  const words = [address, port, size, count, discover, ...(segment === undefined ? [] : [segment])];
  const sent = JSON.parse(await lab.on(from, 'python3', script, 'send', ...words.map(String)));
  const received = JSON.parse(await sink.result());
  return {
    sent: sent.sent,
    refused: sent.refused,
    denied: sent.denied,
    received: received.count,
    same: sent.digest === received.digest,
  };
}

/** Starts a script that prints a line when it is ready, and its result once standard input has ended. */
function serve(
  lab: TestLab,
  host: string,
  words: readonly string[],
): { ready: Promise<unknown>; result(): Promise<string> } {
  const child = spawn('nsenter', enterNamespace(lab.prefix + host, ['python3', ...words]), {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit');
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  return {
    ready: lines.next(),
    async result() {
      child.stdin.end();
      const { value } = await lines.next();
      await ended;
      return value ?? '';
    },
  };
}

export interface Pinged {
  received: number;
  /** The MTU that an ICMP error told of, or the sender's own kernel knew. */
  mtu: number | null;
  /** Who sent that error; null for the sender's own kernel. */
  by: string | null;
}

/** One echo request of `bytes` of IPv4. */
export async function pingOnce(
  lab: TestLab,
  bytes: number,
  discover: 'dont' | 'want' | 'do',
  { from = 'client', address = server } = {},
): Promise<Pinged> {
  const command = ['ping', '-c', '1', '-W', '1', '-M', discover, '-s', String(bytes - 28), address];
  const printed = await onEitherWay(lab, from, command);
  const far = /From (\S+) .*\(mtu = (\d+)\)/.exec(printed);
  const near = /message too long, mtu=(\d+)/.exec(printed);
  const mtu = far?.[2] ?? near?.[1];
  return {
    received: Number(/(\d+) received/.exec(printed)?.[1] ?? Number.NaN),
    mtu: mtu === undefined ? null : Number(mtu),
    by: far?.[1] ?? null,
  };
}

/** For what the kernel needs time: neighbours, bridges. */
export async function waitForPing(
  t: ExecutionContext,
  lab: TestLab,
  what: string,
  target?: { address: string },
): Promise<void> {
  const deadline = Date.now() + 10_000;
  while ((await pingOnce(lab, 100, 'dont', target)).received === 0) {
    if (Date.now() > deadline) return t.fail(`${what}: not within 10 s`);
  }
}

/** What a program printed on both outputs, whether or not it failed. */
export async function onEitherWay(lab: TestLab, host: string, command: readonly string[]): Promise<string> {
  return lab.on(host, 'sh', '-c', '"$@" 2>&1 || true', 'sh', ...command);
}

/** The path MTU that a host's kernel has learned towards an address; null for none. */
export async function learnedMtu(lab: TestLab, host = 'client', address = server): Promise<number | null> {
  const [route] = JSON.parse(await lab.on(host, 'ip', '-j', 'route', 'get', address));
  return route?.metrics?.[0]?.mtu ?? null;
}

export async function forgetMtu(lab: TestLab): Promise<void> {
  await Promise.all(
    ['client', 'edge', 'server'].map((host) => lab.on(host, 'ip', 'route', 'flush', 'cache')),
  );
}

/** Carries `bytes` both ways at once over one TCP connection; whether each end has what the other sent. */
export async function carryStream(lab: TestLab, bytes: number, address = server): Promise<boolean> {
  const serving = serve(lab, 'server', [streams, 'serve', String(streamPort), String(bytes)]);
  await serving.ready;
  const near = JSON.parse(
    await lab.on('client', 'python3', streams, 'connect', address, String(streamPort), String(bytes)),
  );
  const far = JSON.parse(await serving.result());
  return near.bytes === bytes && near.received === far.sent && far.received === near.sent;
}

/** `host reason` -> packets dropped there for it, since the lab began. */
export type Ledger = Record<string, number>;

export async function readLedger(lab: TestLab): Promise<Ledger> {
  const views = await Promise.all(
    agentHosts.map(async (host) => ({ host, view: await readDrops(lab, host) })),
  );
  const ledger: Ledger = {};
  for (const { host, view } of views) {
    for (const { drops } of view.interfaces) {
      for (const [reason, count] of Object.entries(drops)) {
        ledger[`${host} ${reason}`] = (ledger[`${host} ${reason}`] ?? 0) + count;
      }
    }
  }
  return ledger;
}

/** What was dropped between two readings, by host and reason. */
export function subtractLedger(after: Ledger, before: Ledger): Ledger {
  return Object.fromEntries(
    Object.entries(after)
      .map(([name, count]): [string, number] => [name, count - (before[name] ?? 0)])
      .filter(([, count]) => count !== 0),
  );
}

export const sumLedger = (ledger: Ledger): number =>
  Object.values(ledger).reduce((sum, count) => sum + count, 0);

/** Packets that a host's own stack found broken: bad checksums of any layer, and bad headers. */
export async function countBroken(lab: TestLab, host: string): Promise<Ledger> {
  const names = [
    'IpInHdrErrors',
    'TcpInCsumErrors',
    'UdpInCsumErrors',
    'IcmpInCsumErrors',
    'IpExtInCsumErrors',
  ];
  const printed = await lab.on(host, 'nstat', '-asz', ...names);
  const counts = printed.split('\n').map((line) => line.split(/\s+/));
  return Object.fromEntries(
    counts.filter(([name = '']) => names.includes(name)).map(([name = '', count]) => [name, Number(count)]),
  );
}
