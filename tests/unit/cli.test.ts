import { spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test from 'ava';
import { execa } from 'execa';
import { pino } from 'pino';
import { Value } from 'typebox/value';
import { ProblemSchema } from '../../src/api-schemas.js';
import { openListeners } from '../../src/listener.js';
import { openStore } from '../../src/store.js';
import { type FakeAgent, fakeAgent, flowRow, meshText } from '../helpers/fake-agent.js';

const folder = mkdtempSync(join(tmpdir(), 'lsr-cli-'));
const socket = join(folder, 'api.sock');
const nowhere = join(folder, 'nowhere.sock');
const store = openStore(join(folder, 'audit.db'));
const agent: FakeAgent = fakeAgent();
let closeApi: () => Promise<void>;

const file = (name: string, text: string | Uint8Array): string => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};
const mesh = file('mesh.yaml', meshText);
const badMesh = file('bad.yaml', `${meshText}extra: 1\n`.replace('hops: [fw', 'hops: [nobody'));

test.before(async () => {
  ({ close: closeApi } = await openListeners(agent, { socket, store, logger: pino({ level: 'silent' }) }));
  store.write({ rows: [flowRow({ flow: { sourcePort: 1 }, lastSeen: '2025-01-31T12:00:03.000Z' })] });
  store.write({
    rows: [
      flowRow({
        flow: { sourcePort: null, destinationPort: null, protocol: 1 },
        verdict: 'detour',
        reasons: ['record_route:192.0.2.7'],
        recordRoute: ['10.0.0.2', '192.0.2.7'],
        recorded: [
          { node: 'fw', address: '10.0.0.2' },
          { node: null, address: '192.0.2.7' },
        ],
        lastSeen: '2025-01-31T12:00:02.000Z',
      }),
    ],
  });
  const many = Array.from({ length: 1500 }, (_, n) => flowRow({ chain: 'bulk', flow: { sourcePort: n } }));
  store.write({ rows: many });
  const [since, until] = ['2025-01-30T00:00:00.000Z', '2025-01-30T00:00:05.000Z'];
  store.write({ gaps: [{ cause: 'table_full', since, until, packets: 17 }] });
});
test.after.always(async () => {
  await closeApi();
  store.close();
  rmSync(folder, { recursive: true, force: true });
});

const run = (args: string[], input = '') =>
  execa(process.execPath, ['--import', 'tsx', 'src/cli.ts', ...args], {
    reject: false,
    input,
    env: { NO_COLOR: '1' },
  });

const wrongUses: [string[], RegExp][] = [
  [['statsu'], /unknown command 'statsu' \(Did you mean status\?\)/],
  [['status', '--colour'], /unknown option '--colour'/],
  [['status', 'extra'], /too many arguments/],
  [['check'], /missing required argument 'mesh'/],
  [['daemon'], /required option '--config <file>' not specified/],
  [['unload'], /required option '--config <file>' not specified/],
  [['plan', mesh, '--from', '10.1.0.10'], /required option '--to <address>' not specified/],
  [['plan', mesh, '--from', 'x', '--to', '10.9.0.10'], /"?x"?.*IPv4/],
  [['plan', mesh, '--from', '10.1.0.10', '--to', '10.9.0.10', '--port', '65536'], /0 to 65535/],
  [['plan', mesh, '--from', '10.1.0.10', '--to', '10.9.0.10', '--protocol', 'tpc'], /tpc/],
  [['paths', '--verdict', 'fine'], /Allowed choices are complete, detour/],
  [['paths', '--since', 'yesterday'], /a span like 30s, 5m/],
  [['paths', '--limit', '0'], /a number from 1/],
  [['paths', '--follow', '--since', '5m'], /cannot be used with/],
  [['paths', '--source', '10.0.0.1/8'], /host bits zero/],
  [['lab', 'sideways'], /unknown command 'sideways'/],
  [['status', '--api', 'https://127.0.0.1:7913'], /neither the path of a socket nor a URL/],
  [['status', '--api', `/${'x'.repeat(107)}`], /107 bytes at most/],
  [['check', join(folder, 'absent.yaml')], /cannot read .*absent\.yaml: there is no such file/],
  [['check', folder], /it is a directory/],
  [['check', file('latin1.yaml', Buffer.from('# caf\xe9\n', 'latin1'))], /not UTF-8 text/],
  [
    ['apply', file('huge.yaml', '#'.repeat(1024 * 1024 + 1))],
    /1048577 bytes; a mesh document has at most 1048576/,
  ],
];
for (const [args, message] of wrongUses) {
  test(`lsr-agent ${args.join(' ').replaceAll(folder, '…').slice(0, 60)} exits 2 and says what is wrong`, async (t) => {
    const api = args.includes('--api') ? [] : ['--api', socket];
    const plain = await run([...args, ...api]);
    t.is(plain.exitCode, 2, plain.stderr);
    t.is(plain.stdout, '');
    t.regex(plain.stderr, message);
    t.notRegex(plain.stderr, /\n\s+at /);
  });
}

