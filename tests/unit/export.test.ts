import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { IncomingMessage, ServerResponse } from 'node:http';
import { connect, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as wait } from 'node:timers/promises';
import test from 'ava';
import { execa } from 'execa';
import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import { Client } from 'undici';
import { buildApi } from '../../src/api.js';
import { streamExport } from '../../src/export.js';
import { API_LIMITS } from '../../src/limits.js';
import type { FlowRow, PathRecord } from '../../src/record.js';
import { openStore, type Store } from '../../src/store.js';
import { fakeAgent, flowRow } from '../helpers/fake-agent.js';
import { shortAnswerMs } from '../helpers/short-answers.js';

const folder = mkdtempSync(join(tmpdir(), 'lsr-export-'));
test.after.always(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;
const newFile = (ending: string): string => {
  files += 1;
  return join(folder, `${files}.${ending}`);
};

/** A record of each kind; one of them with all that makes CSV hard. */
const rows: FlowRow[] = [
  flowRow(),
  flowRow({ chain: 'web/2', flow: { sourcePort: 2, source: '10.1.0.11' }, packets: 9, bytes: 2 ** 40 }),
  flowRow({ chain: 'dns', flow: { protocol: 1, sourcePort: null, destinationPort: null } }),
  flowRow({
    verdict: 'detour',
    reasons: ['alternate:ids=spare', 'record_route:192.0.2.7'],
    recordRoute: ['10.0.0.2', '192.0.2.7'],
    recorded: [
      { node: null, address: '192.0.2.7' },
      { node: 'gw', address: '10.0.0.4' },
    ],
  }),
  flowRow({
    verdict: 'skipped',
    reasons: ['previous_hop'],
    arrivedFrom: { node: 'edge', mac: '02:00:00:00:00:01' },
    lastSeen: '2025-02-01T00:00:00.000Z',
  }),
  flowRow({ verdict: 'skipped', reasons: ['unavailable:cache'] }),
  flowRow({ verdict: 'truncated', reasons: ['exhausted'] }),
  flowRow({
    chain: null,
    expected: [],
    recorded: [],
    recordRoute: [],
    verdict: 'forged',
    reasons: ['unknown_path'],
    arrivedFrom: { node: null, mac: 'aa:00:00:00:00:02' },
  }),
];

function makeStore(content: readonly FlowRow[] = rows): Store {
  const store = openStore(newFile('db'));
  store.write({ rows: content });
  return store;
}

const makeRows = (count: number): FlowRow[] =>
  Array.from({ length: count }, (_, n) =>
    flowRow({ flow: { source: `10.1.${n >> 14}.10`, sourcePort: n & 0x3fff } }),
  );

const build = (store: Store): FastifyInstance =>
  buildApi(fakeAgent(), { readOnly: true, logger: pino({ level: 'silent' }), store });

const readLines = (text: string): PathRecord[] =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
const sortById = (records: PathRecord[]): PathRecord[] => records.toSorted((a, b) => (a.id < b.id ? -1 : 1));
const listIds = (records: readonly PathRecord[]): string[] => records.map(({ id }) => id).sort();

const filters: [string, number][] = [
  ['', 8],
  ['chain=web', 5],
  ['chain=web%2F2', 1],
  ['chain=nothing', 0],
  ['node=ids', 7],
  ['source=10.1.0.11', 1],
  ['source=10.1.0.0/24&destination=10.9.0.0/16', 8],
  ['verdict=skipped', 2],
  ['since=2025-01-31T12:00:02Z', 1],
  ['until=2025-01-31T12:00:00Z', 0],
  ['verdict=skipped&chain=web&since=2025-02-01T00:00:00Z&until=2025-02-01T00:00:00Z', 1],
];
for (const [query, count] of filters) {
  test(`GET /v1/paths/export?${query} gives the ${count} records of /v1/paths, a line each`, async (t) => {
    const store = makeStore();
    const app = build(store);
    const expected = (await app.inject(`/v1/paths?${query}`)).json().records;
    t.is(expected.length, count);
    const response = await app.inject(`/v1/paths/export?${query}`);
    t.is(response.statusCode, 200);
    t.is(response.headers['content-type'], 'application/x-ndjson');
    t.is(response.headers['cache-control'], 'no-store');
    t.is(response.body.split('\n').length, count + 1);
    t.deepEqual(sortById(readLines(response.body)), sortById(expected));
    store.close();
  });
}

/** An implementation of CSV that is not ours: all rows, the header too. */
async function parseCsv(text: string): Promise<string[][]> {
  const program =
    'import csv, io, json, sys; t = io.TextIOWrapper(sys.stdin.buffer, "utf-8", newline=""); ' +
    'print(json.dumps(list(csv.reader(t, strict=True))))';
  return JSON.parse((await execa('python3', ['-c', program], { input: text })).stdout);
}

test('CSV is read back by another implementation, and each field of a record has its column', async (t) => {
  const store = makeStore();
  const response = await build(store).inject('/v1/paths/export?format=csv');
  t.is(response.headers['content-type'], 'text/csv; charset=utf-8; header=present');
  t.true(response.body.endsWith('\r\n'));
  t.true(response.body.includes('"'), 'some fields need quotes');
  const [header = [], ...lines] = await parseCsv(response.body);
  const { records } = store.queryPaths({ limit: 100 });
  const { flow, ...others } = records[0] as PathRecord;
  t.deepEqual([...header].sort(), [...Object.keys(flow), ...Object.keys(others)].sort());
  const found = lines.map((line) => Object.fromEntries(header.map((name, n) => [name, line[n]])));
  for (const record of records) {
    const line = found.find(({ id }) => id === record.id);
    t.deepEqual(line, flatten(record), record.verdict);
  }
  t.is(found.length, rows.length);
  t.like(
    found.find(({ verdict }) => verdict === 'detour'),
    { recorded: '192.0.2.7 gw=10.0.0.4', reasons: 'alternate:ids=spare record_route:192.0.2.7' },
  );
  store.close();
});

function flatten({ flow, ...record }: PathRecord): Record<string, string> {
  const texts = Object.entries({ ...flow, ...record }).map(([name, value]) => {
    if (name === 'arrivedFrom' && record.arrivedFrom) {
      const { node, mac } = record.arrivedFrom;
      return [name, node ? `${node}=${mac}` : mac];
    }
    if (!Array.isArray(value)) return [name, String(value ?? '')];
    const entries = value.map((one) =>
      typeof one === 'string' ? one : [one.node, one.address].filter(Boolean).join('='),
    );
    return [name, entries.join(' ')];
  });
  return Object.fromEntries(texts);
}

test('an export of nothing is a CSV header alone', async (t) => {
  const store = makeStore([]);
  const { body } = await build(store).inject('/v1/paths/export?format=csv');
  t.is((await parseCsv(body)).length, 1);
  t.is((await build(store).inject('/v1/paths/export')).body, '');
  store.close();
});

test('no field begins what a spreadsheet takes for a formula', async (t) => {
  const store = makeStore();
  const lines = await parseCsv((await build(store).inject('/v1/paths/export?format=csv')).body);
  for (const field of lines.flat()) t.notRegex(field, /^[=+\-@\t\r\n]/);
  store.close();
});

const makeResponse = (): ServerResponse => new ServerResponse(new IncomingMessage(new Socket()));

test('records that are seen again, and new ones, during an export: each that there was at its begin comes once', async (t) => {
  const content = makeRows(5000);
  const store = makeStore(content);
  const before = listIds(readLines(await readAll(streamExport(store, {}, 'ndjson', makeResponse()))));
  t.is(before.length, 5000);
  let text = '';
  let round = 0;
  for await (const piece of streamExport(store, {}, 'ndjson', makeResponse())) {
    text += piece;
    round += 1;
    // Behind the export and before it: all of these move to the front of /v1/paths.
    const lastSeen = new Date(Date.parse('2025-03-01T00:00:00Z') + round * 1000).toISOString();
    const again = content.filter((_, n) => n % 7 === round % 7).map((row) => ({ ...row, lastSeen }));
    const fresh = flowRow({ chain: 'fresh', flow: { sourcePort: round }, lastSeen });
    store.write({ rows: [...again.slice(0, 200), ...again.slice(-200), fresh] });
  }
  t.true(round > 50, 'it came in pieces');
  t.deepEqual(listIds(readLines(text)), before);
  store.close();
});

test('a record that fits a filter at the begin still fits when its turn comes', async (t) => {
  const content = makeRows(3000);
  const store = makeStore(content);
  const until = new Date('2025-01-31T12:00:00.500Z');
  let text = '';
  for await (const piece of streamExport(store, { until }, 'ndjson', makeResponse())) {
    if (text === '')
      store.write({ rows: content.map((row) => ({ ...row, lastSeen: '2025-06-01T00:00:00.000Z' })) });
    text += piece;
  }
  t.is(new Set(listIds(readLines(text))).size, 3000);
  store.close();
});

async function readAll(pieces: AsyncIterable<string>): Promise<string> {
  let text = '';
  for await (const piece of pieces) text += piece;
  return text;
}

/** The API on a socket of its own; `firstClosed` is how long its first connection lasted, ms. */
async function listen(store: Store) {
  const app = build(store);
  const path = newFile('sock');
  const firstClosed = once(app.server, 'connection').then(async ([socket]) => {
    const begun = performance.now();
    await once(socket, 'close');
    return performance.now() - begun;
  });
  await app.listen({ path });
  return { app, path, firstClosed };
}

/** Takes a chunk of 64 KiB at most, waits so long, and so on; after `ms` it takes all that is left without waiting. */
async function readSlowly(path: string, pause: number, ms: number): Promise<string> {
  const socket = await request(path);
  const end = performance.now() + ms;
  const chunks: Buffer[] = [];
  for await (const chunk of socket) {
    chunks.push(chunk);
    if (performance.now() < end) await wait(Math.min(pause, end - performance.now()));
  }
  return Buffer.concat(chunks).toString('latin1');
}

async function request(path: string): Promise<Socket> {
  const socket = connect(path);
  await once(socket, 'connect');
  socket.write('GET /v1/paths/export HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  return socket;
}

const countRecords = (answer: string): number => answer.match(/"explanation":/g)?.length ?? 0;

test.serial(
  'a client that reads steadily gets all of an export that takes longer than answerMs',
  async (t) => {
    const store = makeStore(makeRows(20_000));
    const { app, path, firstClosed } = await listen(store);
    const answer = await readSlowly(path, 50, 3 * shortAnswerMs);
    t.is(countRecords(answer), 20_000);
    t.true(answer.endsWith('0\r\n\r\n'), 'the last chunk says that it is complete');
    t.true((await firstClosed) > 3 * shortAnswerMs);
    await app.close();
    store.close();
  },
);

for (const [what, pause] of [
  ['reads nothing', 4 * shortAnswerMs],
  ['reads 40 KiB/s', 1.6 * shortAnswerMs],
] as const) {
  test.serial(
    `a client that ${what} of an export is sent away after answerMs, and the answer shows that it is cut`,
    async (t) => {
      const store = makeStore(makeRows(20_000));
      const { app, path, firstClosed } = await listen(store);
      const reading = readSlowly(path, pause, 4 * shortAnswerMs);
      const ms = await firstClosed;
      t.true(ms >= shortAnswerMs - 50 && ms < 3 * shortAnswerMs, `${Math.round(ms)} ms`);
      const answer = await reading;
      t.true(countRecords(answer) < 20_000);
      t.false(answer.endsWith('0\r\n\r\n'));
      await app.close();
      store.close();
    },
  );
}

test('so many exports at once and no more; each that ends makes room', async (t) => {
  const store = makeStore(makeRows(20_000));
  const { app, path, firstClosed } = await listen(store);
  const clients = await Promise.all(
    Array.from({ length: API_LIMITS.exports }, async () => {
      const socket = await request(path);
      await once(socket, 'readable');
      return socket;
    }),
  );
  const refused = await app.inject('/v1/paths/export');
  t.is(refused.statusCode, 429);
  t.is(refused.json().code, 'TOO_MANY_REQUESTS');
  t.is((await app.inject('/v1/paths?limit=1')).statusCode, 200, 'others are served');
  clients[0]?.destroy();
  await firstClosed;
  t.is((await app.inject('/v1/paths/export?chain=nothing')).statusCode, 200);
  for (const client of clients) client.destroy();
  await app.close();
  store.close();
});

test('HEAD would make an export for nothing, and is refused', async (t) => {
  const store = makeStore([]);
  const response = await build(store).inject({ method: 'HEAD', url: '/v1/paths/export' });
  t.is(response.statusCode, 405);
  t.is(response.headers.allow, 'GET');
  store.close();
});

/** MiB. Without it the collector of garbage lets a process grow as long as there is memory. */
const frugal = ['--max-old-space-size=80', '--max-semi-space-size=1'];

test.serial('100,000 records pass through a daemon that stays small and answers others', async (t) => {
  const socket = newFile('sock');
  const store = openStore(`${socket}.db`);
  const content = makeRows(100_000);
  for (let n = 0; n < content.length; n += 10_000) store.write({ rows: content.slice(n, n + 10_000) });
  store.close();
  const agent = spawn(
    process.execPath,
    [...frugal, '--import', 'tsx', 'tests/helpers/api-process.ts', socket],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  await once(createInterface(agent.stdout), 'line');
  const client = new Client('http://localhost', { connect: { socketPath: socket } });
  const other = new Client('http://localhost', { connect: { socketPath: socket } });
  const ask = async (): Promise<number> => {
    const begun = performance.now();
    await (await other.request({ method: 'GET', path: '/v1/status' })).body.dump();
    return performance.now() - begun;
  };
  for (const format of ['ndjson', 'csv']) {
    await ask();
    // A sixth of it first: what grows then is the runtime's, and what grows afterwards would be the export's.
    const part = `/v1/paths/export?format=${format}&source=10.1.0.10`;
    await (await client.request({ method: 'GET', path: part })).body.text();
    const before = readPeak(agent.pid);
    const begun = performance.now();
    const { body } = await client.request({ method: 'GET', path: `/v1/paths/export?format=${format}` });
    let lines = 0;
    let bytes = 0;
    let longest = 0;
    for await (const chunk of body) {
      for (const byte of chunk) if (byte === 10) lines += 1;
      bytes += chunk.length;
      longest = Math.max(longest, await ask());
    }
    const grown = (readPeak(agent.pid) - before) / 2 ** 20;
    t.is(lines, 100_000 + (format === 'csv' ? 1 : 0));
    t.log(
      `${format}: ${(bytes / 2 ** 20).toFixed(0)} MiB in ${Math.round(performance.now() - begun)} ms; peak memory +${grown.toFixed(0)} MiB; ` +
        `longest wait of another request ${Math.round(longest)} ms`,
    );
    t.true(grown < 48, 'less than what is exported');
  }
  await Promise.all([client.destroy(), other.destroy()]);
  agent.kill();
});

/** The most resident memory that a process ever had, bytes. */
function readPeak(pid: number | undefined): number {
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;
}
