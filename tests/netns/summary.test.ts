/** What goes in and comes out at each hop, counted by path, against what was sent; the lab of every example. */

import { once } from 'node:events';
import test from 'ava';
import { execa } from 'execa';
import { agentHosts, apiSocket, program } from '../../src/lab-standing.js';
import type { PathSummary, Summary } from '../../src/summary.js';
import { putInForce } from '../helpers/chains.js';
import { carryStream, sendDatagrams } from '../helpers/delivery.js';
import { createLab, type TestLab } from '../helpers/namespaces.js';
import { withTable } from '../helpers/nftables.js';

let lab: TestLab;

test.before(async () => {
  lab = await createLab();
  await putInForce(
    lab,
    { there: { hops: ['firewall', 'ids', 'gw'], record: 2 } },
    { firewall: { nodes: ['fw'], function: 'stack' } },
  );
});

test.after.always(() => lab?.remove());

const [first = 'edge', ...others] = agentHosts;
const ask = (...words: string[]) =>
  execa(process.execPath, [
    program,
    ...['--api', apiSocket(lab, first), ...words, 'summary', 'there', '--join'],
    ...others.map((host) => apiSocket(lab, host)),
  ]);

/** By node, the only path of the chain. */
async function readHops(): Promise<Record<string, PathSummary>> {
  const summaries: Summary[] = JSON.parse((await ask('--json')).stdout);
  return Object.fromEntries(summaries.map(({ node, paths }) => [node, paths[0] as PathSummary]));
}

/** How many packets went in and out at each node while an action ran. */
async function watch(action: () => Promise<void>): Promise<Record<string, [into: number, out: number]>> {
  const before = await readHops();
  await action();
  const after = await readHops();
  return Object.fromEntries(
    Object.entries(after).map(([node, { in: into, out }]) => [
      node,
      [into.packets - (before[node]?.in.packets ?? 0), out.packets - (before[node]?.out.packets ?? 0)],
    ]),
  );
}

const everywhere = (count: number) => Object.fromEntries(agentHosts.map((node) => [node, [count, count]]));

test.serial('a flow is followed hop by hop while it runs, and no other', async (t) => {
  const sockets = others.map((host) => apiSocket(lab, host));
  const flow = ['--from', '10.1.0.10', '--to', '10.9.0.10', '--protocol', 'udp', '--port', '9'];
  const words = ['--api', apiSocket(lab, first), 'watch', ...flow, '--join', ...sockets];
  const following = execa(process.execPath, [program, ...words]);
  const [said] = await once(following.stderr, 'data');
  t.is(String(said), 'following it at edge, fw, ids, gw\n');
  t.like(await sendDatagrams(lab, { size: 500, count: 20, discover: 'want' }), { received: 20 });
  await lab.on('client', 'ping', '-c', '1', '10.9.0.10');
  following.kill('SIGINT');
  const { stdout } = await following;
  const rows = stdout.slice(stdout.indexOf('NODE')).split('\n').slice(1);
  t.deepEqual(
    rows.map((row) => row.split(/ +/).slice(0, 3).join(' ')),
    [
      'edge passed 20',
      'edge imposed 20',
      'fw to_stack 20',
      'fw advanced 20',
      'ids advanced 20',
      'gw ended 20',
    ],
  );
  t.regex(stdout, /^\S+Z {2}edge {2}imposed \d+, 20 in all$/m, 'and each second told what was new');
});

test.serial('datagrams count once at each hop, and probes not at all', async (t) => {
  const seen = await watch(async () => {
    t.like(await sendDatagrams(lab, { size: 500, count: 20, discover: 'want' }), { received: 20 });
    await execa(process.execPath, [program, '--api', apiSocket(lab, 'edge'), 'trace', 'there']);
  });
  t.deepEqual(seen, everywhere(20));
});

test.serial('fragments count as what is on the wire', async (t) => {
  const seen = await watch(async () => {
    t.like(await sendDatagrams(lab, { size: 4000, count: 5, discover: 'dont' }), { received: 5 });
  });
  // The client makes three of each, and two of them are cut once more for the options.
  t.deepEqual(seen, everywhere(25));
});

test.serial('of a stream with GSO nothing is lost between hops', async (t) => {
  const seen = await watch(async () => {
    t.true(await carryStream(lab, 5_000_000));
  });
  const [sent = 0] = seen.edge ?? [];
  t.true(sent > 3000, `${sent} segments`);
  t.deepEqual(seen, everywhere(sent));
});

test.serial(
  'what a function drops is kept there, and what a leg loses is lost before the next hop',
  async (t) => {
    const limited =
      'chain forward {\n type filter hook forward priority 0\n udp length 508 numgen inc mod 4 0 drop\n}';
    await withTable(lab, 'fw', 'ip function', limited, async () => {
      const seen = await watch(async () => {
        t.like(await sendDatagrams(lab, { size: 500, count: 20, discover: 'want' }), { received: 15 });
      });
      t.deepEqual(seen, { edge: [20, 20], fw: [20, 15], ids: [15, 15], gw: [15, 15] });
    });
    const losing = 'chain forward {\n type filter hook forward priority 0\n ip daddr 10.0.0.4 drop\n}';
    await withTable(lab, 'switch', 'bridge losing', losing, async () => {
      const seen = await watch(async () => {
        t.like(await sendDatagrams(lab, { size: 500, count: 20, discover: 'want' }), { received: 0 });
      });
      t.deepEqual(seen, { edge: [20, 20], fw: [20, 20], ids: [20, 20], gw: [0, 0] });
    });
    const { stdout } = await ask();
    t.regex(stdout, /^path \d+: fw → ids → gw\nHOP +NODE +LOST BEFORE +IN +OUT +KEPT +DROPPED/);
    t.regex(stdout, / 1 +fw +0 +\d+ +\d+ +5\n/);
    t.regex(stdout, / 3 +gw +20 +\d+ +\d+ +0\n/);
    t.regex(stdout, /ended at gw: complete, \d+ packets, \d+ bytes/);
  },
);