const scriptedErrors: [string[], number, string][] = [
  [['statsu'], 2, 'USAGE'],
  [[], 2, 'USAGE'],
  [['paths', '--limit', '0'], 2, 'USAGE'],
  [['paths', '--source', '10.0.0.1/8', '--api', socket], 2, 'REQUEST_INVALID'],
  [['check', join(folder, 'absent.yaml')], 2, 'MESH_UNREADABLE'],
  [['check', badMesh], 2, 'MESH_INVALID'],
  [['status', '--api', nowhere], 1, 'AGENT_UNREACHABLE'],
];
for (const [args, exitCode, code] of scriptedErrors) {
  test(`with --json the error of lsr-agent ${args.slice(0, 2).join(' ').replaceAll(folder, '…')} is a problem document`, async (t) => {
    const result = await run([...args, '--json']);
    t.is(result.exitCode, exitCode);
    t.is(result.stdout, '');
    const problem = JSON.parse(result.stderr);
    t.deepEqual([...Value.Errors(ProblemSchema, problem)], []);
    t.is(problem.code, code);
  });
}

test('without a command the help goes to stderr and the exit code is 2', async (t) => {
  for (const args of [[], ['lab']]) {
    const result = await run(args);
    t.is(result.exitCode, 2);
    t.is(result.stdout, '');
    t.regex(result.stderr, /^Usage: lsr-agent/);
  }
});

const words = [
  '',
  'daemon',
  'check',
  'plan',
  'apply',
  'status',
  'chains',
  'paths',
  'export',
  'drops',
  'drain',
  'keys',
  'doctor',
  'unload',
  'lab',
];
for (const word of [...words, 'lab up', 'lab down', 'lab run']) {
  test(`lsr-agent ${word} --help ends with an example`, async (t) => {
    const result = await run([...word.split(' ').filter(Boolean), '--help']);
    t.is(result.exitCode, 0);
    t.regex(result.stdout, new RegExp(`\\nExample:\\n {2}[$#] lsr-agent ${word}[^\\n]*$`));
  });
}

test('--version prints the version', async (t) => {
  const result = await run(['--version']);
  t.is(result.exitCode, 0);
  t.regex(result.stdout, /^\d+\.\d+\.\d+$/);
});

for (const command of [['status'], ['chains'], ['paths'], ['export'], ['drops'], ['apply', mesh]]) {
  test(`lsr-agent ${command[0]} without an agent exits 1 and says how to start one`, async (t) => {
    const result = await run([...command, '--api', nowhere]);
    t.is(result.exitCode, 1);
    t.is(result.stdout, '');
    t.true(
      result.stderr.startsWith(`error: no agent answers at ${nowhere}: is lsr-agent running? start it with`),
    );
  });
}

test('a good mesh document is called valid, from a file and from stdin', async (t) => {
  const plain = await run(['check', mesh]);
  t.is(plain.exitCode, 0, plain.stderr);
  t.is(plain.stdout, `${mesh} is valid: nodes 4, chains 1, rules 1`);
  const scripted = await run(['check', '-', '--json'], meshText);
  t.deepEqual(JSON.parse(scripted.stdout), { valid: true, file: '-', nodes: 4, chains: 1, rules: 1 });
});

for (const command of ['check', 'apply']) {
  test(`lsr-agent ${command} tells each problem of a document as file:line:column: message`, async (t) => {
    const generation = agent.current?.generation;
    const plain = await run([command, badMesh, '--api', socket]);
    t.is(plain.exitCode, 2);
    t.is(plain.stdout, '');
    const lines = plain.stderr.split('\n');
    t.true(lines.length >= 1);
    for (const line of lines) t.regex(line, new RegExp(`^${badMesh}:\\d+:\\d+: .+`));
    const scripted = JSON.parse((await run([command, badMesh, '--api', socket, '--json'])).stderr);
    t.is(scripted.code, 'MESH_INVALID');
    t.is(scripted.problems.length, lines.length);
    t.is(agent.current?.generation, generation);
  });
}

