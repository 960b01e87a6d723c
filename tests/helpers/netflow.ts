import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';

/** As nfdump prints it. */
export interface NfdumpFlow {
  first: string;
  last: string;
  in_packets: number;
  in_bytes: number;
  proto: number;
  src_port?: number;
  dst_port?: number;
  src4_addr: string;
  dst4_addr: string;
}

export interface Nfcapd {
  port: number;
  /** Ends it and reads what it stored. `summary` is what it says of its input at the end. */
  finish(): Promise<{ flows: NfdumpFlow[]; summary: string }>;
}

/** nfdump's collector on a free port of loopback. */
export async function startNfcapd(): Promise<Nfcapd> {
  const folder = mkdtempSync(join(tmpdir(), 'lsr-nfcapd-'));
  const port = await findFreePort();
  const words = ['-w', folder, '-b', '127.0.0.1', '-p', String(port), '-t', '3600', '-v'];
  const collector = spawn('nfcapd', words, { stdio: ['ignore', 'pipe', 'pipe'] });
  const log = await readUntil(collector, /Startup nfcapd/);
  return {
    port,
    async finish() {
      // Datagrams that are in its buffer are read first: the signal only stops the wait for more.
      collector.kill('SIGTERM');
      await once(collector, 'close');
      const [file = ''] = readdirSync(folder).filter((name) => /^nfcapd\.\d+$/.test(name));
      const { stdout } = await execa('nfdump', ['-r', join(folder, file), '-o', 'json'], {
        env: { TZ: 'UTC' },
      });
      rmSync(folder, { recursive: true });
      return { flows: JSON.parse(stdout), summary: /^Ident: .*$/m.exec(log())?.[0] ?? '' };
    },
  };
}

async function readUntil(child: ChildProcess, ready: RegExp): Promise<() => string> {
  let text = '';
  await new Promise<void>((resolve, reject) => {
    const listen = (chunk: Buffer): void => {
      text += chunk;
      if (ready.test(text)) resolve();
    };
    child.stdout?.on('data', listen);
    child.stderr?.on('data', listen);
    child.once('error', reject);
    child.once('close', () => reject(new Error(`nfcapd ended: ${text}`)));
  });
  return () => text;
}

async function findFreePort(): Promise<number> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();
  socket.close();
  await once(socket, 'close');
  return port;
}

/** What tshark decodes of messages, field by field; and each message that it finds something wrong with. */
export async function dissect(
  messages: readonly Buffer[],
  fields: readonly string[],
): Promise<{ values: Record<string, string[]>; wrong: string[] }> {
  const folder = mkdtempSync(join(tmpdir(), 'lsr-ipfix-'));
  const file = join(folder, 'messages.pcap');
  const input = messages.map((bytes) => `000000 ${bytes.toString('hex').replace(/../g, '$& ')}\n`).join('');
  await execa('text2pcap', ['-q', '-u', '4739,4739', '-', file], { input });
  const tshark = async (...words: string[]) => (await execa('tshark', ['-r', file, ...words])).stdout;
  const names = ['frame.number', ...fields].flatMap((name) => ['-e', name]);
  const lines = (await tshark('-T', 'fields', '-E', 'occurrence=a', '-E', 'aggregator=|', ...names)).split(
    '\n',
  );
  const wrong = await tshark('-Y', '_ws.malformed || _ws.expert');
  rmSync(folder, { recursive: true });
  const cells = lines.map((line) => line.split('\t'));
  const values = fields.map((name, column) => [
    name,
    cells.flatMap((cell) => (cell[column + 1] ?? '').split('|').filter((value) => value !== '')),
  ]);
  return { values: Object.fromEntries(values), wrong: wrong.split('\n').filter((line) => line !== '') };
}
