/** Each verdict of docs/audit.md, made by packets on the wire of the lab of every example. */
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import test from 'ava';
import { hostFolder, startAgent } from '../../src/lab-standing.js';
import type { PathRecord } from '../../src/record.js';
import { putInForce } from '../helpers/chains.js';
import { createLab, type TestLab } from '../helpers/namespaces.js';
import { readDrops, readPaths, readStatus, runScapy, sumCounts } from '../helpers/wire.js';

let lab: TestLab;

const [edge, fw, ids, gw, server] = ['10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4', '10.9.0.10'];

test.before(async () => {
  lab = await createLab();
  for (const host of ['fw', 'ids', 'gw']) {
    const { pid } = await readStatus(lab, host);
    process.kill(pid, 'SIGTERM');
    while (existsSync(`/proc/${pid}/cmdline`) && readFileSync(`/proc/${pid}/cmdline`).length > 0)
      await setTimeout(20);
    appendFileSync(`${hostFolder(lab, host)}/agent.yaml`, 'previousHop: neighbour\n');
    await startAgent(lab, host);
  }
  // So that each host knows the MAC addresses of all others.
  for (const [host, ...others] of [
    ['fw', ids, gw, edge],
    ['ids', fw, gw, edge],
    ['gw', fw, ids, edge],
  ])
    for (const other of others) await lab.on(host ?? '', 'ping', '-c', '1', other);
});

test.after.always(() => lab?.remove());

interface Row {
  title: string;
  onDeviation?: 'drop' | 'report';
  /** The host whose port the frame comes from. */
  from: string;
  to: string;
  /** In scapy's words: pointer and addresses of the source route, and what is in Record Route, of two slots. */
  route: [pointer: number, addresses: string[]];
  recorded: string[];
  /** The reason that counts it; `ended` and `advanced` where it goes on. */
  counted: string;
  record: Pick<PathRecord, 'verdict' | 'reasons' | 'explanation'>;
}

const stranger = '10.66.6.6';
const rows: Row[] = [
  {
    title: 'all hops in order',
    from: 'ids',
    to: 'gw',
    route: [12, [fw, ids, server]],
    recorded: [fw, ids],
    counted: 'ended',
    record: { verdict: 'complete', reasons: [], explanation: 'went fw → ids → gw, as chain there says' },
  },
  {
    title: 'a stranger in Record Route',
    from: 'ids',
    to: 'gw',
    route: [12, [fw, ids, server]],
    recorded: [fw, stranger],
    counted: 'ended',
    record: {
      verdict: 'detour',
      reasons: [`record_route:${stranger}`],
      explanation: `${stranger} stands in Record Route (${fw}, ${stranger}), and is no address of a hop of chain there`,
    },
  },
  {
    title: 'a stranger in Record Route, with `onDeviation: drop`',
    onDeviation: 'drop',
    from: 'ids',
    to: 'gw',
    route: [12, [fw, ids, server]],
    recorded: [stranger, ids],
    counted: 'detour',
    record: {
      verdict: 'detour',
      reasons: ['detour', `record_route:${stranger}`],
      explanation: `${stranger} stands in Record Route (${stranger}, ${ids}), and is no address of a hop of chain there, so the packet was dropped`,
    },
  },
  {
    title: 'a packet for fw at ids',
    from: 'edge',
    to: 'ids',
    route: [4, [ids, gw, server]],
    recorded: [],
    counted: 'position',
    record: {
      verdict: 'skipped',
      reasons: ['position'],
      explanation: 'fw was skipped: the packet arrived at ids from edge, and was dropped',
    },
  },
  {
    title: 'a packet of ids that comes from edge',
    from: 'edge',
    to: 'ids',
    route: [8, [fw, gw, server]],
    recorded: [fw],
    counted: 'previous_hop',
    record: {
      verdict: 'skipped',
      reasons: ['previous_hop'],
      explanation: 'fw was skipped: the packet arrived at ids from edge, and was dropped',
    },
  },
  {
    title: 'a packet of ids that comes from edge, with `onDeviation: report`',
    onDeviation: 'report',
    from: 'edge',
    to: 'ids',
    route: [8, [fw, gw, server]],
    recorded: [fw],
    counted: 'advanced',
    record: {
      verdict: 'skipped',
      reasons: ['previous_hop', 'reported'],
      explanation: 'fw was skipped: the packet arrived at ids from edge, and went on, as chain there says',
    },
  },
  {
    title: 'a route already used up',
    from: 'fw',
    to: 'ids',
    route: [16, [fw, ids, server]],
    recorded: [],
    counted: 'exhausted',
    record: {
      verdict: 'truncated',
      reasons: ['exhausted'],
      explanation: 'the source route was used up when the packet arrived at ids, and it was dropped',
    },
  },
  {
    title: 'a route that nobody rendered',
    from: 'fw',
    to: 'ids',
    route: [4, ['10.0.0.77', server]],
    recorded: [],
    counted: 'unknown_path',
    record: {
      verdict: 'forged',
      reasons: ['unknown_path'],
      explanation:
        'nothing that a hop of this mesh sends: a well-formed source route that is no path of this mesh; it was dropped',
    },
  },
  {
    title: 'a record that is not the one expected',
    from: 'fw',
    to: 'ids',
    route: [8, ['10.0.0.77', gw, server]],
    recorded: [fw],
    counted: 'record_mismatch',
    record: {
      verdict: 'forged',
      reasons: ['record_mismatch'],
      explanation:
        'nothing that a hop of this mesh sends: what is ahead is a path, but the hops recorded so far are not the ones expected; it was dropped',
    },
  },
];

for (const [index, { title, onDeviation, from, to, route, recorded, counted, record }] of rows.entries()) {
  test.serial(`${title}: ${record.verdict}, and counted as ${counted}`, async (t) => {
    await putInForce(lab, {
      there: { hops: ['fw', 'ids', 'gw'], record: 2, ...(onDeviation && { onDeviation }) },
    });
    const port = 7000 + index;
    const before = sumCounts(await readDrops(lab, to), counted);
    const [pointer, addresses] = route;
    const slots = [...recorded, '0.0.0.0', '0.0.0.0'].slice(0, 2);
    const packet = [
      `IP(src='10.1.0.10',dst='${addressOf(to)}',options=[`,
      `IPOption_LSRR(routers=${JSON.stringify(addresses)},pointer=${pointer}),`,
      `IPOption_RR(routers=${JSON.stringify(slots)},pointer=${4 + 4 * recorded.length})])`,
    ].join('');
    const [target, source] = await Promise.all([macOf(to), macOf(from)]);
    await runScapy(
      lab,
      'switch',
      `sendp(Ether(dst='${target}',src='${source}')/${packet}/UDP(sport=${port},dport=7), iface='br0', count=3)`,
    );
    t.is(sumCounts(await readDrops(lab, to), counted) - before, 3);
    const records = (await readPaths(lab, to)).filter(({ flow }) => flow.sourcePort === port);
    t.is(records.length, 1);
    t.like(records[0], { ...record, packets: 3 });
    const isDelivered = counted === 'ended';
    t.is(records[0]?.arrivedFrom?.node ?? null, isDelivered ? null : from);
  });
}

const addresses: Record<string, string> = { fw, ids, gw };
const addressOf = (host: string): string => addresses[host] ?? '';

async function macOf(host: string): Promise<string> {
  const links: { ifname: string; address: string }[] = JSON.parse(
    await lab.on(host, 'ip', '-j', 'link', 'show', 'mesh0'),
  );
  return links[0]?.address ?? '';
}