test.serial('apply hands the document over as it was written', async (t) => {
  const result = await run(['apply', mesh, '--api', socket]);
  t.is(result.exitCode, 0, result.stderr);
  t.regex(
    result.stdout,
    /^generation 1 is in force after \d+ ms; changed\n {2}paths: 2 added, 0 removed, 1 updated$/,
  );
  t.is(agent.current?.text, meshText);
});

test('plan tells the way of a packet without an agent', async (t) => {
  const args = [
    'plan',
    mesh,
    '--from',
    '10.1.0.10',
    '--to',
    '10.9.0.10',
    '--protocol',
    'tcp',
    '--port',
    '80',
    '--at',
    'edge',
  ];
  const plain = await run(args);
  t.is(plain.exitCode, 0, plain.stderr);
  t.regex(plain.stdout, /web/);
  const scripted = await run([...args, '--json']);
  t.truthy(JSON.parse(scripted.stdout).legs.length);
});

test('status is readable, and with --json it is what the API answers', async (t) => {
  const plain = await run(['status', '--api', socket]);
  t.is(plain.exitCode, 0, plain.stderr);
  t.deepEqual(plain.stdout.split('\n'), [
    'gw is ready: lsr-agent 0.1.0, pid 1234, up 1 min',
    'mesh generation 1 from /etc/lsr-agent/mesh.yaml, in force since 2025-01-31T12:00:00.000Z',
    '',
    'INTERFACE  ROLE  PROGRAM  ADDRESS    MTU  IFINDEX',
    'mesh0      mesh  tcx      10.0.0.4  1500        2',
    '',
    'MAP    ENTRIES  CAPACITY',
    'paths        3      1024',
  ]);
  const scripted = await run(['--json', '--api', socket, 'status']);
  t.deepEqual(JSON.parse(scripted.stdout), await agent.status());
});

test('chains names nodes', async (t) => {
  const { stdout } = await run(['chains', '--api', socket]);
  t.deepEqual(stdout.split('\n'), [
    'CHAIN  MODE   HOPS  PATHS  RULES   DESTINATIONS  OPTION BYTES  PACKETS',
    'web    loose  fw    1      web-in  10.9.0.0/24             28        5',
  ]);
});

test('paths --follow prints a line for each record as it comes', async (t) => {
  const following = run(['paths', '--api', socket, '--follow', '--chain', 'new']);
  const lines = createInterface(following.stdout)[Symbol.asyncIterator]();
  const row = flowRow({ chain: 'new', flow: { sourcePort: 7 } });
  // It may be connected a moment later; then the record comes with the next that is stored of its flow.
  const storing = setInterval(() => store.write({ rows: [row] }), 100);
  const { value } = await lines.next();
  clearInterval(storing);
  t.regex(
    value ?? '',
    /^2025-01-31T12:00:01.000Z {2}tcp 10.1.0.10:7 → 10.9.0.10:80 {2}new {2}fw → ids → gw {2}\d+ packets {2}\d+ bytes {2}complete$/,
  );
  following.kill();
  await following;
});

test('paths says of which time records are missing, and why', async (t) => {
  const missing =
    'records are missing from 2025-01-30T00:00:00.000Z to 2025-01-30T00:00:05.000Z: the kernel table was full, 17 packets';
  const { stdout } = await run(['paths', '--api', socket, '--chain', 'bulk', '--limit', '1']);
  t.is(stdout.split('\n').at(-1), missing);
  const none = await run(['paths', '--api', socket, '--chain', 'none', '--since', '2025-01-30T00:00:04Z']);
  t.is(none.stdout.split('\n').at(-1), missing);
  const later = await run(['paths', '--api', socket, '--since', '2025-01-31T00:00:00Z']);
  t.notRegex(later.stdout, /missing/);
});

