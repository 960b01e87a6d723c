import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { enterNamespace } from '../../src/lab-topology.js';
import type { TestLab } from './namespaces.js';

/** Raw frames on a host's device, by one process for many frames. */
const script = fileURLToPath(new URL('frames.py', import.meta.url));

export interface FrameSender {
  /** Returns once the kernel has taken the frame; what it does with it may come later. */
  send(frame: Uint8Array): Promise<void>;
  /** `number`: see frames.py for what it means to this kind of sender. */
  send(frame: Uint8Array, number: number): Promise<void>;
}

export async function openSender(
  lab: TestLab,
  host: string,
  device: string,
  kind: 'send' | 'split' | 'segment' = 'send',
): Promise<FrameSender> {
  const { child, lines } = await start(lab, host, [kind, device]);
  return {
    async send(frame: Uint8Array, number?: number) {
      const hex = Buffer.from(frame).toString('hex');
      child.stdin.write(`${number === undefined ? '' : `${number} `}${hex}\n`);
      if ((await lines.next()).done) throw new Error(`${host} could not send ${hex}`);
    },
  };
}

/** Watches from when it returns. `finish` tells all that came in until then, from the Ethernet header on. */
export async function watchFrames(
  lab: TestLab,
  host: string,
  device: string,
): Promise<{ finish(): Promise<Buffer[]> }> {
  const { child, lines } = await start(lab, host, ['watch', device]);
  return {
    async finish() {
      const ended = once(child, 'exit');
      child.stdin.end();
      const frames: Buffer[] = [];
      for await (const line of { [Symbol.asyncIterator]: () => lines }) frames.push(Buffer.from(line, 'hex'));
      const [code] = await ended;
      if (code !== 0) throw new Error(`frames got lost while ${host} was watched`);
      return frames;
    },
  };
}

/** Ends whatever still sends or watches; for `test.after.always`. */
export async function endFrames(): Promise<void> {
  for (const child of running) {
    const ended = once(child, 'exit');
    child.kill();
    await ended;
  }
}

const running = new Set<ChildProcess>();

async function start(lab: TestLab, host: string, words: string[]) {
  const command = ['python3', script, ...words];
  const child = spawn('nsenter', enterNamespace(lab.prefix + host, command), {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  running.add(child);
  child.on('exit', () => running.delete(child));
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const { done } = await lines.next();
  if (done) throw new Error(`${words.join(' ')} did not start on ${host}`);
  return { child, lines };
}
