import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import pino from 'pino';
import { API_LIMITS } from '../../src/limits.js';
import { openListeners } from '../../src/listener.js';
import type { PathRecord } from '../../src/record.js';
import { openStore, type Store } from '../../src/store.js';
import { fakeAgent, flowRow } from '../helpers/fake-agent.js';

const folder = mkdtempSync(join(tmpdir(), 'lsr-stream-'));
let apis = 0;
test.after.always(() => rmSync(folder, { recursive: true, force: true }));

async function open(t: ExecutionContext): Promise<{ socket: string; store: Store }> {
  apis += 1;
  const socket = join(folder, `${apis}.sock`);
  const store = openStore(join(folder, `${apis}.db`));
  const { close } = await openListeners(fakeAgent(), { socket, store, logger: pino({ level: 'silent' }) });
  t.teardown(async () => {
    await close();
    store.close();
  });
  return { socket, store };
}

/** The answer, once it has begun: what is stored from then on is in the stream. */
async function ask(socket: string, query = ''): Promise<IncomingMessage> {
  const sent = request({ socketPath: socket, path: `/v1/paths/stream${query}` });
  sent.end();
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  response.on('error', () => undefined);
  if (response.statusCode === 200) await once(response, 'readable');
  return response;
}

/** Reads until so many events were there. */
async function readEvents(response: IncomingMessage, count: number): Promise<PathRecord[]> {
  let text = '';
  response.setEncoding('utf8');
  for (;;) {
    const chunk = response.read() as string | null;
    if (chunk === null) await once(response, 'readable');
    else text += chunk;
    const blocks = text.split('\n\n').slice(0, -1);
    const events = blocks.filter((block) => block.includes('event: path'));
    if (events.length < count) continue;
    return events.map((block) => JSON.parse(/^data: (.*)$/m.exec(block)?.[1] ?? ''));
  }
}

test('a record comes when it is made, and again when more of its flow is stored', async (t) => {
  const { socket, store } = await open(t);
  store.write({ rows: [flowRow({ flow: { sourcePort: 1 } })] });
  const response = await ask(socket);
  t.is(response.headers['content-type'], 'text/event-stream');
  store.write({ rows: [flowRow({ flow: { sourcePort: 2 } })] });
  const [made] = await readEvents(response, 1);
  t.like(made, { flow: { ...flowRow().flow, sourcePort: 2 }, packets: 3 });
  store.write({ rows: [flowRow({ flow: { sourcePort: 2 } })] });
  const [more] = await readEvents(response, 1);
  t.like(more, { id: made?.id, packets: 6 });
  t.deepEqual(more, store.readRecord(made?.id ?? '') ?? undefined);
  response.destroy();
});

const filters: [query: string, expected: number[]][] = [
  ['?chain=web', [1, 4]],
  ['?verdict=skipped', [2]],
  ['?source=10.2.0.0/16', [3]],
  ['?destination=10.9.0.77', [4]],
  ['?node=spare', [5]],
];
for (const [query, expected] of filters) {
  test(`of ${query} those that fit come, and no others`, async (t) => {
    const { socket, store } = await open(t);
    const response = await ask(socket, query);
    const spare = [{ node: 'spare', address: '10.0.0.9' }];
    store.write({
      rows: [
        flowRow({ flow: { sourcePort: 1 } }),
        flowRow({ chain: 'dns', verdict: 'skipped', flow: { sourcePort: 2 } }),
        flowRow({ chain: 'dns', flow: { source: '10.2.0.1', sourcePort: 3 } }),
        flowRow({ flow: { destination: '10.9.0.77', sourcePort: 4 } }),
        flowRow({ chain: 'dns', recorded: spare, flow: { sourcePort: 5 } }),
      ],
    });
    const events = await readEvents(response, expected.length);
    t.deepEqual(
      events.map(({ flow }) => flow.sourcePort),
      expected,
    );
    response.destroy();
  });
}

test('what changes while the reader is slow comes once, as it is then', async (t) => {
  const { socket, store } = await open(t);
  const response = await ask(socket);
  for (let n = 0; n < 300; n++) store.write({ rows: [flowRow({ flow: { sourcePort: 1 } })] });
  const [record] = await readEvents(response, 1);
  t.is(record?.packets, 900);
  response.destroy();
});

test('a reader that falls too far behind is cut off, and nobody else is', async (t) => {
  const { socket, store } = await open(t);
  const slow = await ask(socket);
  const quick = await ask(socket, '?verdict=detour');
  const closed = new Promise((resolve) => slow.once('close', resolve));
  const rows = Array.from({ length: API_LIMITS.streamBacklog + 1 }, (_, n) =>
    flowRow({ flow: { sourcePort: n } }),
  );
  store.write({ rows });
  await closed;
  t.true(slow.destroyed);
  store.write({ rows: [flowRow({ verdict: 'detour' })] });
  t.is((await readEvents(quick, 1))[0]?.verdict, 'detour');
  quick.destroy();
});

test('so many streams are served at once, and one that ends makes room', async (t) => {
  const { socket } = await open(t);
  const streams = await Promise.all(Array.from({ length: API_LIMITS.streams }, () => ask(socket)));
  const refused = await ask(socket);
  t.is(refused.statusCode, 429);
  refused.resume();
  streams[0]?.destroy();
  let again = await ask(socket);
  for (; again.statusCode !== 200; again = await ask(socket)) again.resume();
  t.is(again.statusCode, 200);
  for (const stream of [again, ...streams]) stream.destroy();
});

test('a filter that no stream has is refused', async (t) => {
  const { socket } = await open(t);
  const response = await ask(socket, '?since=2025-01-01T00:00:00Z');
  t.is(response.statusCode, 400);
  response.resume();
});
