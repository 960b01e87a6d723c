import { colors } from './colors.js';
import { LsrError } from './errors.js';
import { type Capture, startCapture } from './lab-capture.js';
import { drawLab, formatHeading, formatJson, formatPrompt, showFile, showProgram } from './lab-drawing.js';
import {
  agentHosts,
  apiSocket,
  applyMesh,
  directMeshFile,
  type Lab,
  meshFile,
  raiseLab,
} from './lab-standing.js';
import { inNamespace } from './lab-topology.js';
import type { PathRecord } from './record.js';

export type Print = (text: string) => void;

/** Its IANA protocol number. */
const tcp = 6;

interface Watched {
  host: string;
  packets: string[];
}

/** Shows the lab at work, step by step. Throws LAB when a step does not give what it must. */
export async function demonstrateChain(lab: Lab, print: Print, signal: AbortSignal): Promise<void> {
  print(`${drawLab()}\n`);
  await raiseLab(lab, { mesh: directMeshFile, signal });
  print(
    `${lab.prefix}{${Object.keys(lab.topology.hosts).join(',')}} are up; agents run on ${agentHosts.join(', ')}.`,
  );
  await showDirectWay(lab, print, signal);
  await showChain(lab, print, signal);
  await showRecord(lab, print, signal);
}

async function showDirectWay(lab: Lab, print: Print, signal: AbortSignal): Promise<void> {
  print(formatHeading('1. Without a chain: the negative control'));
  const watched = await watchRequest(lab, print, signal);
  for (const { host, packets } of watched) print(`${host} saw ${packets.length} packets of the client`);
  const guilty = watched.filter(({ packets }) => packets.length > 0);
  if (guilty.length === 0) return;
  const lines = guilty.map(({ host, packets }) => `${host}: ${packets[0]}`).join('; ');
  throw new LsrError('LAB', `without a rule the client's packets must not pass fw or ids, but: ${lines}`);
}

async function showChain(lab: Lab, print: Print, signal: AbortSignal): Promise<void> {
  print(formatHeading('2. With the chain "web": edge → fw → ids → gw'));
  for (const host of [...agentHosts.filter((name) => name !== 'edge'), 'edge']) {
    print(formatPrompt(showProgram('--api', apiSocket(lab, host), 'apply', showFile(meshFile))));
  }
  await applyMesh(lab, meshFile, signal);
  const watched = await watchRequest(lab, print, signal);
  for (const { host, packets } of watched) {
    print(`${host} saw ${packets.length} packets of the client; the first, as tcpdump decodes it:`);
    print(colors.dim(`  ${packets[0] ?? '-'}`));
  }
  const missed = watched.filter(({ packets }) => packets.length === 0).map(({ host }) => host);
  if (missed.length > 0)
    throw new LsrError('LAB', `${missed.join(' and ')} saw no packet although the chain names them`);
}

async function showRecord(lab: Lab, print: Print, signal: AbortSignal): Promise<void> {
  print(formatHeading('3. Which way did it go? Ask the last hop'));
  const command = ['curl', '-s', 'http://127.0.0.1:7913/v1/paths'];
  print(formatPrompt(`ip netns exec ${lab.prefix}gw ${command.join(' ')}`));
  const text = await inNamespace(`${lab.prefix}gw`, command, { signal });
  const { records } = JSON.parse(text) as { records: PathRecord[] };
  print(colors.dim(formatJson({ records })));
  const record = records.find(({ flow }) => flow.protocol === tcp && flow.destinationPort === 80);
  if (!record) throw new LsrError('LAB', 'gw has no record of the HTTP request, although it is the last hop');
  const route = record.recorded.map(({ node, address }) => node ?? address).join(' → ');
  const conclusion = `recorded route: ${route}, verdict ${record.verdict}`;
  if (record.verdict !== 'complete') throw new LsrError('LAB', `${conclusion}; it must be complete`);
  print(`\n${colors.bold(colors.green(conclusion))}`);
}

/** Sends the client's HTTP request and returns what fw and ids saw of it. */
async function watchRequest(lab: Lab, print: Print, signal: AbortSignal): Promise<Watched[]> {
  const captures = await Promise.all(['fw', 'ids'].map((host) => watchClient(lab, host, signal)));
  const command = ['curl', '-sS', '--max-time', '10', 'http://10.9.0.10/'];
  print(formatPrompt(`ip netns exec ${lab.prefix}client curl http://10.9.0.10/`));
  print(await inNamespace(`${lab.prefix}client`, command, { signal }));
  return Promise.all(captures.map(async ({ host, capture }) => ({ host, packets: await capture.finish() })));
}

async function watchClient(
  lab: Lab,
  host: string,
  signal: AbortSignal,
): Promise<{ host: string; capture: Capture }> {
  const address = (name: string): string => lab.topology.hosts[name]?.addresses?.mesh0?.split('/')[0] ?? '';
  const marker = { namespace: `${lab.prefix}edge`, source: address('edge'), destination: address(host) };
  const filter = 'host 10.1.0.10';
  const capture = await startCapture({
    namespace: lab.prefix + host,
    interface: 'mesh0',
    filter,
    marker,
    signal,
  });
  return { host, capture };
}
