/** What becomes of the data path when daemons die, restart, compete or get bad input. */
import { once } from 'node:events';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { execa } from 'execa';
import type { Status } from '../../src/api-schemas.js';
import { callApi } from '../../src/client.js';
import { apiSocket, hostFolder, startAgent } from '../../src/lab-standing.js';
import { enterNamespace } from '../../src/lab-topology.js';
import { createLab, type TestLab } from '../helpers/namespaces.js';
import { findUnbalanced, readDrops, readPaths } from '../helpers/wire.js';

const hosts = ['edge', 'fw', 'ids', 'gw'] as const;
const server = '10.9.0.10';
let lab: TestLab;

test.before(async () => {
  lab = await createLab();
});

test.after.always(() => lab?.remove());

const readStatus = (host: string): Promise<Status> =>
  callApi<Status>(apiSocket(lab, host), { path: '/v1/status' });
const runCli = (host: string, ...args: string[]) =>
  execa('nsenter', enterNamespace(lab.prefix + host, [process.execPath, 'dist/cli.js', ...args]), {
    reject: false,
  });

async function killAgent(host: string, signal: NodeJS.Signals): Promise<void> {
  const { pid } = await readStatus(host);
  process.kill(pid, signal);
  await waitFor(async () => !isAlive(pid), `agent ${pid} to end`);
}

function isAlive(pid: number): boolean {
  try {
    return !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

async function waitFor(condition: () => Promise<boolean>, what: string): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!(await condition())) if (Date.now() > deadline) throw new Error(`waited in vain for ${what}`);
}

test.serial(
  'four daemons killed with -9 and started again under traffic lose no packet and repeat no record',
  async (t) => {
    await lab.on('client', 'ping', '-c', '1', server);
    const generation = (await readStatus('edge')).generation;
    const count = 400;
    const ping = execa(
      'nsenter',
      enterNamespace(`${lab.prefix}client`, [
        'ping',
        '-c',
        String(count),
        '-i',
        '0.01',
        '-e',
        '4242',
        server,
      ]),
    );
    await once(ping.stdout, 'data');
    for (const host of hosts) await killAgent(host, 'SIGKILL');
    for (const host of hosts) await startAgent(lab, host);
    const { stdout } = await ping;
    t.regex(stdout, new RegExp(`${count} packets transmitted, ${count} received, 0% packet loss`));
    t.is((await readStatus('edge')).generation, generation, 'nothing was written: the kernel had it all');
    const records = (await readPaths(lab, 'gw', '?source=10.1.0.10')).filter(
      ({ flow }) => flow.protocol === 1,
    );
    t.is(
      records.reduce((sum, { packets }) => sum + packets, 0),
      count + 1,
    );
    for (const host of hosts) t.deepEqual(findUnbalanced(await readDrops(lab, host)), []);
  },
);

test.serial('a second daemon on the same host ends with a plain message', async (t) => {
  const { exitCode, stderr } = await runCli(
    'fw',
    'daemon',
    '--config',
    `${hostFolder(lab, 'fw')}/agent.yaml`,
  );
  t.is(exitCode, 1);
  t.regex(stderr, /another lsr-agent already runs on this host/);
  t.is((await readStatus('fw')).state, 'ready');
});

test.serial('a bad mesh document is refused with line and column, and the last good one stays', async (t) => {
  const file = `${hostFolder(lab, 'edge')}/mesh.yaml`;
  const good = readFileSync(file, 'utf8');
  const replace = (text: string): void => {
    writeFileSync(`${file}.new`, text);
    renameSync(`${file}.new`, file);
  };
  replace(good.replace('hops: [firewall', 'hops: [fierwall'));
  await waitFor(
    async () => (await readStatus('edge')).state === 'degraded',
    'the bad document to be noticed',
  );
  t.regex((await readStatus('edge')).mesh.error ?? '', /\d+:\d+: .*fierwall/);
  t.regex(await lab.on('client', 'ping', '-c', '1', server), / 0% packet loss/);

  await killAgent('edge', 'SIGTERM');
  const { stderr, exitCode } = await runCli('edge', 'check', file);
  t.is(exitCode, 2);
  t.regex(stderr, /fierwall/);
  const daemon = execa(
    'nsenter',
    enterNamespace(`${lab.prefix}edge`, [
      process.execPath,
      'dist/cli.js',
      'daemon',
      '--config',
      `${hostFolder(lab, 'edge')}/agent.yaml`,
    ]),
    { reject: false },
  );
  const restarted = async (): Promise<boolean> => (await readStatus('edge').catch(() => null)) !== null;
  await waitFor(restarted, 'a daemon with a bad document to start');
  const { state, mesh } = await readStatus('edge');
  t.is(state, 'degraded');
  t.regex(mesh.error ?? '', /fierwall/);
  t.regex(mesh.source, /mesh\.last-good\.yaml$/);
  t.regex(await lab.on('client', 'ping', '-c', '1', server), / 0% packet loss/);

  replace(good.replaceAll('edge', 'edgy'));
  await waitFor(
    async () => /node "edge"/.test((await readStatus('edge')).mesh.error ?? ''),
    'a mesh without this host to be refused',
  );
  t.regex(await lab.on('client', 'ping', '-c', '1', server), / 0% packet loss/);
  replace(good);
  await waitFor(async () => (await readStatus('edge')).state === 'ready', 'the good document to be taken');
  daemon.kill('SIGTERM');
  await daemon;
  await startAgent(lab, 'edge');
});

