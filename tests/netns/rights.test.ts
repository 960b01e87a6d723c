/** What the shipped unit grants is what the daemon needs: no right more, and none less. */
import { execFileSync } from 'node:child_process';
import {
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { execa } from 'execa';
import type { Status } from '../../src/api-schemas.js';
import { callApi } from '../../src/client.js';
import { startProcess } from '../../src/lab-processes.js';
import { apiSocket, hostFolder, meshFile } from '../../src/lab-standing.js';
import { enterNamespace } from '../../src/lab-topology.js';
import { type Confinement, makeConfinement, nobody } from '../helpers/confinement.js';
import { createLab, type TestLab } from '../helpers/namespaces.js';
import { readCapabilities, readUnit, unitFile } from '../helpers/service-unit.js';
import { findUnbalanced, readDrops, readPaths } from '../helpers/wire.js';

const server = '10.9.0.10';
const granted = readCapabilities('AmbientCapabilities');
const tryRights = relative('.', fileURLToPath(new URL('../helpers/try-rights.ts', import.meta.url)));
const pins = '/sys/fs/bpf/lsr-agent';
let lab: TestLab;
let place: Confinement;

test.before(async () => {
  place = await makeConfinement();
  lab = await createLab({ agents: ['edge', 'ids', 'gw'] });
  configureUnprivileged();
});

test.after.always(async () => {
  await lab?.remove();
  place?.remove();
});

/** fw's files, as the unit's StateDirectory and RuntimeDirectory are: its own. */
function configureUnprivileged(): void {
  const folder = hostFolder(lab, 'fw');
  mkdirSync(folder, { mode: 0o750 });
  copyFileSync(meshFile, `${folder}/mesh.yaml`);
  const lines = [
    'node: fw',
    `mesh: ${folder}/mesh.yaml`,
    'interfaces: { mesh0: mesh }',
    `api: { socket: ${folder}/api.sock, listen: 127.0.0.1:7913 }`,
    `store: ${folder}/audit.db`,
    `bpffs: ${pins}`,
  ];
  writeFileSync(`${folder}/agent.yaml`, `${lines.join('\n')}\n`);
  for (const path of [folder, `${folder}/mesh.yaml`]) chownSync(path, nobody.uid, nobody.gid);
}

const daemonCommand = (capabilities: readonly string[]): string[] =>
  place.confine(capabilities, [
    place.locate('dist/cli.js'),
    'daemon',
    '--config',
    `${hostFolder(lab, 'fw')}/agent.yaml`,
  ]);

const readStatus = (): Promise<Status> => callApi<Status>(apiSocket(lab, 'fw'), { path: '/v1/status' });

async function startUnprivileged(): Promise<Status> {
  const agent = {
    namespace: `${lab.prefix}fw`,
    folder: hostFolder(lab, 'fw'),
    command: daemonCommand(granted),
  };
  await startProcess(agent, async () => (await readStatus().catch(() => null))?.state === 'ready');
  return readStatus();
}

const ping = (): Promise<string> => lab.on('client', 'ping', '-c', '3', '-i', '0.05', '-W', '1', server);

test('the unit of the backstop grants CAP_NET_ADMIN alone', (t) => {
  const unit = readFileSync('systemd/lsr-agent-backstop.service', 'utf8');
  t.regex(unit, /^AmbientCapabilities=CAP_NET_ADMIN$/m);
  t.regex(unit, /^CapabilityBoundingSet=CAP_NET_ADMIN$/m);
});

test('the unit grants exactly CAP_BPF and CAP_NET_ADMIN, and no way to more', (t) => {
  t.deepEqual([...granted].sort(), ['bpf', 'net_admin']);
  t.deepEqual(readCapabilities('CapabilityBoundingSet').sort(), ['bpf', 'net_admin']);
  t.deepEqual(readUnit('NoNewPrivileges'), ['yes']);
  t.deepEqual(readUnit('User'), ['lsr-agent']);
});

test.serial(
  'with them, and as its own user, the daemon loads, pins, attaches, answers and carries a chain',
  async (t) => {
    await t.throwsAsync(ping(), undefined, 'fw is no hop before its agent runs');
    const { pid, interfaces, generation } = await startUnprivileged();
    t.is(generation, 1);
    t.deepEqual(
      interfaces.map(({ name, attached }) => [name, attached]),
      [['mesh0', 'tcx']],
    );
    const rights = readRights(pid);
    const both = (1n << 39n) | (1n << 12n);
    t.deepEqual(rights, {
      uid: nobody.uid,
      noNewPrivileges: 1,
      effective: both,
      permitted: both,
      bounding: both,
      ambient: both,
    });
    t.is(statSync(apiSocket(lab, 'fw')).mode & 0o777, 0o660);

    t.regex(await ping(), / 0% packet loss/);
    const [record] = await readPaths(lab, 'gw', '?source=10.1.0.10');
    t.is(record?.verdict, 'complete');
    t.true(record?.recorded.some(({ node }) => node === 'fw'));
    t.regex(await lab.on('fw', 'curl', '-sS', 'http://127.0.0.1:7913/metrics'), /outcome="advanced"\} [1-9]/);
  },
);

