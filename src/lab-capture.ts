import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { commandEnvironment } from './command-environment.js';
import { LsrError } from './errors.js';
import { enterNamespace, inNamespace } from './lab-topology.js';

export interface Capture {
  /** Every packet that came in until now, as tcpdump decodes it. Ends the capture. */
  finish(): Promise<string[]>;
}

export interface CaptureOptions {
  namespace: string;
  interface: string;
  /** As in pcap-filter(7). */
  filter: string;
  /** A ping from here to there closes the capture: what came before it has been seen, so "nothing" is no race. */
  marker: { namespace: string; source: string; destination: string };
  signal?: AbortSignal | undefined;
}

/** Captures from the moment it returns. Throws LAB when tcpdump cannot. */
export async function startCapture(options: CaptureOptions): Promise<Capture> {
  const { marker, signal } = options;
  const markerFilter = `icmp[icmptype] == icmp-echo and src ${marker.source} and dst ${marker.destination}`;
  const filter = `(${options.filter}) or (${markerFilter})`;
  const command = [
    'tcpdump',
    '-Q',
    'in',
    '-K',
    '-p',
    '-n',
    '-t',
    '-v',
    '-l',
    '--immediate-mode',
    '-i',
    options.interface,
    filter,
  ];
  const child = spawn('nsenter', enterNamespace(options.namespace, command), {
    env: { ...process.env, ...commandEnvironment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.on('error', () => child.stderr.destroy());
  signal?.addEventListener('abort', () => child.kill());
  // Both from the start: a line that nobody waits for is lost.
  const messages = createInterface(child.stderr)[Symbol.asyncIterator]();
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  await readUntil(messages, (line) => line.includes('listening on'), 'tcpdump', signal);
  return {
    async finish() {
      await inNamespace(marker.namespace, ['ping', '-c', '1', '-W', '5', marker.destination], { signal });
      const isMarker = (line: string): boolean =>
        line.includes(`${marker.source} > ${marker.destination}: ICMP echo`);
      const seen = await readUntil(lines, isMarker, 'tcpdump', signal);
      child.kill();
      return joinPackets(seen).slice(0, -1);
    },
  };
}

async function readUntil(
  lines: AsyncIterator<string>,
  isLast: (line: string) => boolean,
  what: string,
  signal?: AbortSignal,
): Promise<string[]> {
  const read: string[] = [];
  for (;;) {
    const { value, done } = await lines.next();
    signal?.throwIfAborted();
    if (done) throw new LsrError('LAB', `${what} ended early: ${read.join(' ') || 'it said nothing'}`);
    read.push(value);
    if (isLast(value)) return read;
  }
}

/** tcpdump -v prints a packet's header on one line and goes on with an indented one. */
function joinPackets(lines: string[]): string[] {
  const packets: string[] = [];
  for (const line of lines) {
    if (/^\s/.test(line) && packets.length > 0) packets.push(`${packets.pop()} ${line.trim()}`);
    else packets.push(line);
  }
  return packets;
}
