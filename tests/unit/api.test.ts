import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { FastifyInstance, InjectOptions } from 'fastify';
import { pino } from 'pino';
import { Value } from 'typebox/value';
import { Client } from 'undici';
import { readAgentConfig } from '../../src/agent-config.js';
import { buildApi } from '../../src/api.js';
import {
  ApplyResultSchema,
  ChainsSchema,
  DropsSchema,
  ProblemSchema,
  StatusSchema,
} from '../../src/api-schemas.js';
import { DrainsSchema } from '../../src/drains.js';
import { LsrError } from '../../src/errors.js';
import { KeysViewSchema } from '../../src/keys.js';
import { type Listeners, openListeners } from '../../src/listener.js';
import { isOwnHost, parseListen } from '../../src/loopback.js';
import { PathsPageSchema } from '../../src/record.js';
import { openStore, type Store } from '../../src/store.js';
import { SummarySchema } from '../../src/summary.js';
import {
  type FakeAgent,
  fakeAgent,
  flowRow,
  meshText,
  traceFixture,
  watchFixture,
} from '../helpers/fake-agent.js';

const folder = mkdtempSync(join(tmpdir(), 'lsr-api-'));
const store = openStore(join(folder, 'audit.db'));
const logger = pino({ level: 'silent' });
let sockets = 0;
const newSocket = (): string => {
  sockets += 1;
  return join(folder, `${sockets}.sock`);
};
test.after.always(() => {
  store.close();
  rmSync(folder, { recursive: true, force: true });
});

const build = (
  agent: FakeAgent = fakeAgent(),
  options: { readOnly?: boolean; store?: Store } = {},
): FastifyInstance => buildApi(agent, { readOnly: false, logger, store, ...options });

const yaml = { 'content-type': 'application/yaml' };
const json = { 'content-type': 'application/json' };

const answers = [
  ['/v1/status', StatusSchema],
  ['/v1/chains', ChainsSchema],
  ['/v1/chains/web%2F2/summary', SummarySchema],
  ['/v1/drops', DropsSchema],
  ['/v1/drains', DrainsSchema],
  ['/v1/keys', KeysViewSchema],
  ['/v1/paths', PathsPageSchema],
] as const;
for (const [url, schema] of answers) {
  test(`GET ${url} answers what its schema says`, async (t) => {
    const response = await build().inject(url);
    t.is(response.statusCode, 200);
    t.regex(String(response.headers['content-type']), /^application\/json/);
    t.is(response.headers['cache-control'], 'no-store');
    t.deepEqual([...Value.Errors(schema, response.json())], []);
  });
}