interface Rights {
  uid: number;
  noNewPrivileges: number;
  effective: bigint;
  permitted: bigint;
  bounding: bigint;
  ambient: bigint;
}

function readRights(pid: number): Rights {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const field = (name: string): string => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status)?.[1] ?? '';
  const set = (name: string): bigint => BigInt(`0x${field(name)}`);
  return {
    uid: Number(field('Uid')),
    noNewPrivileges: Number(field('NoNewPrivs')),
    effective: set('CapEff'),
    permitted: set('CapPrm'),
    bounding: set('CapBnd'),
    ambient: set('CapAmb'),
  };
}

test.serial('it applies a document through its socket and keeps it', async (t) => {
  const file = `${hostFolder(lab, 'fw')}/mesh.yaml`;
  const text = `${readFileSync(file, 'utf8')}# changed\n`;
  await callApi(apiSocket(lab, 'fw'), {
    method: 'PUT',
    path: '/v1/mesh',
    body: text,
    contentType: 'application/yaml',
  });
  t.is(readFileSync(file, 'utf8'), text);
  t.is(statSync(file).uid, nobody.uid);
});

test.serial(
  'killed with -9 it leaves a working hop, and its successor takes over without writing',
  async (t) => {
    const before = await readStatus();
    await killAgent(before.pid);
    t.regex(await ping(), / 0% packet loss/);
    const after = await startUnprivileged();
    t.not(after.pid, before.pid);
    t.is(after.generation, before.generation);
    t.regex(await ping(), / 0% packet loss/);
    t.deepEqual(findUnbalanced(await readDrops(lab, 'fw')), []);
  },
);

for (const missing of ['bpf', 'net_admin']) {
  test.serial(`without CAP_${missing.toUpperCase()} it says so and leaves the hop as it is`, async (t) => {
    const { pid } = await readStatus();
    await killAgent(pid);
    const words = daemonCommand(granted.filter((name) => name !== missing));
    const { exitCode, stderr } = await execa('nsenter', enterNamespace(`${lab.prefix}fw`, words), {
      reject: false,
    });
    t.is(exitCode, 1);
    t.regex(stderr, new RegExp(`^error: .*CAP_${missing.toUpperCase()}`));
    t.notRegex(stderr, /^ {4}at /m);
    t.regex(await ping(), / 0% packet loss/);
    await startUnprivileged();
  });
}

