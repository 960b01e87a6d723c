import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ChainView } from './api-schemas.js';
import { callApi } from './client.js';
import { colors } from './colors.js';
import { LsrError } from './errors.js';
import type { Print } from './lab-demo.js';
import { formatHeading, formatPrompt, showProgram } from './lab-drawing.js';
import { startProcess } from './lab-processes.js';
import { apiSocket, hostFolder, type Lab, packageFile, raiseLab } from './lab-standing.js';
import { inNamespace } from './lab-topology.js';
import type { PathRecord } from './record.js';

export const functionsMesh = packageFile('lab/functions.yaml');
const agents = ['edge', 'fw', 'ids1', 'ids2', 'gw'] as const;
const server = '10.9.0.10';

export function drawFunctionsLab(): string {
  return `
   client ── edge ───────┬───── fw ─────┬───── gw ── server: nginx
                         │   nftables   │
                         ├──── ids1 ────┤      behind each ids a sensor: a copy of each packet
                         └──── ids2 ────┘

   chain "web":  client → edge → fw → ids1 or ids2 → gw → server, and back over the same hosts`.slice(1);
}

/** Shows what functions of hops do, and what becomes of a transfer when a host dies. Throws LAB when a step does not give what it must. */
export async function demonstrateFunctions(lab: Lab, print: Print, signal: AbortSignal): Promise<void> {
  print(`${drawFunctionsLab()}\n`);
  await raiseLab(lab, { mesh: functionsMesh, agents, serve: startNginx, signal });
  await inNamespace(`${lab.prefix}fw`, ['nft', '-f', '-'], { input: firewall, signal });
  print(`agents run on ${agents.join(', ')}; fw has a stateful firewall in its own nftables.`);
  await showFirewall(lab, print, signal);
  await showFailover(lab, print, signal);
}

const firewall = `table ip filter {
  counter refused { }
  chain forward {
    type filter hook forward priority 0; policy drop
    ct state invalid drop
    ct state established,related accept
    ip saddr 10.1.0.0/24 tcp dport 81 counter name refused reject with tcp reset
    ip saddr 10.1.0.0/24 ct state new accept
    ip saddr 10.0.0.0/24 udp dport 7914 accept comment "probes of the agents"
  }
}
`;

async function showFirewall(lab: Lab, print: Print, signal: AbortSignal): Promise<void> {
  print(formatHeading('1. The firewall is this host’s nftables: it sees the true flow, both ways'));
  const curl = (port: number): string[] => ['curl', '-sS', '--max-time', '5', `http://${server}:${port}/`];
  print(formatPrompt(`ip netns exec ${lab.prefix}client curl http://${server}:80/`));
  print(await inNamespace(`${lab.prefix}client`, curl(80), { signal }));
  print(formatPrompt(`ip netns exec ${lab.prefix}client curl http://${server}:81/`));
  const refused = await inNamespace(`${lab.prefix}client`, curl(81), { signal }).then(
    () => null,
    (error: Error) => error.message.replace(/.*(curl: .*)/s, '$1'),
  );
  if (refused === null) throw new LsrError('LAB', 'port 81 was reached, though nftables on fw refuses it');
  print(refused);
  print(formatPrompt(`ip netns exec ${lab.prefix}fw nft list counter ip filter refused`));
  const counted = await inNamespace(
    `${lab.prefix}fw`,
    ['nft', 'list', 'counter', 'ip', 'filter', 'refused'],
    { signal },
  );
  print(counted);
  if (!/packets [1-9]/.test(counted)) throw new LsrError('LAB', 'nftables on fw has refused nothing');
}

async function showFailover(lab: Lab, print: Print, signal: AbortSignal): Promise<void> {
  print(formatHeading('2. A transfer goes through one of the two hosts of the IDS. That host is cut off'));
  const command = [
    'curl',
    '-sS',
    '-o',
    '/dev/null',
    '-w',
    '%{size_download} bytes in %{time_total} s',
    `http://${server}/big`,
  ];
  print(
    formatPrompt(`ip netns exec ${lab.prefix}client ${command.slice(0, -1).join(' ')} http://${server}/big`),
  );
  const transfer = inNamespace(`${lab.prefix}client`, command, { signal });
  transfer.catch(() => undefined); // awaited below
  await sleep(1500, undefined, { signal });
  const [before] = await readBigTransfer(lab);
  const used = before?.recorded[1]?.node ?? '';
  if (!used.startsWith('ids')) throw new LsrError('LAB', 'the transfer is not under way after 1.5 s');
  print(`the transfer goes over ${describeWay(before)}`);
  print(formatPrompt(`ip -n ${lab.prefix}${used} link set mesh0 down`));
  await inNamespace(`${lab.prefix}${used}`, ['ip', 'link', 'set', 'mesh0', 'down'], { signal });
  print(await transfer);
  print(formatPrompt(showProgram('--api', apiSocket(lab, 'edge'), 'chains')));
  const { chains } = await callApi<{ chains: ChainView[] }>(apiSocket(lab, 'edge'), { path: '/v1/chains' });
  for (const { nodes, state, share } of chains.find(({ name }) => name === 'web')?.paths ?? [])
    print(`  ${nodes.join(' → ')}: ${state}, ${Math.round(share * 100)} % of the flows`);
  print(formatPrompt(`ip netns exec ${lab.prefix}gw curl -s http://127.0.0.1:7913/v1/paths`));
  const records = await readBigTransfer(lab);
  for (const record of records)
    print(`  ${describeWay(record)}: ${record.packets} packets, verdict ${record.verdict}`);
  const complete = records.every(({ verdict }) => verdict === 'complete');
  if (records.length !== 2 || !complete)
    throw new LsrError('LAB', 'gw must have a complete record of the transfer over each of the two hosts');
  print(
    `\n${colors.bold(colors.green(`the transfer survived ${used}: its packets went on over the other host`))}`,
  );
}

const describeWay = (record: PathRecord | undefined): string =>
  record?.recorded.map(({ node, address }) => node ?? address).join(' → ') ?? '-';

/** The records of the flow with most packets, the first way first. */
async function readBigTransfer(lab: Lab): Promise<PathRecord[]> {
  const { records } = await callApi<{ records: PathRecord[] }>(apiSocket(lab, 'gw'), { path: '/v1/paths' });
  const most = records.reduce<PathRecord | undefined>(
    (best, record) => (best && best.packets >= record.packets ? best : record),
    undefined,
  );
  return records
    .filter(({ flow }) => flow.sourcePort === most?.flow.sourcePort)
    .sort((a, b) => a.firstSeen.localeCompare(b.firstSeen));
}

/** Serves a page, and something that takes some seconds to fetch. */
async function startNginx(lab: Lab, signal?: AbortSignal): Promise<void> {
  const folder = hostFolder(lab, 'server');
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}/index.html`, 'Hello from nginx, behind fw and an ids.\n');
  writeFileSync(`${folder}/big`, Buffer.alloc(48 << 20));
  copyFileSync(packageFile('lab/nginx.conf'), `${folder}/nginx.conf`);
  const command = [
    'nginx',
    '-p',
    `${folder}/`,
    '-c',
    `${folder}/nginx.conf`,
    '-e',
    `${folder}/error.log`,
    '-g',
    'daemon off;',
  ];
  const isReady = (): Promise<boolean> =>
    inNamespace(`${lab.prefix}server`, ['curl', '-sf', 'http://127.0.0.1/'], { signal }).then(
      () => true,
      () => false,
    );
  await startProcess({ namespace: `${lab.prefix}server`, folder, command }, isReady, signal);
}
