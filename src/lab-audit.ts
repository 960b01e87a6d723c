import { setTimeout as sleep } from 'node:timers/promises';
import type { ChainView, Status } from './api-schemas.js';
import { callApi } from './client.js';
import { colors } from './colors.js';
import { LsrError } from './errors.js';
import type { Print } from './lab-demo.js';
import { formatHeading, formatJson, formatPrompt } from './lab-drawing.js';
import { apiSocket, type Lab, packageFile, raiseLab } from './lab-standing.js';
import { inNamespace } from './lab-topology.js';
import type { PathRecord, PathsPage } from './record.js';
import { listLegs, type Summary } from './summary.js';
import { formatTable } from './table.js';

export const auditMesh = packageFile('lab/audit.yaml');
const agents = ['edge', 'fw', 'ids1', 'ids2', 'gw'] as const;
const server = '10.9.0.10';
const forgeries = 20;

const drawing = `
   client ── edge ──┬── fw ──┬── gw ── server
                    ├─ ids1 ─┤
                    ├─ ids2 ─┤      chain "web": edge → fw → ids1 or ids2 → gw
                    └─ guest ┘      somebody else on the mesh network`.slice(1);

/** Lets go wrong what can, and shows what the records say of it. Throws LAB where a packet is not accounted for. */
export async function demonstrateAudit(lab: Lab, print: Print, signal: AbortSignal): Promise<void> {
  print(`${drawing}\n`);
  await raiseLab(lab, { mesh: auditMesh, agents, signal });
  const show: Show = { lab, print, signal };
  await untilAllUp(show);
  let sent = await showHealthy(show);
  sent += await showDeath(show);
  sent += await showDetour(show);
  await showForgery(show);
  sent += await showStandstill(show);
  await showAccount(show, sent);
}

interface Show {
  lab: Lab;
  print: Print;
  signal: AbortSignal;
}

async function showHealthy(show: Show): Promise<number> {
  show.print(formatHeading('1. 500 flows, and nothing is wrong'));
  await send(show, 500);
  await ask(show, 'gw', '/v1/paths?limit=1');
  return 500;
}

async function showDeath(show: Show): Promise<number> {
  show.print(formatHeading('2. ids1 dies while flows are on it'));
  const sending = send(show, 2000);
  sending.catch(() => undefined); // awaited below
  await sleep(500, undefined, { signal: show.signal });
  await run(show, 'ids1', 'ip link set mesh0 down');
  await sending;
  for (const { from, to, packets } of listLegs(await readSummaries(show)))
    if (packets > 0) show.print(`${packets} packets left ${from}, and did not come in at ${to}`);
  await run(show, 'ids1', 'ip link set mesh0 up');
  await untilAllUp(show);
  return 2000;
}

async function showDetour(show: Show): Promise<number> {
  show.print(formatHeading('3. fw takes the MAC address of ids2 for that of ids1: a leg astray'));
  const mac = await readMac(show, 'ids2');
  await run(show, 'fw', `ip neigh replace 10.0.0.3 lladdr ${mac} dev mesh0 nud permanent`);
  await send(show, 500);
  await ask(show, 'gw', '/v1/paths?verdict=detour&limit=1');
  await run(show, 'fw', 'ip neigh del 10.0.0.3 dev mesh0');
  return 500;
}

async function showForgery(show: Show): Promise<void> {
  show.print(formatHeading(`4. The guest sends ${forgeries} packets with a source route of its own`));
  show.print(
    colors.dim('UDP with IP_OPTIONS 131 7 4 10.0.0.2: LSRR over fw, which no rule of the mesh says'),
  );
  const forge = `import socket as s
u = s.socket(s.AF_INET, s.SOCK_DGRAM)
u.setsockopt(s.IPPROTO_IP, s.IP_OPTIONS, bytes([131, 7, 4, 10, 0, 0, 2]))
for i in range(${forgeries}): u.sendto(b'x', ('${server}', 8001))`;
  await inNamespace(`${show.lab.prefix}guest`, ['python3', '-c', forge], { signal: show.signal });
  await ask(show, 'fw', '/v1/paths?verdict=forged');
}

async function showStandstill(show: Show): Promise<number> {
  show.print(formatHeading('5. The agent of gw stands still for three seconds; its programs do not'));
  const { pid } = await callApi<Status>(apiSocket(show.lab, 'gw'), { path: '/v1/status' });
  show.print(formatPrompt(`kill -STOP ${pid}`));
  process.kill(pid, 'SIGSTOP');
  try {
    await send(show, 500);
    await sleep(3000, undefined, { signal: show.signal });
  } finally {
    show.print(formatPrompt(`kill -CONT ${pid}`));
    process.kill(pid, 'SIGCONT');
  }
  return 500;
}