test.serial('the backstop needs CAP_NET_ADMIN alone, and the daemon keeps it with what it has', async (t) => {
  const file = `${hostFolder(lab, 'fw')}/mesh.yaml`;
  const text = readFileSync(file, 'utf8');
  await killAgent((await readStatus()).pid);
  const guarded =
    '  guarded: { hops: [gw], security: true }\nrules:\n  - { name: own, at: [fw], match: { destination: 10.9.0.0/24 }, chain: guarded }';
  writeFileSync(file, text.replace('rules:', guarded));
  const raise = (held: readonly string[]) => {
    const words = [
      place.locate('dist/cli.js'),
      'backstop',
      '--config',
      `${hostFolder(lab, 'fw')}/agent.yaml`,
    ];
    const command = place.confine(held, words);
    return execa('nsenter', enterNamespace(`${lab.prefix}fw`, command), { reject: false });
  };
  const refused = await raise(['bpf']);
  t.is(refused.exitCode, 1);
  t.regex(refused.stderr, /^error: .*CAP_NET_ADMIN/);
  const { exitCode, stdout, stderr } = await raise(['net_admin']);
  t.is(exitCode, 0, stderr);
  t.regex(stdout, /^packets of guarded are dropped .*; programs are in force on mesh0$/);
  t.regex(await lab.on('fw', 'nft', 'list', 'counters'), /chain-guarded/);
  await startUnprivileged();
  t.deepEqual((await readStatus()).backstop, { chains: ['guarded'], error: null });
  await killAgent((await readStatus()).pid);
  writeFileSync(file, text);
  await startUnprivileged();
  t.notRegex(await lab.on('fw', 'nft', 'list', 'tables'), /lsr-agent/);
});

async function killAgent(pid: number): Promise<void> {
  process.kill(pid, 'SIGKILL');
  const deadline = Date.now() + 10_000;
  while (existsSync(`/proc/${pid}/exe`)) if (Date.now() > deadline) throw new Error(`${pid} does not end`);
}

/** Thing -> the rights without which the kernel refuses it, to a user who owns the pins. docs/security.md has this table. */
const needs: Record<string, string[]> = {
  'load the programs': ['bpf', 'net_admin'],
  'make a folder for pins': [],
  'open a pinned table': [],
  'open a pinned program': [],
  'read a table': [],
  'pin a table': [],
  'remove pins': [],
  'replace the program of a tcx link': [],
  'ask for tcx programs': ['net_admin'],
  'attach by tcx': [],
  'attach by clsact': ['net_admin'],
  'ask for a clsact filter': [],
  'detach from clsact': ['net_admin'],
};

test.serial('each right is needed for what the documentation says, and for nothing else', async (t) => {
  const own = await makeConfinement();
  t.teardown(() => own.remove());
  const script = ['--import', own.locate('node_modules/tsx/dist/loader.mjs'), own.locate(tryRights)];
  const run = async (held: readonly string[], task = 'try'): Promise<Record<string, string>> =>
    JSON.parse(await lab.on('client', ...own.confine(held, [...script, pins, task])));
  await run(granted, 'prepare');
  for (const held of [granted, ['bpf'], ['net_admin'], []]) {
    const expected = Object.entries(needs).map(([what, rights]) => [
      what,
      rights.every((right) => held.includes(right)) ? 'ok' : 'EPERM',
    ]);
    t.deepEqual(await run(held), Object.fromEntries(expected), `with ${held.join(', ') || 'no capability'}`);
  }
  const [chown = '', ...rest] = own.asRoot(['chown', 'root', pins]);
  await execa(chown, rest);
  t.like(
    await run(granted),
    { 'open a pinned table': 'EACCES', 'open a pinned program': 'EACCES' },
    'pins of another user',
  );
});

const systemdTest = existsSync('/usr/bin/systemd-analyze') ? test : test.skip;

systemdTest('systemd finds the unit no more exposed than docs/security.md says', (t) => {
  const documented = /Overall exposure level for lsr-agent\.service: (\d+\.\d)/.exec(
    readFileSync('docs/security.md', 'utf8'),
  )?.[1];
  t.truthy(documented, 'docs/security.md gives a figure');
  t.true(Number(documented) > 0);
  const threshold = String(Math.round(Number(documented) * 10));
  const judge = (limit: string): string =>
    execFileSync('systemd-analyze', ['security', '--offline=true', `--threshold=${limit}`, unitFile], {
      encoding: 'utf8',
    });
  t.notThrows(() => judge(threshold));
  t.throws(() => judge('1'), undefined, 'the threshold is looked at');
});
