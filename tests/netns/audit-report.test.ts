/**
 * A hundred thousand flows over four chains, while a host dies, a leg is led astray, somebody forges, and an agent stands
 * still: at the end each packet that was sent is accounted for, and what deviated is found, and nothing else.
 *
 *   client ── edge ──┬── fw ──┬── gw ── server
 *                    ├─ ids1 ─┤
 *                    └─ ids2 ─┘
 */
import { execFile } from 'node:child_process';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
import { callApi } from '../../src/client.js';
import { apiSocket, packageFile } from '../../src/lab-standing.js';
import { enterNamespace, functionsTopology } from '../../src/lab-topology.js';
import type { Mesh } from '../../src/mesh.js';
import type { PathRecord, PathsPage } from '../../src/record.js';
import { listLegs, type Summary } from '../../src/summary.js';
import { putMeshOn } from '../helpers/chains.js';
import { server } from '../helpers/delivery.js';
import { createLab, type TestLab } from '../helpers/namespaces.js';
import { findUnbalanced, readDrops, readStatus, runScapy } from '../helpers/wire.js';

const agents = ['edge', 'fw', 'ids1', 'ids2', 'gw'];
const ports = { web: 8001, dns: 8002, bulk: 8003, plain: 8004 };
const chains = Object.keys(ports) as (keyof typeof ports)[];
const flowsOfChain = 25_000;
const forgedPackets = 500;

const mesh: Mesh = {
  version: 1,
  nodes: {
    edge: { address: '10.0.0.1' },
    fw: { address: '10.0.0.2' },
    ids1: { address: '10.0.0.3' },
    ids2: { address: '10.0.0.5' },
    gw: { address: '10.0.0.4' },
  },
  services: { ids: { nodes: ['ids1', 'ids2'], function: 'transit' } },
  chains: {
    web: { hops: ['fw', 'ids', 'gw'], record: 3 },
    dns: { hops: ['fw', 'gw'], record: 2 },
    bulk: { hops: ['ids', 'gw'], record: 2 },
    plain: { hops: ['gw'] },
  },
  rules: chains.map((chain) => ({
    name: chain,
    at: ['edge'],
    match: { destination: '10.9.0.0/24', protocol: 'udp' as const, destinationPorts: [ports[chain]] },
    chain,
  })),
};

let lab: TestLab;

test.before(async () => {
  lab = await createLab({ topology: functionsTopology, mesh: packageFile('lab/functions.yaml'), agents });
  for (const host of agents.toReversed()) await putMeshOn(lab, host, mesh);
});

test.after.always(() => lab?.remove());

const script = fileURLToPath(new URL('../helpers/many-flows.py', import.meta.url));
type Sent = Record<string, number>;
const sent: Sent = {};

/** The next flows of each chain, some datagrams each. */
async function send(flows: number, packets: number): Promise<void> {
  const words = [server, Object.values(ports).join(), flows, packets, 1024 + begun, 8_000].map(String);
  begun += flows;
  const command = enterNamespace(`${lab.prefix}client`, ['python3', script, ...words]);
  const { stdout } = await promisify(execFile)('nsenter', command);
  for (const [port, count] of Object.entries(JSON.parse(stdout) as Sent))
    sent[port] = (sent[port] ?? 0) + count;
}
let begun = 0;

async function listRecords(host: string, query: string): Promise<PathRecord[]> {
  const records: PathRecord[] = [];
  let cursor: string | undefined;
  do {
    const path = `/v1/paths?limit=1000${query}${cursor === undefined ? '' : `&cursor=${cursor}`}`;
    const page = await callApi<PathsPage>(apiSocket(lab, host), { path });
    if (cursor === undefined) gaps.push(...page.gaps.map((gap) => ({ host, ...gap })));
    records.push(...page.records);
    cursor = page.nextCursor ?? undefined;
  } while (cursor !== undefined);
  return records;
}
const gaps: unknown[] = [];

const sum = (numbers: readonly number[]): number => numbers.reduce((total, one) => total + one, 0);
const packetsOf = (records: readonly PathRecord[]): number => sum(records.map(({ packets }) => packets));

/** Packets that took a chain's paths over a node, at the edge. */
async function countImposed(chain: string, over: string): Promise<number> {
  const { paths } = await callApi<Summary>(apiSocket(lab, 'edge'), { path: `/v1/chains/${chain}/summary` });
  return sum(paths.filter(({ nodes }) => nodes.includes(over)).map(({ out }) => out.packets));
}

const links = async (host: string): Promise<string> => {
  const [link] = JSON.parse(await lab.on(host, 'ip', '-j', 'link', 'show', 'mesh0')) as { address: string }[];
  return link?.address ?? '';
};

