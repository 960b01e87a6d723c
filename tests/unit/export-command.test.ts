import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { pino } from 'pino';
import { type Listeners, openListeners } from '../../src/listener.js';
import { openStore } from '../../src/store.js';
import { fakeAgent, flowRow } from '../helpers/fake-agent.js';
import { startNfcapd } from '../helpers/netflow.js';

const folder = mkdtempSync(join(tmpdir(), 'lsr-export-command-'));
const store = openStore(join(folder, 'audit.db'));
const listeners: Listeners[] = [];

test.before(() => {
  const rows = Array.from({ length: 2500 }, (_, n) => flowRow({ flow: { sourcePort: n } }));
  store.write({
    rows: [...rows, flowRow({ chain: 'dns', verdict: 'forged', lastSeen: '2025-06-01T00:00:00.000Z' })],
  });
});
test.after.always(async () => {
  await Promise.all(listeners.map(({ close }) => close()));
  store.close();
  rmSync(folder, { recursive: true, force: true });
});

const program = ['--import', 'tsx', 'src/cli.ts'];
/** An agent for each export: tests run side by side, and an agent makes so many at once and no more. */
async function openApi(): Promise<string> {
  const socket = join(folder, `${listeners.length}.sock`);
  const opening = openListeners(fakeAgent(), { socket, store, logger: pino({ level: 'silent' }) });
  listeners.push({ address: null, close: async () => (await opening).close() });
  await opening;
  return socket;
}

const run = async (args: readonly string[], api?: string) =>
  execa(process.execPath, [...program, 'export', '--api', api ?? (await openApi()), ...args], {
    reject: false,
    env: { NO_COLOR: '1' },
    stripFinalNewline: false,
  });

const outputs: [string[], number, RegExp][] = [
  [[], 2501, /^\{"id":"[0-9a-f]{24}","chain":"web",/],
  [['--chain', 'dns'], 1, /"verdict":"forged"/],
  [
    ['--since', '2025-05-01T00:00:00Z', '--format', 'csv'],
    2,
    /^id,chain,generation,source,.*\r\n[0-9a-f]{24},dns,1,/,
  ],
  [['--verdict', 'detour'], 0, /^$/],
  [['--source', '10.1.0.0/16', '--destination', '10.9.0.10', '--format', 'ndjson'], 2501, /^\{/],
];
for (const [args, lines, text] of outputs) {
  test(`lsr-agent export ${args.join(' ')} prints ${lines} lines`, async (t) => {
    const { exitCode, stdout, stderr } = await run(args);
    t.is(exitCode, 0, stderr);
    t.is(stdout.match(/\n/g)?.length ?? 0, lines);
    t.regex(stdout, text);
  });
}

test('--output writes the file that the output would be, for the owner and group alone', async (t) => {
  const target = join(folder, 'target.csv');
  const link = join(folder, 'link.csv');
  writeFileSync(target, 'old');
  symlinkSync(target, link);
  const { exitCode, stdout, stderr } = await run(['--format', 'csv', '--output', link]);
  t.is(exitCode, 0, stderr);
  t.is(stdout, '');
  t.is(readFileSync(target, 'utf8'), (await run(['--format', 'csv'])).stdout);
  t.is(statSync(target).mode & 0o007, 0);
});

test('an export that breaks off is an error, and leaves the file as it was', async (t) => {
  const half = createServer((_request, response) => {
    response.writeHead(200, { 'content-type': 'application/x-ndjson' });
    response.write('{"id":"1"}\n', () => setImmediate(() => response.destroy()));
  });
  const path = join(folder, 'half.sock');
  await new Promise<void>((resolve) => half.listen(path, resolve));
  const file = join(folder, 'kept.json');
  writeFileSync(file, 'old');
  const { exitCode, stderr } = await run(['--output', file], path);
  t.is(exitCode, 1);
  t.regex(stderr, /^error: the agent at .*half\.sock broke off after 11 bytes/);
  t.is(readFileSync(file, 'utf8'), 'old');
  t.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith('.kept')),
    [],
  );
  t.is((await run([], path)).exitCode, 1, 'on stdout too');
  half.close();
});

const failures: [string[], number, RegExp][] = [
  [['--format', 'xml'], 2, /Allowed choices are ndjson, csv/],
  [['--since', 'yesterday'], 2, /a span like 30s, 5m/],
  [['--source', '10.0.0.1/8'], 2, /host bits zero/],
  [['--limit', '3'], 2, /unknown option '--limit'/],
  [['--output', '/dev/null'], 2, /\/dev\/null is no regular file/],
  [['--output', join(folder, 'absent', 'file')], 1, /its folder does not exist/],
  [['--ipfix', 'http://127.0.0.1:4739'], 2, /write udp:\/\/HOST:4739 or tcp:\/\/HOST:4739/],
  [['--ipfix', 'udp://127.0.0.1:4739', '--format', 'csv'], 2, /one or the other/],
  [['--ipfix', 'udp://127.0.0.1:4739', '--output', 'x'], 2, /one or the other/],
  // Port 1 is tcpmux: nobody's but root's to take.
  [
    ['--ipfix', 'tcp://127.0.0.1:1'],
    1,
    /the collector tcp:\/\/127\.0\.0\.1:1 cannot be used: nothing listens there/,
  ],
];
for (const [args, code, message] of failures) {
  test(`lsr-agent export ${args.join(' ').replaceAll(folder, '…')} exits ${code} and says why`, async (t) => {
    const { exitCode, stdout, stderr } = await run(args);
    t.is(exitCode, code, stderr);
    t.is(stdout, '');
    t.regex(stderr, message);
    t.notRegex(stderr, /\n\s+at /);
  });
}

test('something else than lsr-agent behind the address is called so', async (t) => {
  const server = createServer((_request, response) => response.end('{"hello": 1}'));
  const path = join(folder, 'other.sock');
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const { exitCode, stderr } = await run([], path);
  server.close();
  t.is(exitCode, 1);
  t.regex(stderr, /status 200 .*this is no lsr-agent/);
});

test('a reader that closes the pipe early, as head does, ends the command quietly', async (t) => {
  const child = spawn(process.execPath, [...program, 'export', '--api', await openApi()], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let errors = '';
  child.stderr.on('data', (chunk) => (errors += chunk));
  await once(child.stdout, 'data');
  child.stdout.destroy();
  const [code] = await once(child, 'close');
  t.is(errors, '');
  t.is(code, 0);
});

test('--ipfix sends what fits to a collector, and says how much that was', async (t) => {
  const collector = await startNfcapd();
  const url = `udp://127.0.0.1:${collector.port}`;
  const plain = await run(['--ipfix', url, '--chain', 'dns']);
  t.is(
    plain.stdout,
    `sent 1 records to ${url}: 2 messages, ${/(\d+) bytes/.exec(plain.stdout)?.[1]} bytes\n`,
  );
  const scripted = await run(['--ipfix', url, '--chain', 'web', '--json']);
  t.like(JSON.parse(scripted.stdout), { collector: url, records: 2500 });
  const { flows } = await collector.finish();
  t.is(flows.length, 2501);
});
