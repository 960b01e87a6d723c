/** A chain whose ends pass by the stacks of their hosts (`stack: bypass`), in the lab of every example. */
import test from 'ava';
import { agentHosts } from '../../src/lab-standing.js';
import { sendDatagrams, server } from '../helpers/delivery.js';
import { createLab, type TestLab } from '../helpers/namespaces.js';
import { findUnbalanced, readDrops, readPaths } from '../helpers/wire.js';

let lab: TestLab;

test.before(async () => {
  lab = await createLab({ bypass: true });
  for (const host of ['edge', 'gw'])
    for (const command of [
      'add table ip seen',
      'add chain ip seen forward { type filter hook forward priority 0; }',
      'add rule ip seen forward ip daddr 10.9.0.10 counter',
    ])
      await lab.on(host, 'nft', ...command.split(' '));
});

test.after.always(() => lab?.remove());

const countForwarded = async (host: string): Promise<number> =>
  Number(/counter packets (\d+)/.exec(await lab.on(host, 'nft', 'list', 'table', 'ip', 'seen'))?.[1]);

test.serial('packets go through the chain and never through nftables of its ends', async (t) => {
  await lab.on('client', 'ping', '-c', '1', '-W', '5', server); // neighbours are asked for
  const before = await Promise.all(['edge', 'gw'].map(countForwarded));
  t.regex(await lab.on('client', 'curl', '-sS', `http://${server}/`), /Hello from the server/);
  t.like(await sendDatagrams(lab, { size: 1000, count: 50, discover: 'want' }), { received: 50, same: true });
  t.regex(await lab.on('client', 'ping', '-c', '3', '-i', '0.05', server), / 0% packet loss/);
  t.deepEqual(await Promise.all(['edge', 'gw'].map(countForwarded)), before);
  const records = await readPaths(lab, 'gw');
  t.true(records.length >= 3 && records.every(({ verdict }) => verdict === 'complete'));
  for (const host of agentHosts) t.deepEqual(findUnbalanced(await readDrops(lab, host)), [], host);
});

test.serial('what is too big is still cut', async (t) => {
  t.like(await sendDatagrams(lab, { size: 3000, count: 5, discover: 'dont' }), { received: 5, same: true });
});