test.serial('each packet of 100,000 flows is accounted for, and each deviation found', async (t) => {
  t.timeout(300_000);
  await send(flowsOfChain / 5, 2);

  // A host dies while flows are on it, and comes back.
  const dying = send(flowsOfChain / 5, 3);
  await setTimeout(1500);
  await lab.on('ids1', 'ip', 'link', 'set', 'mesh0', 'down');
  await dying;
  await lab.on('ids1', 'ip', 'link', 'set', 'mesh0', 'up');
  await setTimeout(3000);

  // An agent stands still for ten seconds; its programs do not.
  const { pid } = await readStatus(lab, 'gw');
  process.kill(pid, 'SIGSTOP');
  const slow = send(flowsOfChain / 5, 2);
  await setTimeout(10_000);
  process.kill(pid, 'SIGCONT');
  await slow;

  // Somebody on the mesh network sends what nobody of the mesh would.
  const [toFw, fromEdge] = await Promise.all([links('fw'), links('edge')]);
  const route = "IPOption_LSRR(routers=['10.0.0.66','10.9.0.10'],pointer=4)";
  const forging = runScapy(
    lab,
    'switch',
    `p=Ether(dst='${toFw}',src='${fromEdge}')/IP(src='10.1.0.10',dst='10.0.0.2',options=${route})/UDP(sport=666,dport=666)
s=conf.L2socket(iface='br0')
raw=bytes(p)
for i in range(${forgedPackets}): s.send(raw)`,
  );
  await send(flowsOfChain / 5, 2);
  await forging;

  // fw takes the MAC address of ids2 for that of ids1: packets for ids1 make a detour over ids2.
  await lab.on(
    'fw',
    'ip',
    'neigh',
    'replace',
    '10.0.0.3',
    'lladdr',
    await links('ids2'),
    'dev',
    'mesh0',
    'nud',
    'permanent',
  );
  await setTimeout(200);
  const before = await countImposed('web', 'ids1');
  await send(flowsOfChain / 5, 2);
  await setTimeout(300);
  const astray = (await countImposed('web', 'ids1')) - before;

  const recorded = await listRecords('gw', '');
  const summaries = await Promise.all(
    agents.flatMap((host) =>
      chains.map((chain) => callApi<Summary>(apiSocket(lab, host), { path: `/v1/chains/${chain}/summary` })),
    ),
  );

  // What was sent has arrived, or was dropped under a reason, or was lost on the leg to the host that died.
  const flows = new Set(recorded.map(({ flow }) => `${flow.sourcePort} ${flow.destinationPort}`));
  t.true(flows.size > 95_000 && flows.size <= 100_000, `${flows.size} flows arrived`);
  for (const chain of chains) {
    const ended = packetsOf(recorded.filter((record) => record.chain === chain));
    const own = summaries.filter((summary) => summary.chain === chain);
    const imposed = sum(
      own.flatMap(({ paths }) => paths.map((path) => (path.position === 0 ? path.out.packets : 0))),
    );
    t.is(imposed, sent[ports[chain]] ?? 0, `${chain}: all that was sent was sent into the chain`);
    const dropped = sum(
      own.flatMap(({ paths }) =>
        paths.flatMap(({ drops }) => Object.values(drops).map(({ packets }) => packets)),
      ),
    );
    const lost = sum(listLegs(own).map(({ packets }) => packets));
    t.is(ended + dropped + lost, imposed, `${chain}: ended ${ended}, dropped ${dropped}, lost ${lost}`);
    const wrong = listLegs(own).filter(({ to, packets }) => packets !== 0 && to !== 'ids1');
    t.deepEqual(wrong, [], `${chain}: nothing was lost on other legs`);
    t.log(
      `${chain}: ${imposed} sent, ${ended} recorded, ${dropped} dropped, ${lost} lost on the way to ids1`,
    );
  }

  // Each deviation is found, and none invented.
  const detours = recorded.filter(({ verdict }) => verdict === 'detour');
  t.is(packetsOf(detours), astray);
  t.true(astray > 1000, `${astray} packets were led astray`);
  t.true(
    detours.every(({ chain, reasons }) => chain === 'web' && reasons.join() === 'record_route:10.0.0.5'),
  );
  t.true(detours.every(({ explanation }) => /^10\.0\.0\.5 stands in Record Route/.test(explanation)));
  t.deepEqual(
    recorded.filter(({ verdict }) => verdict !== 'complete' && verdict !== 'detour'),
    [],
  );
  const others = (await Promise.all(agents.slice(0, -1).map((host) => listRecords(host, '')))).flat();
  t.is(packetsOf(others), forgedPackets);
  t.true(others.every(({ verdict, flow }) => verdict === 'forged' && flow.sourcePort === 666));
  t.deepEqual(gaps, [], 'nothing is missing in the records');
  for (const host of agents) t.deepEqual(findUnbalanced(await readDrops(lab, host)), [], host);
  t.log(
    `${recorded.length} records of ${flows.size} flows, ${astray} packets astray, ${forgedPackets} forged`,
  );
});