test('paths prints one line a record, names before addresses', async (t) => {
  const { stdout } = await run(['paths', '--api', socket, '--since', '2025-01-31T12:00:02Z']);
  t.deepEqual(
    stdout.split('\n').map((line) => line.split(/ {2,}/)),
    [
      ['LAST SEEN', 'FLOW', 'CHAIN', 'VERDICT', 'ROUTE', 'PACKETS', 'BYTES'],
      [
        '2025-01-31T12:00:03.000Z',
        'tcp 10.1.0.10:1 → 10.9.0.10:80',
        'web',
        'complete',
        'fw → ids → gw',
        '3',
        '300',
      ],
      [
        '2025-01-31T12:00:02.000Z',
        'icmp 10.1.0.10 → 10.9.0.10',
        'web',
        'detour (record_route:192.0.2.7)',
        'fw → 192.0.2.7',
        '3',
        '300',
      ],
      [
        'detour: 192.0.2.7 stands in Record Route (10.0.0.2, 192.0.2.7), and is no address of a hop of chain web',
      ],
    ],
  );
});

test('paths collects as many pages as --limit needs', async (t) => {
  const args = ['paths', '--api', socket, '--chain', 'bulk', '--json', '--limit'];
  const some = JSON.parse((await run([...args, '1200'])).stdout);
  t.is(some.records.length, 1200);
  t.is(typeof some.nextCursor, 'string');
  const all = JSON.parse((await run([...args, '5000'])).stdout);
  t.is(new Set(all.records.map(({ id }: { id: string }) => id)).size, 1500);
  t.is(all.nextCursor, null);
});

test('paths says so when nothing fits', async (t) => {
  const result = await run(['paths', '--api', socket, '--since', '5m']);
  t.is(result.exitCode, 0);
  t.regex(result.stdout, /no flow was recorded here that fits/);
});

test('drops explains each reason that was counted', async (t) => {
  const { stdout } = await run(['drops', '--api', socket]);
  t.true(
    stdout.includes(
      'route-unknown: 3 dropped (mesh0 ingress 3)\n  The source route is none of this mesh.\n  Compare the generations',
    ),
  );
  t.notRegex(stdout, /ttl-expired/);
});

test('a reader that closes the pipe early ends the command quietly', async (t) => {
  const args = [
    '--import',
    'tsx',
    'src/cli.ts',
    'paths',
    '--api',
    socket,
    '--chain',
    'bulk',
    '--limit',
    '1500',
    '--json',
  ];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let errors = '';
  child.stderr.on('data', (chunk) => (errors += chunk));
  child.stdout.destroy();
  const code = await new Promise((resolve) => child.once('close', resolve));
  t.is(errors, '');
  t.is(code, 0);
});

test('something else than lsr-agent behind the address is called so', async (t) => {
  const server = createServer((_request, response) => response.end('<html>hello</html>'));
  const port = await new Promise<number>((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port));
  });
  const result = await run(['status', '--api', `http://127.0.0.1:${port}`]);
  server.close();
  t.is(result.exitCode, 1);
  t.regex(result.stderr, /status 200 and "<html>hello<\/html>": this is no lsr-agent/);
});

test('an agent that hangs up is no success', async (t) => {
  const server = createServer((request) => request.socket.destroy());
  const path = join(folder, 'rude.sock');
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const result = await run(['status', '--api', path]);
  server.close();
  t.is(result.exitCode, 1);
  t.regex(result.stderr, /rude\.sock cannot be asked/);
});

/**
 * Runs the built program as nobody, who may read all files because the checkout may be in root's home.
 * Not through tsx, which asks access(2), and that does not count capabilities.
 */
function runAsNobody(args: readonly string[]) {
  const command = [process.execPath, 'dist/cli.js', ...args];
  const right = '-all,+dac_read_search';
  const identity = ['--reuid=65534', '--regid=65534', '--clear-groups'];
  const asRoot = process.geteuid?.() === 0;
  const change = ['setpriv', ...identity, `--inh-caps=${right}`, `--ambient-caps=${right}`];
  const [program = '', ...rest] = asRoot ? [...change, ...command] : command;
  return execa(program, rest, { reject: false });
}

test('a socket one may not open is told apart from one that is not there', async (t) => {
  const path = join(folder, 'locked.sock');
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path, resolve));
  chmodSync(path, 0o000);
  const result = await runAsNobody(['--api', path, 'status']);
  server.close();
  t.is(result.exitCode, 1, result.stderr);
  t.regex(result.stderr, /^error: .*(root|group)/);
});

test('what needs root says so to anybody else', async (t) => {
  const result = await runAsNobody(['lab', 'up']);
  t.is(result.exitCode, 1, result.stderr);
  t.is(result.stdout, '');
  t.regex(result.stderr, /^error: .*root/);
});