test('GET /metrics answers Prometheus text', async (t) => {
  const response = await build().inject('/metrics');
  t.is(response.headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8');
  t.is(response.body, '# TYPE lsr_packets counter\nlsr_packets 1\n');
});

test('GET /openapi.json describes every route, its parameters and its problems', async (t) => {
  const document = (await build().inject('/openapi.json')).json();
  t.is(document.openapi, '3.1.0');
  const paths = [
    '/metrics',
    '/v1/chains',
    '/v1/chains/{name}/summary',
    '/v1/drains',
    '/v1/drops',
    '/v1/keys',
    '/v1/mesh',
    '/v1/paths',
    '/v1/paths/export',
    '/v1/paths/stream',
    '/v1/status',
    '/v1/trace',
    '/v1/watch',
  ];
  t.deepEqual(Object.keys(document.paths).sort(), paths);
  t.deepEqual(Object.keys(document.paths['/v1/mesh']).sort(), ['get', 'put']);
  const { content } = document.paths['/v1/mesh'].put.requestBody;
  t.deepEqual(Object.keys(content).sort(), ['application/json', 'application/yaml', 'text/yaml']);
  const parameters = document.paths['/v1/paths'].get.parameters.map((one: { name: string }) => one.name);
  const names = 'chain node source destination verdict since until sort order limit cursor'.split(' ');
  t.deepEqual(parameters, names);
  t.truthy(document.paths['/v1/paths'].get.responses['4XX'].content['application/problem+json']);
});

test('a mesh that was put is read back, as a document and as the text it was', async (t) => {
  const app = build();
  await assertProblem(t, app, { url: '/v1/mesh' }, 404, 'MESH_ABSENT', /PUT one/);
  for (const contentType of ['application/yaml', 'text/yaml', 'application/yaml; charset=utf-8']) {
    const headers = { 'content-type': contentType };
    const put = await app.inject({ method: 'PUT', url: '/v1/mesh', headers, payload: meshText });
    t.is(put.statusCode, 200, put.body);
    t.true(Value.Check(ApplyResultSchema, put.json()));
  }
  const asText = await app.inject({ url: '/v1/mesh', headers: { accept: 'application/yaml' } });
  t.is(asText.body, meshText);
  const document = (await app.inject('/v1/mesh')).json();
  t.deepEqual(document.chains.web.hops, ['fw', 'ids', 'gw']);

  const again = await app.inject({
    method: 'PUT',
    url: '/v1/mesh',
    headers: json,
    payload: JSON.stringify(document, null, '\t'),
  });
  t.is(again.json().generation, 4, again.body);
  t.deepEqual((await app.inject('/v1/mesh')).json(), document);
});

const badBodies: [string, InjectOptions, number, string, RegExp][] = [
  ['malformed JSON', { headers: json, payload: '{"version": 1,}' }, 400, 'REQUEST_INVALID', /not JSON/],
  ['YAML that calls itself JSON', { headers: json, payload: meshText }, 400, 'REQUEST_INVALID', /not JSON/],
  ['no body', { headers: yaml }, 400, 'REQUEST_INVALID', /empty/],
  ['an empty body', { headers: yaml, payload: ' \n' }, 400, 'REQUEST_INVALID', /empty/],
  [
    'bytes that are no text',
    { headers: yaml, payload: Buffer.from([0xff, 0xfe, 0x00]) },
    400,
    'REQUEST_INVALID',
    /UTF-8/,
  ],
  [
    'a form',
    { headers: { 'content-type': 'application/x-www-form-urlencoded' }, payload: 'a=1' },
    415,
    'MEDIA_TYPE',
    /application\/yaml/,
  ],
  ['a body without a type', { payload: Buffer.from(meshText) }, 415, 'MEDIA_TYPE', /is none/],
  [
    '1 MiB and a byte',
    { headers: yaml, payload: '#'.repeat(1024 * 1024 + 1) },
    413,
    'BODY_TOO_LARGE',
    /1048576/,
  ],
  ['an unknown key', { headers: yaml, payload: `${meshText}extra: 1\n` }, 422, 'MESH_INVALID', /extra/],
  ['no mesh', { headers: json, payload: '[]' }, 422, 'MESH_INVALID', /./],
];
for (const [name, request, status, code, detail] of badBodies) {
  test(`PUT /v1/mesh with ${name} is refused and the last good mesh stays`, async (t) => {
    const agent = fakeAgent();
    const app = build(agent);
    await app.inject({ method: 'PUT', url: '/v1/mesh', headers: yaml, payload: meshText });
    await assertProblem(t, app, { method: 'PUT', url: '/v1/mesh', ...request }, status, code, detail);
    t.is(agent.current?.generation, 1);
  });
}

for (const [name, headers, wrong] of [
  ['YAML', yaml, meshText.replace('hops: [fw', 'hops: [nobody')],
  ['JSON', json, '{"version": 1,\n "nodes": {},\n "wrong": 1}'],
] as const) {
  test(`problems of a ${name} body carry line, column and pointer`, async (t) => {
    const problem = await (
      await build().inject({ method: 'PUT', url: '/v1/mesh', headers, payload: wrong })
    ).json();
    t.is(problem.code, 'MESH_INVALID');
    t.true(problem.problems.length > 0);
    for (const { line, column, pointer, message } of problem.problems) {
      t.true(line >= 1 && column >= 1);
      t.is(typeof pointer, 'string');
      t.true(message.length > 0);
    }
  });
}

const badQueries: [string, RegExp][] = [
  ['/v1/paths?colour=red', /no parameter "colour"/],
  ['/v1/paths?colour=red&limit=0&verdict=fine', /"colour".*complete.*|limit/],
  ['/v1/paths?limit=0', /limit must be >= 1/],
  ['/v1/paths?limit=1001', /limit must be <= 1000/],
  ['/v1/paths?limit=ten', /limit must be integer/],
  ['/v1/paths?limit=', /limit must be integer/],
  ['/v1/paths?limit=1&limit=2', /limit must be integer/],
  ['/v1/paths?verdict=fine', /complete, detour, skipped, truncated, forged/],
  ['/v1/paths?source=10.0.0.1/8', /10\.0\.0\.1\/8.*host bits zero/],
  ['/v1/paths?source=fw', /"fw".*IPv4/],
  ['/v1/paths?destination=010.0.0.1', /"010\.0\.0\.1"/],
  ['/v1/paths?since=yesterday', /since must be a time like/],
  ['/v1/paths?since=2025-01-31T12:00:00+01:00', /%2B/],
  ['/v1/paths?until=2016-12-31T23:59:60Z', /until is "2016/],
  ['/v1/paths?cursor=garbage', /nextCursor/],
  ['/v1/paths?chain=', /chain must NOT have fewer/],
  ['/v1/paths/export?limit=1', /no parameter "limit"/],
  ['/v1/paths/export?cursor=x', /no parameter "cursor"/],
  ['/v1/paths/export?format=xml', /format must be one of ndjson, csv/],
  ['/v1/paths/export?source=fw', /"fw".*IPv4/],
  ['/v1/status?verbose=1', /no parameter "verbose"/],
  ['/v1/mesh?generation=1', /no parameter "generation"/],
  ['/openapi.json?x=', /no parameter "x"/],
];
for (const [url, detail] of badQueries) {
  test(`GET ${url} is refused`, async (t) => {
    await assertProblem(t, build(), { url }, 400, 'REQUEST_INVALID', detail);
  });
}

const live: [url: string, answer: object, wrong: string, detail: RegExp][] = [
  ['/v1/trace?chain=web', traceFixture, '/v1/trace?chain=web&path=x', /path/],
  [
    '/v1/watch?source=10.1.0.10&destination=10.9.0.10',
    watchFixture,
    '/v1/watch?source=10.1.0.10',
    /destination/,
  ],
];
for (const [url, answer, wrong, detail] of live) {
  test(`POST ${url} is for the socket, and its query is checked`, async (t) => {
    t.deepEqual((await build().inject({ method: 'POST', url })).json(), answer);
    await assertProblem(t, build(), { method: 'POST', url: wrong }, 400, 'REQUEST_INVALID', detail);
    const readOnly = build(fakeAgent(), { readOnly: true });
    await assertProblem(t, readOnly, { method: 'POST', url }, 403, 'READ_ONLY', /socket/);
  });
}

test('GET /v1/paths has the agent carry the counters over first, filters and pages', async (t) => {
  const own = openStore(join(folder, 'paths.db'));
  const flush = async (): Promise<void> =>
    own.write({ rows: [1, 2, 3].map((n) => flowRow({ flow: { sourcePort: n } })) });
  const app = build(fakeAgent({ flush }), { store: own });
  const filter =
    '/v1/paths?source=10.1.0.0/24&destination=10.9.0.10&chain=web&verdict=complete&since=2025-01-31T12:00:00Z';
  const first = (await app.inject(`${filter}&limit=2`)).json();
  t.is(first.records.length, 2);
  const second = (await app.inject(`${filter}&limit=2&cursor=${first.nextCursor}`)).json();
  t.is(second.nextCursor, null);
  t.deepEqual([...first.records, ...second.records].map(({ flow }) => flow.sourcePort).sort(), [1, 2, 3]);
  t.deepEqual((await app.inject('/v1/paths?source=10.2.0.0/16')).json(), {
    gaps: [],
    records: [],
    nextCursor: null,
  });
  own.close();
});

const unknown: [InjectOptions, number, string, string | undefined][] = [
  [{ url: '/' }, 404, 'NOT_FOUND', undefined],
  [{ url: '/v1/path' }, 404, 'NOT_FOUND', undefined],
  [{ url: '/v1/mesh/' }, 404, 'NOT_FOUND', undefined],
  [{ method: 'POST', url: '/nowhere', headers: json, payload: '{' }, 404, 'NOT_FOUND', undefined],
  [{ method: 'DELETE', url: '/v1/mesh?x=1' }, 405, 'METHOD_NOT_ALLOWED', 'GET, HEAD, PUT'],
  [{ method: 'POST', url: '/v1/status' }, 405, 'METHOD_NOT_ALLOWED', 'GET, HEAD'],
  [{ url: '/v1/%zz' }, 400, 'REQUEST_INVALID', undefined],
];
for (const [request, status, code, allow] of unknown) {
  test(`${request.method ?? 'GET'} ${request.url} answers ${status}`, async (t) => {
    const response = await assertProblem(t, build(), request, status, code, /./);
    t.is(response.headers.allow, allow);
  });
}

test('an error nobody foresaw is logged and tells nothing of its inside', async (t) => {
  const lines: string[] = [];
  const logged = pino({ level: 'info' }, { write: (line) => void lines.push(line) });
  const status = async (): Promise<never> => Promise.reject(new Error('secret inside'));
  const app = buildApi(fakeAgent({ status }), { readOnly: false, logger: logged, store });
  const response = await assertProblem(t, app, { url: '/v1/status' }, 500, 'INTERNAL', /log/);
  t.notRegex(response.body, /secret|api\.test/);
  t.is(lines.length, 1);
  t.regex(lines[0] ?? '', /secret inside/);
});

test('an error of the agent keeps its code', async (t) => {
  const applyMesh = async (): Promise<never> => {
    throw new LsrError('CAPACITY', 'paths has 1024 entries, 2000 are needed');
  };
  const request = { method: 'PUT' as const, url: '/v1/mesh', headers: yaml, payload: meshText };
  await assertProblem(t, build(fakeAgent({ applyMesh })), request, 507, 'CAPACITY', /2000/);
});

test('a read-only API reads and refuses to write before it looks at the body', async (t) => {
  const agent = fakeAgent();
  const app = build(agent, { readOnly: true });
  t.is((await app.inject('/v1/status')).statusCode, 200);
  for (const payload of [meshText, '{']) {
    const request = { method: 'PUT' as const, url: '/v1/mesh', headers: yaml, payload };
    await assertProblem(t, app, request, 403, 'READ_ONLY', /unix socket/);
  }
  t.is(agent.current, null);
});

async function assertProblem(
  t: ExecutionContext,
  app: FastifyInstance,
  request: InjectOptions,
  status: number,
  code: string,
  detail: RegExp,
) {
  const response = await app.inject(request);
  t.is(response.statusCode, status, response.body);
  t.is(response.headers['content-type'], 'application/problem+json');
  const problem = response.json();
  t.deepEqual([...Value.Errors(ProblemSchema, problem)], []);
  t.is(problem.status, status);
  t.is(problem.code, code);
  t.regex(problem.detail, detail);
  t.is(problem.instance, request.url as string);
  t.false('stack' in problem);
  return response;
}

const open = (options: { socket: string; listen?: string }): Promise<Listeners> =>
  openListeners(fakeAgent(), { logger, store, ...options });

test('the socket is for owner and group, and is gone after close', async (t) => {
  const socket = newSocket();
  const umask = process.umask();
  const listeners = await open({ socket });
  t.is(statSync(socket).mode & 0o777, 0o660);
  t.is(process.umask(), umask);
  t.is(listeners.address, null);
  await listeners.close();
  t.false(existsSync(socket));
});

test('a socket that a killed agent left is taken over', async (t) => {
  const socket = newSocket();
  await leaveStaleSocket(socket);
  const listeners = await open({ socket });
  const client = new Client('http://localhost', { connect: { socketPath: socket } });
  t.is((await client.request({ method: 'GET', path: '/v1/status' })).statusCode, 200);
  await client.destroy();
  await listeners.close();
});

/** Binds a socket and closes it in a way that leaves the file, as kill -9 does. */
async function leaveStaleSocket(path: string): Promise<void> {
  const { spawnSync } = await import('node:child_process');
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 9))`;
  spawnSync(process.execPath, ['-e', script]);
  if (!existsSync(path)) throw new Error('no stale socket was left');
}

test('a socket on which somebody answers is left alone', async (t) => {
  const socket = newSocket();
  const listeners = await open({ socket });
  await t.throwsAsync(open({ socket }), {
    code: 'ADDRESS_IN_USE',
    message: new RegExp(`answers on ${socket}`),
  });
  const client = new Client('http://localhost', { connect: { socketPath: socket } });
  t.is((await client.request({ method: 'GET', path: '/v1/status' })).statusCode, 200);
  await client.destroy();
  await listeners.close();
});

test('a file in the place of the socket is not removed', async (t) => {
  const socket = newSocket();
  writeFileSync(socket, 'precious');
  await t.throwsAsync(open({ socket }), { code: 'ADDRESS_IN_USE', message: /not a socket/ });
  t.true(existsSync(socket));
});

test('the port only reads; when it is taken, the socket is closed again', async (t) => {
  const taken = createServer();
  const port = await listenAnywhere(taken);
  const socket = newSocket();
  await t.throwsAsync(open({ socket, listen: `127.0.0.1:${port}` }), {
    code: 'ADDRESS_IN_USE',
    message: new RegExp(`127.0.0.1:${port} is in use`),
  });
  t.false(existsSync(socket));
  taken.close();

  const listeners = await open({ socket, listen: '127.0.0.1:0' });
  const client = new Client(listeners.address as string);
  t.is((await client.request({ method: 'GET', path: '/v1/status' })).statusCode, 200);
  const put = await client.request({ method: 'PUT', path: '/v1/mesh', headers: yaml, body: meshText });
  t.is(put.statusCode, 403);
  await client.destroy();
  await listeners.close();
});

function listenAnywhere(server: Server): Promise<number> {
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port));
  });
}

const goodListens = ['127.0.0.1:7913', 'localhost:7913', '127.1.2.3:0', '[::1]:65535'];
test('a listen address must be loopback', (t) => {
  t.deepEqual(goodListens.map(parseListen), [
    { host: '127.0.0.1', port: 7913 },
    { host: '127.0.0.1', port: 7913 },
    { host: '127.1.2.3', port: 0 },
    { host: '::1', port: 65535 },
  ]);
  for (const text of [
    '0.0.0.0:7913',
    '10.0.0.1:7913',
    ':7913',
    '7913',
    '127.0.0.1',
    '127.0.0.1:65536',
    '[::]:1',
    '127.0.0.999:1',
  ]) {
    t.throws(() => parseListen(text), { code: 'CONFIG_INVALID', message: /loopback/ }, text);
  }
});

test('a listen address that others can reach is refused with the configuration, and its place is named', (t) => {
  const file = join(folder, 'agent.yaml');
  for (const address of ['0.0.0.0:7913', '[::]:7913', '*:7913', ':7913', '10.0.0.1:7913', '127.1:7913']) {
    writeFileSync(file, `node: fw\ninterfaces: { eth0: mesh }\napi:\n  listen: ${JSON.stringify(address)}\n`);
    const refused = t.throws(() => readAgentConfig(file), { code: 'CONFIG_INVALID' }, address);
    t.true(
      refused?.message.startsWith(
        `${file}:4:11: listen is ${JSON.stringify(address)}; it must be a loopback`,
      ),
    );
  }
  writeFileSync(file, 'node: fw\ninterfaces: { eth0: mesh }\napi: { listen: 127.0.0.1:7913 }\n');
  t.is(readAgentConfig(file).api.listen, '127.0.0.1:7913');
});

test('a Host header is this listener only by a loopback name and its port', (t) => {
  for (const host of ['localhost:80', 'LOCALHOST', '127.0.0.1', '127.1.2.3:80', '[::1]:80'])
    t.true(isOwnHost(host, 80), host);
  for (const host of [
    '',
    ' ',
    'localhost:',
    'localhost:81',
    'localhost.:80',
    'localhost@evil:80',
    'evil#localhost:80',
    '2130706433:80',
    '0:80',
    '::1:80',
    undefined,
  ])
    t.false(isOwnHost(host, 80), host);
});

const brokenRequests: [string, string, number, string][] = [
  ['garbage', 'hello\r\n\r\n', 400, 'REQUEST_INVALID'],
  [
    'a header over 16 KiB',
    `GET /v1/status HTTP/1.1\r\nhost: a\r\nx: ${'y'.repeat(17 * 1024)}\r\n\r\n`,
    431,
    'HEADER_TOO_LARGE',
  ],
];
for (const [name, bytes, status, code] of brokenRequests) {
  test(`${name} instead of a request gets a problem document`, async (t) => {
    const socket = newSocket();
    const listeners = await open({ socket });
    const answer = await exchange(socket, bytes);
    t.regex(answer, new RegExp(`^HTTP/1\\.1 ${status} `));
    const problem = JSON.parse(answer.slice(answer.indexOf('\r\n\r\n')));
    t.like(problem, { status, code });
    await listeners.close();
  });
}

function exchange(socket: string, bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = '';
    connect(socket, function (this: import('node:net').Socket) {
      this.write(bytes);
    })
      .on('data', (chunk) => (answer += chunk))
      .on('close', () => resolve(answer))
      .on('error', reject);
  });
}
