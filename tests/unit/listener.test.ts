/** What clients with bad manners get from the real listeners, and what it costs the process. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import type { NetConnectOpts } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { errorTable } from '../../src/errors.js';
import { API_LIMITS } from '../../src/limits.js';
import { type Answer, connectTo, exchangeRaw, readAnswers } from '../helpers/raw-client.js';

const program = fileURLToPath(new URL('../helpers/api-process.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'lsr-listener-'));
const socket = join(folder, 'api.sock');
let agent: ChildProcess;
let log = '';
/** Resident memory before the first attack, bytes. */
let baseline = 0;
/** The two listeners; the port is filled in when it is known. */
const targets = { socket: { path: socket }, port: { host: '127.0.0.1', port: 0 } } satisfies Record<
  string,
  NetConnectOpts
>;
type Target = keyof typeof targets;

test.before(async () => {
  agent = spawn(process.execPath, ['--import', 'tsx', program, socket], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  agent.stderr?.on('data', (chunk: Buffer) => (log += chunk.toString()));
  const [address] = await once(createInterface(agent.stdout as NodeJS.ReadableStream), 'line');
  targets.port.port = Number(new URL(address).port);
  await exchangeRaw(targets.socket, put('version: 1\n'), 1);
  baseline = readMemory().now;
});

test.after.always(() => {
  agent?.kill();
  rmSync(folder, { recursive: true, force: true });
});

const get = (path: string, ...fields: string[]): string =>
  `${[`GET ${path} HTTP/1.1`, `Host: localhost:${targets.port.port}`, ...fields].join('\r\n')}\r\n\r\n`;

const put = (body: string | Buffer, type = 'application/yaml'): Buffer => {
  const head = `PUT /v1/mesh HTTP/1.1\r\nHost: localhost:${targets.port.port}\r\nContent-Type: ${type}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n`;
  return Buffer.concat([Buffer.from(head), Buffer.from(body)]);
};

/** CPU time of the listeners' process, to 10 ms (USER_HZ, proc(5)). */
function readCpuMs(): number {
  const fields = readFileSync(`/proc/${agent.pid}/stat`, 'latin1')
    .replace(/^.*\) /, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** Resident memory of the listeners' process, bytes; `peak` is the most it ever was. */
function readMemory(): { now: number; peak: number } {
  const status = readFileSync(`/proc/${agent.pid}/status`, 'utf8');
  const read = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) * 1024;
  return { now: read('VmRSS'), peak: read('VmHWM') };
}

function assertRefusal(t: ExecutionContext, answer: Answer | undefined, status: number, code: string): void {
  t.is(answer?.status, status, answer?.body);
  t.regex(answer?.headers ?? '', /^content-type: application\/problem\+json$/im);
  const problem = JSON.parse(answer?.body ?? '{}');
  t.is(problem.code, code);
  t.is(problem.status, status);
  t.true(code in errorTable);
  t.notRegex(answer?.body ?? '', / {4}at |node:internal|\.[jt]s:\d/);
  t.true((answer?.body.length ?? 0) < 64 * 1024);
}

const refusals: [string, Target, () => string | Buffer, number, string][] = [
  [
    'a length and chunks at once',
    'socket',
    () => `${get('/v1/status', 'Content-Length: 4', 'Transfer-Encoding: chunked')}0\r\n\r\n`,
    400,
    'REQUEST_INVALID',
  ],
  [
    'chunks and a length at once',
    'port',
    () => `${get('/v1/status', 'Transfer-Encoding: chunked', 'Content-Length: 4')}0\r\n\r\n`,
    400,
    'REQUEST_INVALID',
  ],
  [
    'two lengths',
    'port',
    () => get('/v1/status', 'Content-Length: 4', 'Content-Length: 5'),
    400,
    'REQUEST_INVALID',
  ],
  ['a negative length', 'port', () => get('/v1/status', 'Content-Length: -1'), 400, 'REQUEST_INVALID'],
  ['a length in hexadecimal', 'port', () => get('/v1/status', 'Content-Length: 0x4'), 400, 'REQUEST_INVALID'],
  [
    'a transfer coding that does not end with chunked',
    'port',
    () => get('/v1/status', 'Transfer-Encoding: chunked, identity'),
    400,
    'REQUEST_INVALID',
  ],
  [
    'an unknown transfer coding',
    'port',
    () => get('/v1/status', 'Transfer-Encoding: xchunked'),
    400,
    'REQUEST_INVALID',
  ],
  [
    'lines that end with LF alone',
    'port',
    () => get('/v1/status').replaceAll('\r\n', '\n'),
    400,
    'REQUEST_INVALID',
  ],
  [
    'a folded header field',
    'port',
    () => get('/v1/status', 'X: a', ' b').replace('X: a', 'Transfer-Encoding:'),
    400,
    'REQUEST_INVALID',
  ],
  ['a space before the colon', 'port', () => get('/v1/status', 'Content-Length : 4'), 400, 'REQUEST_INVALID'],
  ['a NUL in a header field', 'port', () => get('/v1/status', 'X: \0'), 400, 'REQUEST_INVALID'],
  ['a NUL in the path', 'port', () => get('/v1/\0status'), 400, 'REQUEST_INVALID'],
  ['a path that is no UTF-8', 'port', () => get('/v1/%ff'), 400, 'REQUEST_INVALID'],
  ['a path that climbs', 'port', () => get('/v1/../../etc/passwd'), 404, 'NOT_FOUND'],
  [
    'a chunk of a size that overflows',
    'socket',
    () =>
      get('/v1/mesh', 'Content-Type: application/yaml', 'Transfer-Encoding: chunked').replace('GET', 'PUT') +
      `${'f'.repeat(20)}\r\n`,
    400,
    'REQUEST_INVALID',
  ],
  [
    'chunks that are none',
    'socket',
    () =>
      get('/v1/mesh', 'Content-Type: application/yaml', 'Transfer-Encoding: chunked').replace('GET', 'PUT') +
      'zz\r\n',
    400,
    'REQUEST_INVALID',
  ],
  [
    'chunk extensions without end',
    'socket',
    () =>
      get('/v1/mesh', 'Content-Type: application/yaml', 'Transfer-Encoding: chunked').replace('GET', 'PUT') +
      `1;${'x'.repeat(20_000)}\r\na\r\n`,
    413,
    'BODY_TOO_LARGE',
  ],
  ['no Host', 'port', () => 'GET /v1/status HTTP/1.1\r\n\r\n', 400, 'REQUEST_INVALID'],
  ['two Hosts', 'port', () => get('/v1/status', 'Host: evil.example'), 400, 'REQUEST_INVALID'],
  [
    'the Host of a name bound anew to 127.0.0.1',
    'port',
    () => get('/v1/status').replace(/Host: .*/, `Host: evil.example:${targets.port.port}`),
    421,
    'HOST_REFUSED',
  ],
  [
    'a Host that only begins like ours',
    'port',
    () => get('/v1/status').replace(/Host: .*/, `Host: localhost.evil.example:${targets.port.port}`),
    421,
    'HOST_REFUSED',
  ],
  [
    'the Host of another port',
    'port',
    () => get('/v1/status').replace(/Host: .*/, 'Host: localhost:1'),
    421,
    'HOST_REFUSED',
  ],
  ['HTTP/1.0 without Host', 'port', () => 'GET /v1/status HTTP/1.0\r\n\r\n', 421, 'HOST_REFUSED'],
  [
    'a header over its limit',
    'port',
    () => get('/v1/status', `X: ${'y'.repeat(API_LIMITS.headerBytes)}`),
    431,
    'HEADER_TOO_LARGE',
  ],
  [
    'too many header fields',
    'port',
    () => get('/v1/status', ...Array(API_LIMITS.headers).fill('X: y')),
    431,
    'HEADER_TOO_LARGE',
  ],
  [
    'thousands of header fields',
    'port',
    () => get('/v1/status', ...Array(3500).fill('X:')),
    431,
    'HEADER_TOO_LARGE',
  ],
  [
    'thousands of parameters',
    'port',
    () => get(`/v1/paths?${Array.from({ length: 1500 }, (_, n) => `p${n}=`).join('&')}`),
    400,
    'REQUEST_INVALID',
  ],
  [
    'an expectation that nobody knows',
    'port',
    () => get('/v1/status', 'Expect: a miracle'),
    417,
    'REQUEST_INVALID',
  ],
  ['HTTP/2', 'port', () => 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400, 'REQUEST_INVALID'],
  ['TLS', 'port', () => Buffer.from('16030100e0010000dc0303', 'hex'), 400, 'REQUEST_INVALID'],
  ['a method that is none', 'port', () => get('/v1/status').replace('GET', 'FETCH'), 400, 'REQUEST_INVALID'],
  [
    'CONNECT',
    'port',
    () => `CONNECT 10.0.0.1:80 HTTP/1.1\r\nHost: 10.0.0.1:80\r\n\r\n`,
    405,
    'METHOD_NOT_ALLOWED',
  ],
  ['TRACE', 'port', () => get('/v1/status').replace('GET', 'TRACE'), 405, 'METHOD_NOT_ALLOWED'],
  ['DELETE', 'socket', () => get('/v1/mesh').replace('GET', 'DELETE'), 405, 'METHOD_NOT_ALLOWED'],
  ['OPTIONS for everything', 'port', () => get('*').replace('GET', 'OPTIONS'), 404, 'NOT_FOUND'],
  ['a document to the port', 'port', () => put('version: 1\n'), 403, 'READ_ONLY'],
  [
    'a body that says it is huge',
    'socket',
    () =>
      put('')
        .toString()
        .replace('Length: 0', `Length: ${2 ** 40}`),
    413,
    'BODY_TOO_LARGE',
  ],
  ['a body of 4 MiB', 'socket', () => put('#'.repeat(4 * 1024 * 1024)), 413, 'BODY_TOO_LARGE'],
  [
    '4 MiB in chunks',
    'socket',
    () =>
      get('/v1/mesh', 'Content-Type: application/yaml', 'Transfer-Encoding: chunked').replace('GET', 'PUT') +
      `10000\r\n${'#'.repeat(65536)}\r\n`.repeat(64),
    413,
    'BODY_TOO_LARGE',
  ],
  ['bytes that are no text', 'socket', () => put(Buffer.alloc(100_000, 0xfe)), 400, 'REQUEST_INVALID'],
  [
    'a compressed body',
    'socket',
    () => put(Buffer.from('1f8b0800000000000003', 'hex')),
    400,
    'REQUEST_INVALID',
  ],
  ['a picture', 'socket', () => put('x', 'image/png'), 415, 'MEDIA_TYPE'],
  ['JSON that nests', 'socket', () => put('['.repeat(1_000_000), 'application/json'), 400, 'REQUEST_INVALID'],
  [
    'JSON that nests and ends',
    'socket',
    () => put('['.repeat(500_000) + ']'.repeat(500_000), 'application/json'),
    413,
    'BODY_TOO_LARGE',
  ],
  ['YAML that nests', 'socket', () => put('['.repeat(100_000)), 422, 'MESH_INVALID'],
  [
    'YAML maps that nest',
    'socket',
    () => put(Array.from({ length: 1400 }, (_, n) => `${' '.repeat(n)}a:\n`).join('')),
    422,
    'MESH_INVALID',
  ],
  ['aliases that multiply', 'socket', () => put(laughs(9)), 422, 'MESH_INVALID'],
  [
    'aliases that repeat one large list',
    'socket',
    () => put(`a: &a [${'1,'.repeat(20_000)}]\nb: [${'*a,'.repeat(20_000)}]\n`),
    422,
    'MESH_INVALID',
  ],
  ['an alias of itself', 'socket', () => put('a: &a [*a]\n'), 422, 'MESH_INVALID'],
  ['1 MiB of aliases', 'socket', () => put(fill('- *a\n')), 413, 'BODY_TOO_LARGE'],
  ['1 MiB of commas in a list', 'socket', () => put(`[${fill(',').slice(2)}]`), 413, 'BODY_TOO_LARGE'],
  ['1 MiB of brackets', 'socket', () => put(fill(']')), 413, 'BODY_TOO_LARGE'],
  ['1 MiB of empty maps', 'socket', () => put(fill('- {}\n')), 413, 'BODY_TOO_LARGE'],
  ['1 MiB of one key', 'socket', () => put(fill('a: 1\n')), 413, 'BODY_TOO_LARGE'],
  ['1 MiB of directives', 'socket', () => put(fill('%X\n')), 413, 'BODY_TOO_LARGE'],
  ['a name of 1 MiB', 'socket', () => put(`*${'a'.repeat(1_000_000)}`), 422, 'MESH_INVALID'],
  [
    'a document with "__proto__"',
    'socket',
    () => put('{"__proto__": {"version": 1}}', 'application/json'),
    422,
    'MESH_INVALID',
  ],
];

const fill = (unit: string): string => unit.repeat(Math.floor(API_LIMITS.bodyBytes / unit.length));
/** "A billion laughs": each anchor is nine of the one before. */
const laughs = (count: number): string =>
  Array.from(
    { length: count },
    (_, n) =>
      `a${n}: &a${n} [${Array(9)
        .fill(n === 0 ? 'ha' : `*a${n - 1}`)
        .join(',')}]\n`,
  ).join('');

for (const [name, target, bytes, status, code] of refusals) {
  test.serial(`${name}: ${status} ${code} at once`, async (t) => {
    const before = readCpuMs();
    const answers = await exchangeRaw(targets[target], bytes(), 1);
    assertRefusal(t, answers[0], status, code);
    // CPU time, because other programs may keep this one waiting. A client that is waited for is answered 408.
    t.true(readCpuMs() - before < 1000, `${readCpuMs() - before} ms of CPU`);
  });
}

test('docs/security.md gives every limit as it is', (t) => {
  const text = readFileSync('docs/security.md', 'utf8');
  const documented = [...text.matchAll(/^\| (`\w+`(?:, `\w+`)*) \| ([\d, ]+) \|/gm)].flatMap(
    ([, names = '', values = '']) => {
      const numbers = values.split(', ').map(Number);
      return names.split(', ').map((name, index) => [name.slice(1, -1), numbers[index]]);
    },
  );
  t.deepEqual(Object.fromEntries(documented), API_LIMITS);
});

test.serial('a request that is smuggled behind a refused one is not answered', async (t) => {
  const hidden = get('/v1/status');
  for (const first of [
    get('/v1/status', 'Content-Length: 0', 'Transfer-Encoding: chunked'),
    get('/v1/status', 'Content-Length: 0', `Content-Length: ${hidden.length}`),
    get('/v1/status', 'Transfer-Encoding:\tchunked, identity'),
  ]) {
    const answers = await exchangeRaw(targets.port, first + hidden);
    t.deepEqual(
      answers.map(({ status }) => status),
      [400],
    );
  }
});

test.serial('the socket takes any Host, since no browser reaches it', async (t) => {
  const [answer] = await exchangeRaw(targets.socket, get('/v1/status').replace(/Host: .*/, 'Host: x'), 1);
  t.is(answer?.status, 200);
});

test.serial('a header of many fields within its limits is read', async (t) => {
  const fields = Array(API_LIMITS.headers - 1).fill(`X: ${'y'.repeat(100)}`);
  const [answer] = await exchangeRaw(targets.port, get('/v1/status', ...fields), 1);
  t.is(answer?.status, 200);
});

test.serial('of a thousand requests in one piece, few are worked on', async (t) => {
  const answers = await exchangeRaw(targets.port, get('/v1/drops').repeat(1000));
  const statuses = answers.map(({ status }) => status);
  t.deepEqual(statuses, [...Array(API_LIMITS.pipelined).fill(200), 429]);
  assertRefusal(t, answers.at(-1), 429, 'TOO_MANY_REQUESTS');
});

/** Milliseconds until the other side ends the connection, and what it said. */
async function outlast(
  bytes: string | Buffer,
  target: Target,
  drip = '',
): Promise<{ ms: number; answers: Answer[] }> {
  const client = await connectTo(targets[target]);
  const begun = performance.now();
  if (bytes.length > 0) client.write(bytes);
  const timer = drip === '' ? undefined : setInterval(() => client.write(drip), 200);
  const answers = await readAnswers(client);
  clearInterval(timer);
  return { ms: performance.now() - begun, answers };
}

test.serial('who is slow, or silent, is told so and sent away, on both listeners', async (t) => {
  const slowBody = put('x'.repeat(1000)).subarray(0, -1000);
  const rows: [string, Target, string | Buffer, string, number, number[]][] = [
    ['says nothing', 'port', '', '', API_LIMITS.headerMs, [408]],
    ['says nothing', 'socket', '', '', API_LIMITS.headerMs, [408]],
    ['drips a header', 'port', 'GET /v1/status HTTP/1.1\r\n', 'X: y\r\n', API_LIMITS.headerMs, [408]],
    ['drips a header', 'socket', 'GET /v1/status HTTP/1.1\r\n', 'X: y\r\n', API_LIMITS.headerMs, [408]],
    ['drips a body', 'socket', slowBody, 'x', API_LIMITS.requestMs, [408]],
    ['drips a body that nobody reads', 'port', slowBody, 'x', API_LIMITS.requestMs, [403]],
    ['asks once and stays', 'port', get('/v1/status'), '', API_LIMITS.idleMs, [200]],
    ['asks once and stays', 'socket', get('/v1/status'), '', API_LIMITS.idleMs, [200]],
  ];
  const outcomes = await Promise.all(rows.map(([, target, bytes, drip]) => outlast(bytes, target, drip)));
  for (const [index, { ms, answers }] of outcomes.entries()) {
    const [what, target, , , limit = 0, statuses] = rows[index] ?? [];
    const title = `${what} to the ${target}: ${Math.round(ms)} ms`;
    t.deepEqual(
      answers.map(({ status }) => status),
      statuses,
      title,
    );
    t.true(ms >= limit - 50 && ms < limit + 3000, title);
    if (answers[0]?.status === 408) assertRefusal(t, answers[0], 408, 'REQUEST_TIMEOUT');
  }
});

test.serial('however many connections are held open, the next client is answered', async (t) => {
  const count = 4 * API_LIMITS.connections;
  const held = await Promise.all(Array.from({ length: count }, () => connectTo(targets.port)));
  const closed = new Set<number>();
  const displaced = new Promise<void>((resolve) => {
    for (const [index, client] of held.entries()) {
      client.resume().once('close', () => {
        closed.add(index);
        if (closed.size === count - API_LIMITS.connections + 1) resolve();
      });
      client.write('GET /v1/status HTTP/1.1\r\nX: ');
    }
  });
  const [answer] = await exchangeRaw(targets.port, get('/v1/status'), 1);
  t.is(answer?.status, 200);
  await displaced;
  t.false(closed.has(count - 1), 'the youngest is still there');
  for (const client of held) client.destroy();
});

test.serial(
  'where all connections wait for an answer the next is refused, and only on that listener',
  async (t) => {
    const unfinished = put('x').subarray(0, -1);
    const held = await Promise.all(
      Array.from({ length: API_LIMITS.connections }, async () => {
        const client = await connectTo(targets.socket);
        client.write(
          Buffer.concat([
            unfinished.subarray(0, unfinished.indexOf('\r\n\r\n')),
            Buffer.from('\r\nExpect: 100-continue\r\n\r\n'),
          ]),
        );
        await once(client, 'data'); // "100 Continue": the request has begun
        return client;
      }),
    );
    assertRefusal(t, (await exchangeRaw(targets.socket, get('/v1/status')))[0], 429, 'TOO_MANY_REQUESTS');
    t.is((await exchangeRaw(targets.port, get('/v1/status'), 1))[0]?.status, 200);
    for (const client of held) client.destroy();
    const deadline = Date.now() + 5000;
    const isRefused = async (): Promise<boolean> =>
      (await exchangeRaw(targets.socket, get('/v1/status')))[0]?.status === 429;
    while (await isRefused()) t.true(Date.now() < deadline, 'the agent notices that clients have gone');
  },
);

test.serial('after all of that the process is small, has logged no failure, and answers', async (t) => {
  const { now, peak } = readMemory();
  t.log(`resident: ${Math.round(now / 2 ** 20)} MiB now, ${Math.round(peak / 2 ** 20)} MiB at most`);
  t.true(peak - baseline < API_LIMITS.readMegabytes * 2 ** 20);
  t.is(log, '');
  const [answer] = await exchangeRaw(targets.socket, get('/v1/mesh'), 1);
  t.is(answer?.status, 404, 'nothing of it was applied');
  t.is(agent.exitCode, null);
});
