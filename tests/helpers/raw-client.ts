import { once } from 'node:events';
import { connect, type NetConnectOpts, type Socket } from 'node:net';

export interface Answer {
  status: number;
  headers: string;
  body: string;
}

/** Sends bytes as they are and returns all answers that came until the other side closed, or until there are `count`. */
export async function exchangeRaw(
  target: NetConnectOpts,
  bytes: string | Buffer,
  count = Number.POSITIVE_INFINITY,
): Promise<Answer[]> {
  const socket = await connectTo(target);
  socket.write(bytes);
  return readAnswers(socket, count);
}

export async function connectTo(target: NetConnectOpts): Promise<Socket> {
  const socket = connect(target);
  // Whoever refuses may close while we still write.
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

export async function readAnswers(socket: Socket, count = Number.POSITIVE_INFINITY): Promise<Answer[]> {
  let text = '';
  await new Promise<void>((resolve) => {
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      if (parseAnswers(text).length >= count) resolve();
    });
    socket.once('close', () => resolve());
  });
  socket.destroy();
  return parseAnswers(text);
}

function parseAnswers(text: string): Answer[] {
  const answers: Answer[] = [];
  for (let rest = text; ; ) {
    const end = rest.indexOf('\r\n\r\n');
    const headers = rest.slice(0, end);
    const length = Number(/^content-length: (\d+)$/im.exec(headers)?.[1] ?? 0);
    if (end < 0 || rest.length < end + 4 + length) return answers;
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(headers)?.[1]);
    if (status !== 100) answers.push({ status, headers, body: rest.slice(end + 4, end + 4 + length) });
    rest = rest.slice(end + 4 + (status === 100 ? 0 : length));
  }
}
