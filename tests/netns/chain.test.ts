/**
 * The lab of every example, with a real agent in each of the four hosts:
 *
 *   client ── edge ──┬── fw ── ids ──┬── gw ── server        chain web: edge → fw → ids → gw
 *                    └─ 10.0.0.0/24 ─┘
 */
import { existsSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import test from 'ava';
import { formatAddress, parseAddress } from '../../src/address.js';
import { callApi } from '../../src/client.js';
import { apiSocket, applyMesh, directMeshFile, meshFile } from '../../src/lab-standing.js';
import type { Mesh } from '../../src/mesh.js';
import { loadMesh } from '../../src/mesh-file.js';
import { headerAt } from '../../src/path.js';
import { renderMesh } from '../../src/render.js';
import { putMesh } from '../helpers/chains.js';
import { createLab, type TestLab } from '../helpers/namespaces.js';
import { capture, findUnbalanced, readDrops, readPaths, runScapy, sumCounts } from '../helpers/wire.js';

const hosts = ['edge', 'fw', 'ids', 'gw'] as const;
const server = '10.9.0.10';
let lab: TestLab;

test.before(async () => {
  lab = await createLab({ mesh: directMeshFile });
});

test.after.always(() => lab?.remove());

const advanced = async (host: string): Promise<number> => sumCounts(await readDrops(lab, host), 'advanced');

test.serial('without a chain the client reaches the server, and fw and ids see nothing', async (t) => {
  const seen = await capture(lab, 'fw', 'mesh0', 'host 10.1.0.10', ['ip.src'], async () => {
    t.regex(await lab.on('client', 'curl', '-sS', `http://${server}/`), /Hello from the server/);
  });
  t.deepEqual(seen, []);
  t.is(await advanced('fw'), 0);
  t.is(await advanced('ids'), 0);
  t.deepEqual(await readPaths(lab, 'gw'), []);
});

test.serial('with the chain TCP, UDP and ICMP go through fw and ids, and gw records the way', async (t) => {
  await applyMesh(lab, meshFile);
  t.regex(await lab.on('client', 'curl', '-sS', `http://${server}/`), /Hello from the server/);
  t.regex(await lab.on('client', 'ping', '-c', '3', '-i', '0.05', server), / 0% packet loss/);
  const answer =
    "import socket;s=socket.socket(2,2);s.bind(('',9));s.settimeout(5);print('ready',flush=True);d,a=s.recvfrom(99);s.sendto(d.upper(),a)";
  const ask = `import socket;s=socket.socket(2,2);s.settimeout(1)\nfor i in range(5):\n  s.sendto(b'hello',('${server}',9))\n  try: print(s.recv(99).decode()); break\n  except OSError: pass`;
  const [, asked] = await Promise.all([
    lab.on('server', 'python3', '-c', answer),
    lab.on('client', 'python3', '-c', ask),
  ]);
  t.is(asked, 'HELLO');

  const records = await readPaths(lab, 'gw');
  t.deepEqual(
    records.map(({ flow }) => flow.protocol).sort((a, b) => a - b),
    [1, 6, 17],
  );
  for (const record of records) {
    t.is(record.verdict, 'complete');
    t.is(record.chain, 'web');
    t.deepEqual(
      record.recorded.map(({ node }) => node),
      ['fw', 'ids', 'gw'],
    );
    t.deepEqual(record.expected, record.recorded);
    t.deepEqual(record.recordRoute, ['10.0.0.2', '10.0.0.3']);
  }
  t.is(records.find(({ flow }) => flow.protocol === 1)?.packets, 3);
});

test.serial('on every leg tshark reads the bytes that the plan predicts', async (t) => {
  const path = renderMesh(loadMesh(meshFile).mesh).chains.find(({ name }) => name === 'web')?.path;
  if (!path) return t.fail('no chain web');
  const hops = ['fw', 'ids', 'gw'];
  for (const [index, host] of hops.entries()) {
    const expected = headerAt(path, index + 1, parseAddress(server) ?? 0);
    const seen = await capture(
      lab,
      host,
      'mesh0',
      `icmp and dst ${formatAddress(expected.destination)} and ether dst ${await macOf(host)}`,
      ['ip.dst', 'ip.hdr_len', 'ip.ttl', 'ip.checksum.status', 'ip.opt.type', 'ip.opt.ptr'],
      async () => {
        await lab.on('client', 'ping', '-c', '1', server);
      },
    );
    const raw = await captureOptions(host, expected.destination);
    t.is(raw, Buffer.from(expected.options).toString('hex'), `options arriving at ${host}`);
    t.is(seen[0]?.[1], String(20 + expected.options.length));
    t.is(seen[0]?.[2], String(63 - index));
  }
  const plan = JSON.parse(
    await lab.on(
      'edge',
      process.execPath,
      'dist/cli.js',
      '--json',
      'plan',
      meshFile,
      '--from',
      '10.1.0.10',
      '--to',
      server,
      '--protocol',
      'icmp',
    ),
  );
  t.deepEqual(
    plan.legs.slice(0, 3).map(({ options }: { options: string }) => options),
    hops.map((_, index) =>
      Buffer.from(headerAt(path, index + 1, parseAddress(server) ?? 0).options).toString('hex'),
    ),
  );
});

const macOf = async (host: string): Promise<string> =>
  JSON.parse(await lab.on(host, 'ip', '-j', 'link', 'show', 'mesh0'))[0].address;

/** The option bytes as they are on the wire, cut by scapy. */
async function captureOptions(host: string, destination: number): Promise<string> {
  const script = `
s = AsyncSniffer(iface='mesh0', filter='icmp and dst ${formatAddress(destination)}', count=1, timeout=5, started_callback=lambda: print('ready', flush=True))
s.start(); s.join()
p = bytes(s.results[0][IP]); print(p[20:(p[0] & 15) * 4].hex())`;
  const sniffed = runScapy(lab, host, script);
  const stop = Date.now() + 4000;
  let done = false;
  void sniffed.finally(() => {
    done = true;
  });
  while (!done && Date.now() < stop) await lab.on('client', 'ping', '-c', '1', '-W', '1', server);
  return (await sniffed).split('\n').at(-1) ?? '';
}

test.serial('a socket on the edge host itself goes through the chain', async (t) => {
  const before = await advanced('ids');
  t.regex(await lab.on('edge', 'curl', '-sS', `http://${server}/`), /Hello from the server/);
  t.true((await advanced('ids')) > before);
  const records = await readPaths(lab, 'gw', '?source=10.0.0.1');
  t.is(records[0]?.verdict, 'complete');
});

test.serial('bulk TCP fills an MTU of 1500 without a drop, and the MSS is clamped', async (t) => {
  const served = lab.on('server', 'iperf3', '-s', '-1', '--forceflush');
  await waitForPort('server', 5201);
  const report = JSON.parse(await lab.on('client', 'iperf3', '-c', server, '-t', '2', '-J'));
  await served;
  t.log(
    `${(report.end.sum_received.bits_per_second / 1e9).toFixed(2)} Gbit/s, ${report.end.sum_sent.retransmits} retransmits`,
  );
  t.true(report.end.sum_received.bytes > 10_000_000);
  const views = await Promise.all(hosts.map((host) => readDrops(lab, host)));
  t.deepEqual(
    views.map((view) => view.interfaces.flatMap(({ drops }) => Object.entries(drops))),
    [[], [], [], []],
  );
  const edge = await readDrops(lab, 'edge');
  t.true(sumCounts(edge, 'mss_clamped') > 0);
});

async function waitForPort(host: string, port: number): Promise<void> {
  const deadline = Date.now() + 5000;
  while (!(await lab.on(host, 'ss', '-Hltn', `sport = :${port}`))) {
    if (Date.now() > deadline) throw new Error(`nothing listens on port ${port} of ${host}`);
  }
}

test.serial(
  'ping -R from the client is dropped at the edge and counted; between hosts of the mesh it works',
  async (t) => {
    const before = sumCounts(await readDrops(lab, 'edge'), 'edge_option');
    await t.throwsAsync(lab.on('client', 'ping', '-R', '-c', '2', '-i', '0.1', '-W', '1', server));
    t.is(sumCounts(await readDrops(lab, 'edge'), 'edge_option') - before, 2);
    const printed = await lab.on('fw', 'ping', '-R', '-c', '1', '10.0.0.3');
    t.regex(printed, /RR:\s+10\.0\.0\.2\s+10\.0\.0\.3/);
  },
);

test.serial('a source route of a local program is dropped and counted', async (t) => {
  const before = sumCounts(await readDrops(lab, 'fw'), 'local_route');
  await runScapy(
    lab,
    'fw',
    "send(IP(dst='10.0.0.3',options=IPOption_LSRR(routers=['10.0.0.4'],pointer=4))/UDP())",
  ).catch(() => {});
  t.is(sumCounts(await readDrops(lab, 'fw'), 'local_route') - before, 1);
});

test.serial('every packet is counted under exactly one outcome', async (t) => {
  for (const host of hosts) t.deepEqual(findUnbalanced(await readDrops(lab, host)), [], host);
});

test.serial('a strict chain works over direct neighbours, and is refused over a router', async (t) => {
  const { mesh } = loadMesh(meshFile);
  const strict: Mesh = {
    ...mesh,
    chains: { web: { ...mesh.chains.web, hops: ['firewall', 'detector', 'gw'], mode: 'strict' } },
  };
  await putMesh(lab, strict);
  t.regex(await lab.on('client', 'ping', '-c', '2', '-i', '0.05', server), / 0% packet loss/);

  // The next hop is now behind a gateway, though on the same wire.
  await lab.on('fw', 'ip', 'route', 'add', '10.0.0.3/32', 'via', '10.0.0.1');
  const before = sumCounts(await readDrops(lab, 'fw'), 'not_adjacent');
  await t.throwsAsync(lab.on('client', 'ping', '-c', '2', '-i', '0.05', '-W', '1', server));
  t.is(sumCounts(await readDrops(lab, 'fw'), 'not_adjacent') - before, 2);
  await lab.on('fw', 'ip', 'route', 'del', '10.0.0.3/32', 'via', '10.0.0.1');
  await applyMesh(lab, meshFile);
  t.regex(await lab.on('client', 'ping', '-c', '2', '-i', '0.05', server), / 0% packet loss/);
});

test.serial(
  'with one hop without its agent the chain breaks: the kernel honours no source route',
  async (t) => {
    const { folder } = lab;
    const { pid } = await callApi<{ pid: number }>(apiSocket(lab, 'fw'), { path: '/v1/status' });
    await t.throwsAsync(
      lab.on('fw', process.execPath, 'dist/cli.js', 'unload', '--config', `${folder}/fw/agent.yaml`),
      {
        message: /already runs on this host/,
      },
    );
    process.kill(pid, 'SIGTERM');
    await waitForEnd(pid);
    await lab.on('fw', process.execPath, 'dist/cli.js', 'unload', '--config', `${folder}/fw/agent.yaml`);
    await t.throwsAsync(lab.on('client', 'ping', '-c', '2', '-i', '0.05', '-W', '1', server));
  },
);

async function waitForEnd(pid: number): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (existsSync(`/proc/${pid}/fd/0`)) {
    if (Date.now() > deadline) throw new Error(`process ${pid} does not end`);
    await setTimeout(20);
  }
}
