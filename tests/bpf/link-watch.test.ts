/** `unshare --net` has given this process a network namespace of its own. */
import { execFileSync, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { loadNative } from '../../src/native.js';

const native = loadNative();
const addon = fileURLToPath(new URL('../../build/Release/addon.node', import.meta.url));
const ip = (...lines: string[]): string =>
  execFileSync('ip', ['-batch', '-'], { input: `${lines.join('\n')}\n`, encoding: 'utf8' });

const changes: [what: string, change: (name: string) => string[]][] = [
  ['an interface that is made', () => ['link add made0 type veth peer name made1', 'link delete made0']],
  ['an interface that is deleted', (name) => [`link delete ${name}`]],
  ['another name', (name) => [`link set ${name} name renamed0`, `link set renamed0 name ${name}`]],
  ['another MTU', (name) => [`link set ${name} mtu 1400`]],
  ['an interface that is set up', (name) => [`link set ${name} up`]],
  ['an address that comes', (name) => [`address add 192.0.2.1/24 dev ${name}`]],
];
for (const [what, change] of changes) {
  test.serial(`${what} is told`, async (t) => {
    const name = addInterface(t);
    const told = countCalls(t);
    ip(...change(name));
    t.is(told.calls, 0, 'not before the event loop runs');
    await turnLoop();
    t.is(told.calls, 1);
  });
}

test.serial('an address that goes is told', async (t) => {
  const name = addInterface(t);
  ip(`address add 192.0.2.1/24 dev ${name}`);
  const told = countCalls(t);
  ip(`address delete 192.0.2.1/24 dev ${name}`);
  await turnLoop();
  t.is(told.calls, 1);
});

test.serial('an interface that moves to another network namespace is told', async (t) => {
  const name = addInterface(t);
  const told = countCalls(t);
  const elsewhere = spawnSync('unshare', [
    '--net',
    'sh',
    '-c',
    `nsenter --net=/proc/${process.pid}/ns/net ip link set ${name} netns $$`,
  ]);
  t.is(elsewhere.status, 0, String(elsewhere.stderr));
  await turnLoop();
  t.is(told.calls, 1);
});

const others: [what: string, change: (name: string) => unknown][] = [
  ['nothing at all', () => {}],
  ['a route', (name) => ip(`route add 198.51.100.0/24 dev ${name}`)],
  ['a neighbour', (name) => ip(`neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev ${name}`)],
  [
    'an interface in another network namespace',
    () => execFileSync('unshare', ['--net', 'ip', 'link', 'add', 'x0', 'type', 'veth']),
  ],
];
for (const [what, change] of others) {
  test.serial(`${what} is not told`, async (t) => {
    const name = addInterface(t);
    ip(`address add 192.0.2.1/24 dev ${name}`, `link set ${name}p up`, `link set ${name} up`);
    await waitForCarrier(name);
    const told = countCalls(t);
    change(name);
    await turnLoop();
    t.is(told.calls, 0);
    ip(`link set ${name} mtu 1400`);
    await turnLoop();
    t.is(told.calls, 1, 'but what comes after it is');
  });
}

test.serial('a burst is told once', async (t) => {
  const name = addInterface(t);
  const told = countCalls(t);
  ip(...Array.from({ length: 20 }, (_, i) => `link set ${name} mtu ${1000 + i}`));
  await turnLoop();
  t.is(told.calls, 1);
});

test.serial('more changes than the socket holds are told, and so is what comes after them', async (t) => {
  const name = addInterface(t);
  const told = countCalls(t);
  for (let round = 1; round <= 2; round++) {
    const lost = countLost();
    ip(...Array.from({ length: 2000 }, (_, i) => `link set ${name} mtu ${1000 + (i % 2)}`));
    t.true(countLost() > lost, 'the kernel had to drop messages');
    await turnLoop();
    t.is(told.calls, 2 * round - 1);
    ip(`link set ${name} mtu ${1300 + round}`);
    await turnLoop();
    t.is(told.calls, 2 * round);
  }
});

test.serial('a watch may be closed by its own callback, and again', async (t) => {
  const name = addInterface(t);
  const descriptors = readdirSync('/proc/self/fd').length;
  let calls = 0;
  const watch = native.watchLinks(() => {
    calls++;
    watch.close();
  });
  for (const mtu of [1400, 1300]) {
    ip(`link set ${name} mtu ${mtu}`);
    await turnLoop();
  }
  t.is(calls, 1);
  watch.close();
  watch.ref();
  watch.unref();
  t.is(readdirSync('/proc/self/fd').length, descriptors);
});

test('a watch needs a function', (t) => {
  t.throws(() => native.watchLinks(undefined as never), {
    instanceOf: TypeError,
    message: 'onChange must be a function',
  });
});

const change = `const change = () => require('node:child_process').execFileSync('ip', ['link', 'set', 'lo', 'mtu', String(1500 + Math.floor(Math.random() * 1e4))]);`;
const lives: [title: string, script: string, status: number, stdout: string, stderr: RegExp][] = [
  [
    'an exception of the callback is uncaught and ends the process',
    `native.watchLinks(() => { throw new Error('from onChange'); }); change();`,
    1,
    '',
    /Error: from onChange/,
  ],
  [
    'after an exception that somebody handles the next change is told',
    `let calls = 0;
     process.on('uncaughtException', ({ message }) => console.log(message));
     const watch = native.watchLinks(() => {
       if (++calls === 2) watch.close(); else setImmediate(change);
       throw new Error('call ' + calls);
     });
     change();`,
    0,
    'call 1\ncall 2\n',
    /^$/,
  ],
  [
    'an open watch that is unreferenced lets the process end',
    `native.watchLinks(() => {}).unref();`,
    0,
    '',
    /^$/,
  ],
  [
    'an open watch keeps the process, and is not collected',
    `native.watchLinks(() => { console.log('change'); process.exit(); });
     for (let i = 0; i < 5; i++) gc();
     setTimeout(() => { gc(); change(); }, 20);`,
    0,
    'change\n',
    /^$/,
  ],
  [
    'workers with open watches may be terminated at any time',
    `const { Worker } = require('node:worker_threads');
     const script = ${JSON.stringify(`
       ${change}
       const { parentPort } = require('node:worker_threads');
       let told = false;
       require(process.argv[2]).watchLinks(() => { if (!told) { told = true; parentPort.postMessage('up'); } });
       const go = () => { change(); setImmediate(go); };
       go();
     `)};
     const one = () => new Promise((resolve, reject) => {
       const worker = new Worker(script, { eval: true, argv: [process.argv[1]] });
       worker.on('message', () => worker.terminate());
       worker.on('error', reject);
       worker.on('exit', resolve);
     });
     (async () => { for (let i = 0; i < 5; i++) await Promise.all([one(), one()]); console.log('done'); })();`,
    0,
    'done\n',
    /^$/,
  ],
];
for (const [title, script, status, stdout, stderr] of lives) {
  test(title, (t) => {
    // In a namespace of its own, where no other test changes anything.
    const node = [process.execPath, '--expose-gc', '--eval'];
    const run = spawnSync(
      'unshare',
      ['--net', '--', ...node, `const native = require(process.argv[1]);${change}${script}`, addon],
      { encoding: 'utf8', timeout: 60_000 },
    );
    t.regex(run.stderr, stderr);
    t.deepEqual([run.status, run.stdout], [status, stdout]);
  });
}

let interfaces = 0;
function addInterface(t: ExecutionContext): string {
  interfaces += 1;
  const name = `w${process.pid}x${interfaces}`;
  ip(`link add ${name} type veth peer name ${name}p`);
  t.teardown(() => spawnSync('ip', ['link', 'delete', name]));
  return name;
}

function countCalls(t: ExecutionContext): { calls: number } {
  const told = { calls: 0 };
  const watch = native.watchLinks(() => {
    told.calls++;
  });
  t.teardown(() => watch.close());
  return told;
}

/** The kernel queues its messages before a command returns: some turns later all of them are read. */
async function turnLoop(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** Carrier is told some time after an interface was set up (net/core/link_watch.c). */
async function waitForCarrier(name: string): Promise<void> {
  const deadline = Date.now() + 5000;
  while (readOperstate(name) !== 'UP') if (Date.now() > deadline) throw new Error(`${name} does not come up`);
  await turnLoop();
}

function readOperstate(name: string): string {
  return JSON.parse(execFileSync('ip', ['-j', 'link', 'show', 'dev', name], { encoding: 'utf8' }))[0]
    .operstate;
}

/** Messages that sockets which hear of links and IPv4 addresses have missed: 1 << 0 and 1 << 4 of rtnetlink's groups. */
function countLost(): number {
  return readFileSync('/proc/net/netlink', 'utf8')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, protocol, , groups]) => protocol === '0' && groups === '00000011')
    .reduce((sum, columns) => sum + Number(columns[8]), 0);
}
