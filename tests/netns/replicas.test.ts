/**
 * A chain with a stateful firewall and two hosts for the next service, and what becomes of its flows when hosts die.
 *
 *   client ── edge ──┬── fw ──┬── gw ── server      chain web: edge → fw → ids1 | ids2 → gw, and back the same way
 *                    ├─ ids1 ─┤
 *                    └─ ids2 ─┘                     behind each ids a sensor that gets copies
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import type { ChainView } from '../../src/api-schemas.js';
import { callApi } from '../../src/client.js';
import { apiSocket, packageFile, program, startAgent } from '../../src/lab-standing.js';
import { enterNamespace, functionsTopology } from '../../src/lab-topology.js';
import type { Mesh } from '../../src/mesh.js';
import { loadMesh } from '../../src/mesh-file.js';
import { putMeshOn } from '../helpers/chains.js';
import { carryStream, server } from '../helpers/delivery.js';
import { createLab, type TestLab } from '../helpers/namespaces.js';
import { capture, findUnbalanced, readDrops, readPaths, readStatus, sumCounts } from '../helpers/wire.js';

const meshFile = packageFile('lab/functions.yaml');
const agents = ['edge', 'fw', 'ids1', 'ids2', 'gw'];
const script = fileURLToPath(new URL('../helpers/echoes.py', import.meta.url));
let lab: TestLab;

test.before(async () => {
  lab = await createLab({ topology: functionsTopology, mesh: meshFile, agents });
  await setFirewall();
});

test.after.always(() => lab?.remove());

/** Stateful: answers pass because their connection is known, and nothing else does. */
const setFirewall = (): Promise<string> =>
  lab.on(
    'fw',
    'sh',
    '-c',
    'printf "%s\\n" "$1" | nft -f -',
    'sh',
    `table ip filter {
      counter established { }
      counter refused { }
      chain forward { type filter hook forward priority 0; policy drop
        ct state invalid drop
        ct state established counter name established accept
        ip saddr 10.1.0.0/24 tcp dport 81 counter name refused reject with tcp reset
        ip saddr 10.1.0.0/24 ct state new accept
        ip saddr 10.0.0.0/24 udp dport 7914 accept
      }
    }`,
  );

async function readCounter(name: string): Promise<number> {
  const printed = await lab.on('fw', 'nft', '-j', 'list', 'counter', 'ip', 'filter', name);
  const { nftables } = JSON.parse(printed) as { nftables: { counter?: { packets: number } }[] };
  return nftables.find((item) => item.counter)?.counter?.packets ?? Number.NaN;
}

const readChain = async (name: string, host = 'edge'): Promise<ChainView> => {
  const { chains } = await callApi<{ chains: ChainView[] }>(apiSocket(lab, host), { path: '/v1/chains' });
  const chain = chains.find((candidate) => candidate.name === name);
  if (!chain) throw new Error(`${host} has no chain ${name}`);
  return chain;
};

const statesOf = async (name: string, host = 'edge'): Promise<Record<string, string>> =>
  Object.fromEntries((await readChain(name, host)).paths.map(({ nodes, state }) => [nodes.join(' '), state]));

/** Waits for what the agents learn by themselves. */
async function waitFor(what: () => Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 15_000; !(await what()); ) {
    if (Date.now() > end) throw new Error('it did not come to that in 15 s');
    await setTimeout(50);
  }
}

async function requireBalance(t: ExecutionContext, hosts = agents): Promise<void> {
  for (const host of hosts) t.deepEqual(findUnbalanced(await readDrops(lab, host)), [], host);
}

