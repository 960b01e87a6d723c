/** An audit store whose disk is full: packets and the API go on, and nothing is missing afterwards. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { callApi } from '../../src/client.js';
import { apiSocket, hostFolder, startAgent } from '../../src/lab-standing.js';
import type { PathsPage } from '../../src/record.js';
import { server } from '../helpers/delivery.js';
import { createLab, type TestLab } from '../helpers/namespaces.js';
import { readStatus } from '../helpers/wire.js';

const script = fileURLToPath(new URL('../helpers/many-flows.py', import.meta.url));
let lab: TestLab;
let disk: string;

test.before(async () => {
  lab = await createLab();
  disk = `${hostFolder(lab, 'gw')}/disk`;
  mkdirSync(disk);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=400k', 'tmpfs', disk]);
  const { pid } = await readStatus(lab, 'gw');
  process.kill(pid, 'SIGTERM');
  while (existsSync(`/proc/${pid}/cmdline`) && readFileSync(`/proc/${pid}/cmdline`).length > 0)
    await setTimeout(20);
  const config = `${hostFolder(lab, 'gw')}/agent.yaml`;
  const others = readFileSync(config, 'utf8').replace(/^store:.*$/m, '');
  writeFileSync(config, `${others}\nstore: ${disk}/audit.db\n`);
  await startAgent(lab, 'gw');
});

test.after.always(async () => {
  if (existsSync(disk)) execFileSync('umount', ['-l', disk]);
  await lab?.remove();
});

const readPage = (): Promise<PathsPage> =>
  callApi<PathsPage>(apiSocket(lab, 'gw'), { path: '/v1/paths?limit=1000' });

async function countPackets(): Promise<number> {
  const { chains } = await callApi<{ chains: { packets: number }[] }>(apiSocket(lab, 'gw'), {
    path: '/v1/chains',
  });
  return chains.reduce((sum, { packets }) => sum + packets, 0);
}

test.serial('a full disk stops neither packets nor the API, and later all is stored', async (t) => {
  await lab.on('client', 'ping', '-c', '1', server);
  await readPage();
  const before = await countPackets();
  const sent: Record<string, number> = JSON.parse(
    await lab.on('client', 'python3', script, server, '8001', '4000', '2', '2000', '8000'),
  );
  const page = await readPage();
  t.true(page.records.length > 0, 'what is there is told');
  const status = await readStatus(lab, 'gw');
  t.is(status.state, 'degraded');
  t.regex(status.store.error ?? '', /disk is full/);
  t.true((await countPackets()) - before < 8000);
  await lab.on('client', 'ping', '-c', '3', '-i', '0.1', server);

  execFileSync('mount', ['-o', 'remount,size=100m', disk]);
  await readPage();
  for (const end = Date.now() + 20_000; (await countPackets()) - before < 8003; await readPage())
    if (Date.now() > end) break;
  t.deepEqual(sent, { 8001: 8000 });
  t.is((await countPackets()) - before, 8003);
  t.like(await readStatus(lab, 'gw'), { state: 'ready', store: { error: null } });
  t.deepEqual((await readPage()).gaps, []);
});