test.serial('SIGTERM leaves the data path running, --detach-on-exit and unload remove it', async (t) => {
  await killAgent('fw', 'SIGTERM');
  t.regex(await lab.on('client', 'ping', '-c', '2', '-i', '0.05', server), / 0% packet loss/);
  const config = `${hostFolder(lab, 'fw')}/agent.yaml`;
  const daemon = execa(
    'nsenter',
    enterNamespace(`${lab.prefix}fw`, [
      process.execPath,
      'dist/cli.js',
      'daemon',
      '--config',
      config,
      '--detach-on-exit',
    ]),
    { reject: false },
  );
  await waitFor(async () => (await readStatus('fw').catch(() => null))?.state === 'ready', 'the daemon');
  daemon.kill('SIGTERM');
  t.is((await daemon).exitCode, 0);
  await t.throwsAsync(lab.on('client', 'ping', '-c', '1', '-W', '1', server));
  await startAgent(lab, 'fw');
  t.regex(await lab.on('client', 'ping', '-c', '2', '-i', '0.05', server), / 0% packet loss/);
});

test.serial('an interface that does not exist is named, with those that do', async (t) => {
  const folder = hostFolder(lab, 'fw');
  await killAgent('fw', 'SIGTERM');
  writeFileSync(
    `${folder}/typo.yaml`,
    readFileSync(`${folder}/agent.yaml`, 'utf8').replace('mesh0:', 'mehs0:'),
  );
  const { exitCode, stderr } = await runCli('fw', 'daemon', '--config', `${folder}/typo.yaml`);
  await startAgent(lab, 'fw');
  t.is(exitCode, 1);
  t.regex(stderr, /interface mehs0 does not exist; this host has .*mesh0/);
});

test.serial('a store that cannot be written ends the daemon with its path', async (t) => {
  const folder = hostFolder(lab, 'fw');
  await killAgent('fw', 'SIGTERM');
  writeFileSync(
    `${folder}/full.yaml`,
    readFileSync(`${folder}/agent.yaml`, 'utf8').replace(/store: .*/, 'store: /proc/audit.db'),
  );
  const { exitCode, stderr } = await runCli('fw', 'daemon', '--config', `${folder}/full.yaml`);
  await startAgent(lab, 'fw');
  t.is(exitCode, 1);
  t.regex(stderr, /\/proc/);
});

test.serial('doctor finds the lab fit, and says what is wrong where something is', async (t) => {
  const config = `${hostFolder(lab, 'fw')}/agent.yaml`;
  const fit = await runCli('fw', 'doctor', '--config', config);
  t.is(fit.exitCode, 0, fit.stdout);
  await lab.on('fw', 'sysctl', '-qw', 'net.ipv4.conf.all.accept_source_route=1');
  const open = await runCli('fw', 'doctor', '--config', config);
  t.is(open.exitCode, 1);
  t.regex(open.stdout, /accept_source_route.*on for all/);
  await lab.on('fw', 'sysctl', '-qw', 'net.ipv4.conf.all.accept_source_route=0');
});

test.serial('metrics and OpenAPI are served on the loopback port, which is read-only', async (t) => {
  const metrics = await lab.on('gw', 'curl', '-sS', 'http://127.0.0.1:7913/metrics');
  for (const line of [
    /^lsr_packets_total\{interface="mesh0",direction="ingress",outcome="ended"\} [1-9]/m,
    /^lsr_chain_packets_total\{chain="web",verdict="complete"\} [1-9]/m,
    /^lsr_path_bytes_total\{path="fw\/ids\/gw",outcome="ended"\} [1-9]/m,
    /^lsr_store_bytes [1-9]/m,
    /^lsr_apply_duration_seconds_count \d/m,
    /^lsr_map_capacity\{map="flows"\} 1048576$/m,
    /^lsr_audit_lost_packets_total 0$/m,
    /^process_resident_memory_bytes [1-9]/m,
  ])
    t.regex(metrics, line);
  const openapi = JSON.parse(await lab.on('gw', 'curl', '-sS', 'http://127.0.0.1:7913/openapi.json'));
  t.truthy(openapi.paths['/v1/paths']);
  const refused = await lab.on(
    'gw',
    'curl',
    '-sS',
    '-X',
    'PUT',
    '-H',
    'content-type: application/json',
    '-d',
    '{}',
    'http://127.0.0.1:7913/v1/mesh',
  );
  t.is(JSON.parse(refused).code, 'READ_ONLY');
});