test.serial(
  'both ways of a flow take the same hosts, so that a stateful firewall sees a connection',
  async (t) => {
    const ports = Array.from({ length: 12 }, (_, i) => 40_000 + i);
    for (const port of ports) {
      const said = await lab.on('client', 'curl', '-sS', '--local-port', String(port), `http://${server}/`);
      t.regex(said, /Hello from the server/);
    }
    t.true(await carryStream(lab, 5_000_000));
    t.true((await readCounter('established')) > ports.length * 3);
    const there = await readPaths(lab, 'gw');
    const back = await readPaths(lab, 'edge');
    const used = new Set<string>();
    for (const port of ports) {
      const forth = there.find(({ flow }) => flow.sourcePort === port);
      const answer = back.find(({ flow }) => flow.destinationPort === port);
      t.is(forth?.verdict, 'complete');
      t.is(answer?.verdict, 'complete');
      const hops = forth?.recorded.map(({ node }) => node) ?? [];
      t.deepEqual(
        answer?.recorded.map(({ node }) => node),
        [hops[1], 'fw', 'edge'],
      );
      used.add(hops[1] ?? '');
    }
    t.deepEqual([...used].sort(), ['ids1', 'ids2'], 'both replicas have flows');
    await requireBalance(t);
  },
);

test.serial('the firewall refuses port 81 in terms of the client’s own connection', async (t) => {
  const before = await readCounter('refused');
  await t.throwsAsync(lab.on('client', 'curl', '-sS', '--max-time', '5', `http://${server}:81/`), {
    message: /refused|Failed to connect/,
  });
  t.true((await readCounter('refused')) > before);
});

test.serial('each sensor sees the flows of its host, and none of the other’s', async (t) => {
  const fields = ['ip.hdr_len', 'tcp.srcport', 'tcp.dstport'];
  const seen: Record<string, Set<string>> = {};
  const watch = async (sensor: string, action: () => Promise<unknown>): Promise<void> => {
    const rows = await capture(lab, sensor, 'eth0', 'tcp port 80', fields, action);
    t.true(rows.every(([length]) => length === '20'));
    seen[sensor] = new Set(rows.map(([, from, to]) => (to === '80' ? from : to) ?? ''));
  };
  await watch('sensor1', () =>
    watch('sensor2', async () => {
      for (let port = 41_000; port < 41_008; port++)
        await lab.on('client', 'curl', '-sS', '--local-port', String(port), `http://${server}/`);
    }),
  );
  t.is((seen.sensor1?.size ?? 0) + (seen.sensor2?.size ?? 0), 8);
  t.is([...(seen.sensor1 ?? [])].filter((port) => seen.sensor2?.has(port)).length, 0);
});

interface Echoed {
  sent: number;
  received: number;
  /** Longest time without any answer, ms, by flow. */
  gaps: number[];
}

