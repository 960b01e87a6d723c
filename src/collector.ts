import { createSocket } from 'node:dgram';
import { lookup } from 'node:dns/promises';
import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';
import { LsrError } from './errors.js';
import { type EncoderOptions, encodeMessages, type Message } from './ipfix.js';
import type { PathRecord } from './record.js';

export interface Collector {
  transport: 'udp' | 'tcp';
  host: string;
  port: number;
}

export interface Sent {
  collector: string;
  records: number;
  messages: number;
  bytes: number;
}

/** IANA's port of IPFIX. */
const defaultPort = 4739;

/** Reads `udp://HOST:PORT` or `tcp://HOST:PORT`. */
export function parseCollector(text: string): Collector {
  const url = URL.canParse(text) ? new URL(text) : null;
  const transport = url?.protocol.slice(0, -1);
  const isPlain = url?.href.replace(/\/$/, '') === `${url?.protocol}//${url?.host}`;
  if (!url?.hostname || !isPlain || url.port === '0' || (transport !== 'udp' && transport !== 'tcp')) {
    throw new LsrError('USAGE', `--ipfix ${text} is no collector; write udp://HOST:4739 or tcp://HOST:4739`);
  }
  return { transport, host: url.hostname.replace(/^\[|\]$/g, ''), port: Number(url.port || defaultPort) };
}

/** Sends all records to a collector as IPFIX. UDP tells of no loss: that is for the collector, by the sequence numbers. */
export async function sendRecords(records: AsyncIterable<PathRecord>, collector: Collector): Promise<Sent> {
  const { transport, host, port } = collector;
  const name = `${transport}://${host.includes(':') ? `[${host}]` : host}:${port}`;
  const sent: Sent = { collector: name, records: 0, messages: 0, bytes: 0 };
  const messages = count(encodeMessages(records, encoderOptions[transport]), sent);
  try {
    await (transport === 'udp' ? sendDatagrams(messages, collector) : sendStream(messages, collector));
  } catch (error) {
    throw explainFailure(name, error);
  }
  return sent;
}

const encoderOptions: Readonly<Record<Collector['transport'], EncoderOptions>> = {
  // Fits Ethernet beside an IP header with options, or a tunnel's; a record takes 1,100 bytes at most.
  udp: { maxBytes: 1400, templateEvery: 20, now: Date.now },
  tcp: { maxBytes: 16 * 1024, templateEvery: Number.POSITIVE_INFINITY, now: Date.now },
};

async function* count(messages: AsyncIterable<Message>, sent: Sent): AsyncGenerator<Buffer> {
  for await (const { bytes, records } of messages) {
    yield bytes;
    sent.records += records;
    sent.messages += 1;
    sent.bytes += bytes.length;
  }
}

/** Between two datagrams, ms: a receive buffer of Linux's default size holds 90 of them, and nobody says when it is full. */
const datagramGap = 1;

async function sendDatagrams(messages: AsyncIterable<Buffer>, { host, port }: Collector): Promise<void> {
  const { address, family } = await lookup(host);
  const socket = createSocket(family === 6 ? 'udp6' : 'udp4');
  const failed = once(socket, 'error').then(([error]) => Promise.reject(error));
  failed.catch(() => undefined);
  try {
    socket.connect(port, address);
    await Promise.race([once(socket, 'connect'), failed]);
    for await (const bytes of messages) {
      const done = new Promise<void>((resolve, reject) =>
        socket.send(bytes, (error) => (error ? reject(error) : resolve())),
      );
      await Promise.race([done, failed]);
      await wait(datagramGap);
    }
  } finally {
    socket.close();
  }
}

/** Without any progress, ms. */
const silenceMs = 20_000;

async function sendStream(messages: AsyncIterable<Buffer>, { host, port }: Collector): Promise<void> {
  const socket = connect({ host, port, timeout: silenceMs });
  const failed = new Promise<never>((_resolve, reject) => {
    socket.once('error', reject);
    socket.once('timeout', () => reject(new Error(`it took nothing for ${silenceMs / 1000} s`)));
    socket.once('close', () => reject(new Error('it closed the connection')));
  });
  failed.catch(() => undefined);
  try {
    await Promise.race([once(socket, 'connect'), failed]);
    for await (const bytes of messages)
      if (!socket.write(bytes)) await Promise.race([once(socket, 'drain'), failed]);
    await Promise.race([new Promise<void>((resolve) => socket.end(resolve)), failed]);
  } finally {
    // What was written is with the kernel, which sends it on.
    socket.destroy();
  }
}

function explainFailure(name: string, error: unknown): unknown {
  if (error instanceof LsrError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const reasons: Record<string, string> = {
    ECONNREFUSED: 'nothing listens there; start it, or name another with --ipfix',
    ENOTFOUND: 'its name is not known',
    EAI_AGAIN: 'its name cannot be looked up now',
    ENETUNREACH: 'there is no route to it',
    EHOSTUNREACH: 'there is no route to it',
    ECONNRESET: 'it closed the connection',
    EPIPE: 'it closed the connection',
  };
  return new LsrError('COLLECTOR', `the collector ${name} cannot be used: ${reasons[code ?? ''] ?? message}`);
}