/** Each packet ended up somewhere. */
async function showAccount(show: Show, sent: number): Promise<void> {
  show.print(formatHeading('6. Is every packet accounted for?'));
  const records = await readRecords(show, 'gw');
  const others = (await Promise.all(agents.slice(0, -1).map((host) => readRecords(show, host)))).flat();
  const summaries = await readSummaries(show);
  const legs = listLegs(summaries);
  const lost = sumPackets(legs);
  const dropped = sumPackets(
    summaries.flatMap(({ paths }) => paths.flatMap(({ drops }) => Object.values(drops))),
  );
  const withVerdict = (verdict: string): number =>
    sumPackets([...records, ...others].filter((record) => record.verdict === verdict));
  const rows = [
    ['sent into the chain', sent],
    ['recorded, complete', withVerdict('complete')],
    ['recorded, with a detour over ids2', withVerdict('detour')],
    ['lost on the way to ids1, while it was dead', lost],
    ['dropped', dropped],
    ['forged, beside those', withVerdict('forged')],
  ];
  show.print(formatTable(['what', 'packets'], rows));
  const told = withVerdict('complete') + withVerdict('detour') + lost + dropped;
  const astray = legs.filter(({ to, packets }) => packets !== 0 && to !== 'ids1');
  if (told !== sent || withVerdict('forged') !== forgeries || astray.length > 0)
    throw new LsrError(
      'LAB',
      `${sent} packets were sent, and ${told} are told of; lost elsewhere: ${JSON.stringify(astray)}`,
    );
  if (withVerdict('detour') === 0) throw new LsrError('LAB', 'the leg astray was not found');
  show.print(
    `\n${colors.bold(colors.green(`each of ${sent} packets is accounted for, and nothing was invented`))}`,
  );
}

/** So many flows of one packet each, some hundred a second. */
async function send({ lab, print, signal }: Show, flows: number): Promise<void> {
  const loop = `for ((i = 1; i <= ${flows}; i++)); do printf x >/dev/udp/${server}/8001; ((i % 20)) || sleep 0.02; done`;
  print(formatPrompt(`ip netns exec ${lab.prefix}client bash -c '${loop}'`));
  await inNamespace(`${lab.prefix}client`, ['bash', '-c', loop], { signal });
}

async function run({ lab, print, signal }: Show, host: string, command: string): Promise<void> {
  print(formatPrompt(`ip netns exec ${lab.prefix}${host} ${command}`));
  await inNamespace(lab.prefix + host, command.split(' '), { signal });
}

/** What the API of a host answers to anybody on that host. */
async function ask(show: Show, host: string, path: string): Promise<void> {
  const url = `http://127.0.0.1:7913${path}`;
  const namespace = show.lab.prefix + host;
  show.print(formatPrompt(`ip netns exec ${namespace} curl -s '${url}'`));
  const text = await inNamespace(namespace, ['curl', '-s', url], { signal: show.signal });
  show.print(colors.dim(formatJson(JSON.parse(text))));
}

async function readMac({ lab, signal }: Show, host: string): Promise<string> {
  const text = await inNamespace(lab.prefix + host, ['ip', '-json', 'link', 'show', 'mesh0'], { signal });
  return (JSON.parse(text) as { address: string }[])[0]?.address ?? '';
}

async function untilAllUp({ lab, signal }: Show): Promise<void> {
  for (;;) {
    const { chains } = await callApi<{ chains: ChainView[] }>(apiSocket(lab, 'edge'), { path: '/v1/chains' });
    if (chains.every(({ paths }) => paths.every(({ state }) => state === 'up'))) return;
    await sleep(100, undefined, { signal });
  }
}

const readSummaries = ({ lab }: Show): Promise<Summary[]> =>
  Promise.all(
    agents.map((host) => callApi<Summary>(apiSocket(lab, host), { path: '/v1/chains/web/summary' })),
  );

async function readRecords({ lab }: Show, host: string): Promise<PathRecord[]> {
  const records: PathRecord[] = [];
  let cursor: string | undefined;
  do {
    const page: PathsPage = await callApi<PathsPage>(apiSocket(lab, host), {
      path: '/v1/paths',
      query: { limit: 1000, cursor },
    });
    records.push(...page.records);
    cursor = page.nextCursor ?? undefined;
  } while (cursor !== undefined);
  return records;
}

const sumPackets = (counted: readonly { packets: number }[]): number =>
  counted.reduce((sum, { packets }) => sum + packets, 0);