/** Flows of datagrams that the server sends back, while `action` runs. */
async function echo(action: () => Promise<unknown>): Promise<Echoed> {
  const serving = spawn('nsenter', enterNamespace(`${lab.prefix}server`, ['python3', script, 'serve', '7']), {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(serving.stdout, 'data');
  const sending = spawn(
    'nsenter',
    enterNamespace(`${lab.prefix}client`, ['python3', script, 'send', server, '7', '16', '4000']),
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const printed: Buffer[] = [];
  sending.stdout.on('data', (data: Buffer) => printed.push(data));
  const ended = once(sending, 'exit');
  await setTimeout(800);
  await action();
  await ended;
  const gone = once(serving, 'exit');
  serving.kill();
  await gone;
  return JSON.parse(Buffer.concat(printed).toString());
}

test.serial(
  'a host that dies under traffic: its flows move within a second, and no other flow is hit',
  async (t) => {
    t.deepEqual(await statesOf('web'), { 'fw ids1 gw': 'up', 'fw ids2 gw': 'up' });
    const { gaps } = await echo(() => lab.on('ids1', 'ip', 'link', 'set', 'mesh0', 'down'));
    t.log(
      `longest gaps of 16 flows, ms: ${gaps
        .map(Math.round)
        .sort((a, b) => a - b)
        .join(' ')}`,
    );
    t.deepEqual(await statesOf('web'), { 'fw ids1 gw': 'down', 'fw ids2 gw': 'up' });
    t.true(Math.max(...gaps) < 1000 + 500, 'the second, and what a busy test machine adds');
    const spared = gaps.filter((gap) => gap < 300).length;
    t.true(spared >= 3 && spared < gaps.length, `${spared} flows were not on the host that died`);
    t.regex(readFileSync(`${lab.folder}/edge/log`, 'utf8'), /"path":"fw → ids1 → gw".*a path is down/);
  },
);

test.serial('when it is back, its flows come back to it', async (t) => {
  await lab.on('ids1', 'ip', 'link', 'set', 'mesh0', 'up');
  for (const route of ['10.9.0.0/24 via 10.0.0.4', '10.1.0.0/24 via 10.0.0.1'])
    await lab.on('ids1', 'ip', 'route', 'replace', ...route.split(' '));
  await waitFor(async () => (await statesOf('web'))['fw ids1 gw'] === 'up');
  const before = sumCounts(await readDrops(lab, 'ids1'), 'advanced');
  for (let port = 42_000; port < 42_012; port++)
    await lab.on('client', 'curl', '-sS', '--local-port', String(port), `http://${server}/`);
  t.true(sumCounts(await readDrops(lab, 'ids1'), 'advanced') > before + 10);
});

test.serial('an agent that starts anew keeps to the paths that were up', async (t) => {
  await lab.on('ids2', 'ip', 'link', 'set', 'mesh0', 'down');
  await waitFor(async () => (await statesOf('web'))['fw ids2 gw'] === 'down');
  const pid = Number(readFileSync(`${lab.folder}/edge/pid`, 'utf8'));
  process.kill(pid, 'SIGKILL');
  await waitFor(async () => {
    try {
      process.kill(pid, 0);
      return false;
    } catch {
      return true;
    }
  });
  await startAgent(lab, 'edge');
  t.deepEqual(await statesOf('web'), { 'fw ids1 gw': 'up', 'fw ids2 gw': 'down' });
  await lab.on('ids2', 'ip', 'link', 'set', 'mesh0', 'up');
  for (const route of ['10.9.0.0/24 via 10.0.0.4', '10.1.0.0/24 via 10.0.0.1'])
    await lab.on('ids2', 'ip', 'route', 'replace', ...route.split(' '));
  await waitFor(async () => (await statesOf('web'))['fw ids2 gw'] === 'up');
  await requireBalance(t);
});

test.serial(
  'a drained host keeps the connections that it has until its time is up, and gets no other',
  async (t) => {
    const api = ['--api', apiSocket(lab, 'edge')];
    const run = (...words: string[]): Promise<string> =>
      lab.on('edge', process.execPath, program, ...api, ...words);
    const fetch = (port: number): Promise<string> =>
      lab.on('client', 'curl', '-sS', '--local-port', String(port), `http://${server}/`);
    await fetch(44_000);
    const begun = new Date().toISOString();
    const carried = carryStream(lab, 500_000_000);
    await waitFor(async () => (await listTransfers(begun)).length > 0);
    const [used = ''] = await listTransfers(begun);
    t.regex(await run('drain', used, '--deadline', '600'), new RegExp(`^NODE.*\n${used} +new flows`, 's'));
    for (let port = 44_001; port < 44_010; port++) await fetch(port);
    t.deepEqual(await listTransfers(begun), [used], 'the transfer has not moved');
    const fresh = (await readPaths(lab, 'gw')).filter(
      ({ flow }) => (flow.sourcePort ?? 0) > 44_000 && (flow.sourcePort ?? 0) < 44_010,
    );
    t.is(fresh.length, 9);
    t.false(fresh.some(({ recorded }) => recorded[1]?.node === used));
    await callApi(apiSocket(lab, 'edge'), {
      method: 'PUT',
      path: '/v1/drains',
      body: JSON.stringify({ drains: [{ node: used, until: new Date().toISOString() }] }),
      contentType: 'application/json',
    });
    t.true(await carried);
    t.deepEqual((await listTransfers(begun)).sort(), ['ids1', 'ids2'], 'now it has');
    t.regex(await run('drain', used, '--undo'), /no node is drained/);
  },
);

/** Over which hosts the stream between client and server has gone. */
async function listTransfers(since: string): Promise<string[]> {
  const records = (await readPaths(lab, 'gw', `?since=${since}`)).filter(
    ({ flow, packets }) => flow.destinationPort === 5001 && packets > 2000,
  );
  return [...new Set(records.map(({ recorded }) => recorded[1]?.node ?? ''))];
}

const { mesh } = loadMesh(meshFile);
const change = (services: Mesh['services']): Mesh => ({
  ...mesh,
  services: { ...mesh.services, ...services },
});

test.serial('a host whose function fails its check gets no flows, though the host is well', async (t) => {
  const listen = (host: string) =>
    spawn(
      'nsenter',
      enterNamespace(lab.prefix + host, ['socat', 'TCP-LISTEN:9999,fork,reuseaddr', 'STDOUT']),
      {
        stdio: 'ignore',
      },
    );
  const functions = { ids1: listen('ids1'), ids2: listen('ids2') };
  const checked = change({
    ids: { nodes: ['ids1', 'ids2'], function: 'tap', device: 'tap0', check: { tcp: 9999 } },
  });
  for (const host of [...agents].reverse()) await putMeshOn(lab, host, checked);
  const ended = once(functions.ids2, 'exit');
  functions.ids2.kill();
  await ended;
  await waitFor(async () => (await statesOf('web'))['fw ids2 gw'] === 'down');
  t.is((await statesOf('web'))['fw ids1 gw'], 'up');
  const { state, functions: told } = await readStatus(lab, 'ids2');
  t.is(state, 'degraded');
  t.regex(told[0]?.error ?? '', /service "ids" fails its check: .*ECONNREFUSED/);
  t.true(sumCounts(await readDrops(lab, 'ids2'), 'unwell') > 0, 'its probes are dropped');
  for (let port = 45_000; port < 45_006; port++)
    t.regex(
      await lab.on('client', 'curl', '-sS', '--local-port', String(port), `http://${server}/`),
      /Hello/,
    );
  functions.ids2 = listen('ids2');
  await waitFor(async () => (await statesOf('web'))['fw ids2 gw'] === 'up');
  for (const process of Object.values(functions)) process.kill();
});

test.serial(
  'with all its hosts away a service is skipped where the mesh says so, and the record tells',
  async (t) => {
    const skipping = change({
      ids: { nodes: ['ids1', 'ids2'], function: 'tap', device: 'tap0', unavailable: 'skip' },
    });
    for (const host of [...agents].reverse()) await putMeshOn(lab, host, skipping);
    for (const host of ['ids1', 'ids2']) await lab.on(host, 'ip', 'link', 'set', 'mesh0', 'down');
    await waitFor(async () => {
      const states = await statesOf('web');
      return states['fw ids1 gw'] === 'down' && states['fw ids2 gw'] === 'down';
    });
    await waitFor(async () => (await statesOf('web/return', 'gw'))['ids1 fw edge'] === 'down');
    t.regex(
      await lab.on('client', 'curl', '-sS', '--max-time', '5', '--local-port', '43000', `http://${server}/`),
      /Hello/,
    );
    const record = (await readPaths(lab, 'gw')).find(({ flow }) => flow.sourcePort === 43_000);
    t.like(record, { verdict: 'skipped', reasons: ['unavailable:ids'] });
    t.deepEqual(
      record?.recorded.map(({ node }) => node),
      ['fw', 'gw'],
    );
  },
);

test.serial('without that its packets are dropped, and counted', async (t) => {
  for (const host of [...agents].reverse().filter((name) => !name.startsWith('ids')))
    await putMeshOn(lab, host, mesh);
  await waitFor(async () => Object.values(await statesOf('web')).every((state) => state === 'down'));
  const before = sumCounts(await readDrops(lab, 'edge'), 'unavailable');
  await t.throwsAsync(lab.on('client', 'curl', '-sS', '--max-time', '1', `http://${server}/`));
  t.true(sumCounts(await readDrops(lab, 'edge'), 'unavailable') > before);
});
