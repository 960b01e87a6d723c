/**
 * Fail closed: packets of a chain with `onMissing: drop` do not leave the edge un-chained, whatever becomes of
 * programs, tables, interfaces and daemon. `plain` counts those that came to gw by the plain route.
 *
 *   client ── edge ──┬── fw ── ids ──┬── gw ── server        chain safe: edge → fw → ids → gw
 *              │     └─ 10.0.0.0/24 ─┘
 *              └── other0 10.8.0.1/24, not managed
 */
import { rmSync, writeFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import { startProcess } from '../../src/lab-processes.js';
import { agentHosts, apiSocket, hostFolder, program, startAgent } from '../../src/lab-standing.js';
import { enterNamespace, labTopology, type Topology } from '../../src/lab-topology.js';
import type { Mesh } from '../../src/mesh.js';
import { loadNative } from '../../src/native.js';
import { putMesh } from '../helpers/chains.js';
import {
  carryStream,
  type Delivery,
  onEitherWay,
  pingOnce,
  readLedger,
  sendDatagrams,
  server,
  subtractLedger,
  sumLedger,
} from '../helpers/delivery.js';
import { createLab, type TestLab } from '../helpers/namespaces.js';
import { capture, findUnbalanced, readDrops, readStatus, runScapy, sumCounts } from '../helpers/wire.js';

const { hosts, cables } = labTopology;
const topology: Topology = {
  hosts: { ...hosts, edge: { ...hosts.edge, addresses: { ...hosts.edge?.addresses } } },
  cables,
};
const count = 20;
const stream = { size: 100, count, discover: 'want' } as const;

type ChainWords = Pick<Mesh['chains'][string], 'security' | 'onMissing'>;
const drop: ChainWords = { security: true };
const bypass: ChainWords = { security: true, onMissing: 'bypass' };

function makeMesh(words: ChainWords, match: Mesh['rules'][number]['match'] = {}): Mesh {
  return {
    version: 1,
    nodes: {
      edge: { address: '10.0.0.1' },
      fw: { address: '10.0.0.2' },
      ids: { address: '10.0.0.3' },
      gw: { address: '10.0.0.4' },
    },
    chains: { safe: { hops: ['fw', 'ids', 'gw'], record: 2, ...words } },
    rules: [
      { name: 'to-server', at: ['edge'], match: { destination: '10.9.0.0/24', ...match }, chain: 'safe' },
    ],
  };
}

let lab: TestLab;
test.before(async () => {
  lab = await createLab({ topology });
});
test.after.always(() => lab?.remove());
test.serial.beforeEach(async (t) => {
  await restore();
  await put(drop);
  await assertChained(t);
});

const put = (words: ChainWords, match?: Mesh['rules'][number]['match']): Promise<void> =>
  putMesh(lab, makeMesh(words, match));

/** Everything as the lab was built, with a running daemon at the edge. */
async function restore(): Promise<void> {
  const status = await readStatus(lab, 'edge').catch(() => null);
  if (status?.state === 'ready') return;
  await killEdge();
  await startAgent(lab, 'edge');
}

async function killEdge(): Promise<void> {
  const status = await readStatus(lab, 'edge').catch(() => null);
  if (status === null) return;
  process.kill(status.pid, 'SIGKILL');
  await waitFor(async () => (await readStatus(lab, 'edge').catch(() => null)) === null);
}

type Sender = 'client' | 'edge';

/** A packet of the client for which mesh0 is no port is imposed at edge0, and dropped there as `not_mesh`. */
const cases: [what: string, from: Sender, action: () => Promise<void>][] = [
  ['mesh0 is made anew', 'edge', () => remake('mesh0')],
  ['edge0 is made anew', 'client', () => remake('edge0')],
  ['both are made anew', 'client', remakeBoth],
  ['both are made anew', 'edge', remakeBoth],
  ['programs and tables are unloaded', 'client', async () => void (await runCli('unload'))],
  ['programs and tables are unloaded', 'edge', async () => void (await runCli('unload'))],
];

for (const [what, from, action] of cases) {
  const send = (): Promise<Delivery> => sendDatagrams(lab, stream, { from });
  test.serial(
    `with bypass, packets of the ${from} leave un-chained when, without a daemon, ${what}`,
    async (t) => {
      await put(bypass);
      t.false((await lab.on('edge', 'nft', 'list', 'tables')).includes('lsr-agent'));
      await killEdge();
      await action();
      const { received, plain } = await observe(send);
      t.deepEqual({ received, plain }, { received: count, plain: count });
    },
  );

  test.serial(
    `with drop, none of the ${from} does when, without a daemon, ${what}; then traffic flows again`,
    async (t) => {
      await killEdge();
      await action();
      await assertClosed(t, send);
      await startAgent(lab, 'edge');
      await assertChained(t);
    },
  );
}

async function remakeBoth(): Promise<void> {
  await remake('edge0');
  await remake('mesh0');
}

test.serial('a daemon that is killed leaves a chain that works, and a backstop that lets it', async (t) => {
  const before = await readStopped();
  await assertNoLoss(t, async () => {
    await killEdge();
    await startAgent(lab, 'edge');
  });
  t.is(await readStopped(), before);
});

test.serial(
  'security comes and goes under traffic without a loss, and never un-chained while it is there',
  async (t) => {
    await assertNoLoss(t, async () => {
      for (const words of [bypass, drop, {}, drop]) await put(words);
    });
  },
);

/** `action` is done while datagrams are on their way: all arrive, none un-chained. */
async function assertNoLoss(t: ExecutionContext, action: () => Promise<void>): Promise<void> {
  const many = 2000;
  const before = await readAdvanced();
  const { sent, received, plain } = await observe(async () => {
    const sending = sendDatagrams(lab, { ...stream, count: many });
    await waitFor(async () => (await readAdvanced()) > before + 20);
    await action();
    t.true((await readAdvanced()) < before + many, 'it was done before the last datagram');
    return sending;
  });
  t.deepEqual({ sent, received, plain }, { sent: many, received: many, plain: 0 });
}

for (const [name, direction] of [
  ['mesh0', 'egress'],
  ['mesh0', 'ingress'],
  ['edge0', 'egress'],
  ['edge0', 'ingress'],
] as const) {
  test.serial(
    `a program that somebody takes off ${name} at ${direction} is back within a second`,
    async (t) => {
      let detached = 0;
      const before = await readAdvanced();
      const ledger = await readAll();
      const rows = await capture(lab, 'gw', 'mesh0', plainFilter, ['frame.time_epoch'], async () => {
        const sending = sendDatagrams(lab, { ...stream, count: 1000 });
        await waitFor(async () => (await readAdvanced()) > before + 20);
        detached = Date.now();
        detach(name, direction);
        await waitFor(
          async () => (await readStatus(lab, 'edge')).state === 'ready' && isAttached(name, direction),
        );
        const back = Date.now() - detached;
        const { sent, received } = await sending;
        t.log(`back after ${back} ms`);
        t.true(back < 1000);
        const lost = sumLedger(subtractLedger(await readAll(), ledger));
        t.is(sent, received + lost, `${lost} dropped by name`);
      });
      t.log(`${rows.length} packets un-chained before the daemon noticed`);
      for (const [time] of rows) t.true(Number(time) * 1000 - detached < 1000);
      await assertChained(t);
    },
  );
}

test.serial('at boot the backstop stands before there is a daemon, and ends with it', async (t) => {
  await killEdge();
  t.deepEqual(JSON.parse(await runCli('unload', '--bypass', '--json')).dropped, []);
  const open = await observe(() => sendDatagrams(lab, stream));
  t.is(open.plain, count, 'the negative control');
  t.deepEqual(JSON.parse(await runCli('backstop', '--json')), { node: 'edge', chains: ['safe'], ports: [] });
  await assertClosed(t, () => sendDatagrams(lab, stream));
  await startAgent(lab, 'edge');
  await assertChained(t);
  await t.throwsAsync(runCli('backstop'), { message: /another lsr-agent already runs/ });
  await killEdge();
  t.deepEqual(
    JSON.parse(await runCli('backstop', '--json')).ports.sort(),
    ['edge0', 'mesh0'],
    'what is in force stays so',
  );
  const { received, plain } = await observe(() => sendDatagrams(lab, stream));
  t.deepEqual({ received, plain }, { received: count, plain: 0 });
});

test.serial('programs without tables let nothing through', async (t) => {
  const folder = hostFolder(lab, 'edge');
  await killEdge();
  await runCli('unload');
  rmSync(`${folder}/mesh.last-good.yaml`);
  writeFileSync(`${folder}/mesh.yaml`, 'version: 2\n');
  const namespace = `${lab.prefix}edge`;
  const command = [process.execPath, program, 'daemon', '--config', `${folder}/agent.yaml`];
  await startProcess({ namespace, folder, command }, async () => {
    const status = await readStatus(lab, 'edge').catch(() => null);
    return status?.state === 'degraded' && status.interfaces.every(({ attached }) => attached !== null);
  });
  t.is((await readStatus(lab, 'edge')).generation, 0);
  await assertClosed(t, () => sendDatagrams(lab, stream));
  writeFileSync(`${folder}/mesh.yaml`, JSON.stringify(makeMesh(drop)));
  await waitFor(async () => (await readStatus(lab, 'edge')).state === 'ready');
  await assertChained(t);
});

test.serial('unload stays closed and says so, unless bypass is asked for', async (t) => {
  await killEdge();
  t.regex(await runCli('unload'), /the backstop stays: packets of safe are dropped/);
  await assertClosed(t, () => sendDatagrams(lab, stream));
  t.notRegex(await runCli('unload', '--bypass'), /backstop/);
  const { received, plain } = await observe(() => sendDatagrams(lab, stream));
  t.deepEqual({ received, plain }, { received: count, plain: count });
});

test.serial('to a dead hop nothing goes un-chained', async (t) => {
  const before = await readStopped();
  await lab.on('fw', 'ip', 'link', 'set', 'mesh0', 'down');
  t.teardown(async () => {
    await lab.on('fw', 'ip', 'link', 'set', 'mesh0', 'up');
    for (const way of hosts.fw?.routes ?? []) await lab.on('fw', 'ip', 'route', 'replace', ...way.split(' '));
    await waitFor(async () => (await pingOnce(lab, 100, 'dont')).received === 1);
  });
  const { received, plain } = await observe(() => sendDatagrams(lab, stream));
  t.deepEqual({ received, plain }, { received: 0, plain: 0 });
  t.is(await readStopped(), before, 'the chain is in force; the hop is not there');
});

const kinds: [what: string, send: () => Promise<unknown>][] = [
  ['fragments', () => pingOnce(lab, 4028, 'dont')],
  ['packets with DF', () => pingOnce(lab, 1400, 'do')],
  ['local sockets', () => sendDatagrams(lab, stream, { from: 'edge' })],
  [
    'datagrams of local sockets that leave in fragments',
    () => sendDatagrams(lab, { ...stream, size: 4000 }, { from: 'edge' }),
  ],
  ['a TCP connection', () => fail(lab.on('client', 'curl', '-sS', '--max-time', '1', `http://${server}/`))],
  [
    'a TCP connection of this host',
    () => fail(lab.on('edge', 'curl', '-sS', '--max-time', '1', `http://${server}/`)),
  ],
  ["the outer packets of this host's tunnel", sendThroughTunnel],
  [
    'another protocol',
    () => runScapy(lab, 'client', `send(IP(dst='${server}', proto=47)/Raw(b'x' * 100), count=3)`),
  ],
];

/** They have the tunnel as their input interface (net/ipv4/ip_output.c, ip_output), and are this host's all the same. */
async function sendThroughTunnel(): Promise<void> {
  const type = ['type', 'vxlan', 'id', '7', 'dstport', '4789', 'local', '10.0.0.1', 'remote', server];
  await lab.on('edge', 'ip', 'link', 'add', 'tunnel7', ...type);
  await lab.on('edge', 'ip', 'address', 'add', '192.168.7.1/24', 'dev', 'tunnel7');
  await lab.on('edge', 'ip', 'link', 'set', 'tunnel7', 'up');
  await pingOnce(lab, 100, 'dont', { from: 'edge', address: '192.168.7.2' });
  await lab.on('edge', 'ip', 'link', 'del', 'tunnel7');
}

test.serial('it is so for every kind of packet', async (t) => {
  await killEdge();
  await remakeBoth();
  for (const [what, send] of kinds) {
    const before = await readStopped();
    const { plain } = await observe(send);
    t.is(plain, 0, what);
    t.true((await readStopped()) > before, what);
  }
});

async function fail(running: Promise<unknown>): Promise<void> {
  await running.then(
    () => {
      throw new Error('it went through');
    },
    () => undefined,
  );
}

test.serial('what no rule matches is untouched, and fragments go with their rule', async (t) => {
  await put(drop, { protocol: 'udp', destinationPorts: [9] });
  await killEdge();
  await remakeBoth();
  t.is((await pingOnce(lab, 100, 'dont')).received, 1);
  t.true(await carryStream(lab, 1_000_000));
  t.regex(await lab.on('edge', 'curl', '-sS', `http://${server}/`), /Hello from the server/);
  const others = "import socket; s = socket.socket(2, 2); s.sendto(bytes(100), ('10.9.0.10', 10))";
  t.is((await observe(() => lab.on('client', 'python3', '-c', others))).plain, 1);
  await assertClosed(t, () => sendDatagrams(lab, stream));
  const long = others.replace('100', '4000');
  for (const host of ['client', 'edge']) {
    const before = await readStopped();
    const { plain } = await observe(() => onEitherWay(lab, host, ['python3', '-c', long]));
    t.is(plain, 0, `fragments of ${host}`);
    t.true((await readStopped()) > before);
  }
});

test.serial('NAT and conntrack of the edge work behind it, and do not open it', async (t) => {
  const rules = [
    'table ip nat {',
    ' chain in { type nat hook prerouting priority -100; ip daddr 10.1.0.99 dnat to 10.9.0.10; }',
    ' chain own { type nat hook output priority -100; ip daddr 10.1.0.99 dnat to 10.9.0.10; }',
    ' chain out { type nat hook postrouting priority 100; oifname "mesh0" masquerade; }',
    ' chain pass { type filter hook forward priority 0; ct state invalid counter drop; }',
    '}',
  ];
  await lab.on('edge', 'sh', '-c', 'printf "%s\\n" "$1" | nft -f -', 'sh', rules.join('\n'));
  t.teardown(() => lab.on('edge', 'nft', 'delete', 'table', 'ip', 'nat'));
  const before = await readStopped();
  const page = (host: string, address: string): Promise<string> =>
    lab.on(host, 'curl', '-sS', '--max-time', '2', `http://${address}/`);
  const { plain } = await observe(async () => {
    // 10.1.0.99 is routed to edge0 until NAT has seen the packet.
    t.regex(await page('edge', '10.1.0.99'), /You are 10\.0\.0\.1,/);
    await lab.on('client', 'ip', 'route', 'replace', '10.1.0.99', 'via', '10.1.0.1');
    t.regex(await page('client', '10.1.0.99'), /You are 10\.0\.0\.1,/);
    t.regex(await page('client', server), /You are 10\.0\.0\.1,/);
  });
  t.is(plain, 0);
  t.is(await readStopped(), before, 'nothing that is well is dropped');
  await killEdge();
  await remakeBoth();
  for (const [host, address] of [
    ['client', '10.1.0.99'],
    ['client', server],
    ['edge', '10.1.0.99'],
    ['edge', server],
  ] as const) {
    const closed = await observe(() => fail(page(host, address)));
    t.is(closed.plain, 0, `${host} to ${address}`);
  }
});

test.serial('a firewall that flushes everything does not open it for long', async (t) => {
  const hasTable = async (): Promise<boolean> =>
    (await lab.on('edge', 'nft', 'list', 'tables')).includes('lsr-agent');
  const { pid } = await readStatus(lab, 'edge');
  process.kill(pid, 'SIGSTOP'); // it may look at any moment
  await lab.on('edge', 'nft', 'flush', 'ruleset');
  t.false(await hasTable());
  process.kill(pid, 'SIGCONT');
  await waitFor(hasTable);
  await killEdge();
  await remakeBoth();
  await assertClosed(t, () => sendDatagrams(lab, stream));
});

test.serial('the agent says what it dropped, and where', async (t) => {
  await killEdge();
  await remakeBoth();
  await sendDatagrams(lab, stream);
  await startAgent(lab, 'edge');
  const view = await readDrops(lab, 'edge');
  const packets = view.backstop.safe?.packets ?? 0;
  t.true(packets >= count);
  t.truthy(view.explanations.backstop);
  const { stdout } = await execa(process.execPath, [program, '--api', apiSocket(lab, 'edge'), 'drops']);
  t.regex(stdout, new RegExp(`^backstop: ${packets} dropped \\(chain safe ${packets}\\)$`, 'm'));
  const metrics = await lab.on('edge', 'curl', '-sS', 'http://127.0.0.1:7913/metrics');
  t.regex(
    metrics,
    new RegExp(`^lsr_dropped_packets_total\\{reason="backstop",chain="safe"\\} ${packets}$`, 'm'),
  );
  t.deepEqual((await readStatus(lab, 'edge')).backstop, { chains: ['safe'], error: null });
});

test.serial('without nft a document that needs it is refused, and says what to install', async (t) => {
  await put({});
  await killEdge();
  const folder = hostFolder(lab, 'edge');
  const hidden = ['unshare', '--mount', 'sh', '-ec', 'mount -t tmpfs none /usr/sbin; exec "$@"', 'sh'];
  const command = [...hidden, process.execPath, program];
  const config = `${folder}/agent.yaml`;
  await startProcess(
    { namespace: `${lab.prefix}edge`, folder, command: [...command, 'daemon', '--config', config] },
    async () => (await readStatus(lab, 'edge').catch(() => null))?.state === 'ready',
  );
  const before = (await readStatus(lab, 'edge')).generation;
  await t.throwsAsync(put(drop), {
    message: /nft is not installed.*apt-get install nftables/,
    code: 'BACKSTOP',
  });
  t.is((await readStatus(lab, 'edge')).generation, before);
  const { received, plain } = await observe(() => sendDatagrams(lab, stream));
  t.deepEqual({ received, plain }, { received: count, plain: 0 }, 'the document in force stays');
  writeFileSync(`${folder}/mesh.yaml`, JSON.stringify(makeMesh(drop)));
  const doctor = await execa(
    'nsenter',
    enterNamespace(`${lab.prefix}edge`, [...command, 'doctor', '--config', config]),
    {
      reject: false,
    },
  );
  t.is(doctor.exitCode, 1);
  t.regex(doctor.stdout, /nftables: needed by chain safe: nft is not installed/);
  await killEdge();
});

test.serial('every packet is counted under exactly one outcome', async (t) => {
  for (const host of agentHosts) t.deepEqual(findUnbalanced(await readDrops(lab, host)), [], host);
});

const plainFilter = `ip dst host ${server}`;

/** What an action returned, and how many packets came to gw un-chained meanwhile. */
async function observe<Result>(action: () => Promise<Result>): Promise<Result & { plain: number }> {
  let result: Result | undefined;
  const rows = await capture(lab, 'gw', 'mesh0', plainFilter, ['ip.dst'], async () => {
    result = await action();
  });
  return { ...(result as Result), plain: rows.length };
}

/** Nothing arrives, nothing is un-chained, and everything that was sent was dropped by name. */
async function assertClosed(t: ExecutionContext, action: () => Promise<Delivery>): Promise<void> {
  const before = await readStopped();
  const { sent, denied, received, plain } = await observe(action);
  t.deepEqual({ sent: sent + denied, received, plain }, { sent: count, received: 0, plain: 0 });
  t.is((await readStopped()) - before, count);
}

/** All arrive, by way of the hops. */
async function assertChained(t: ExecutionContext): Promise<void> {
  await waitFor(async () => (await pingOnce(lab, 100, 'dont')).received === 1);
  const before = await readAdvanced();
  const { sent, received } = await sendDatagrams(lab, stream);
  t.deepEqual({ sent, received }, { sent: count, received: count });
  t.is(await readAdvanced(), before + count);
}

const readAdvanced = async (): Promise<number> => sumCounts(await readDrops(lab, 'ids'), 'advanced');

/** What the backstop has dropped, asked of nftables itself: there may be no daemon. */
async function readStopped(): Promise<number> {
  const printed = await lab.on(
    'edge',
    'sh',
    '-c',
    'nft list counters table ip lsr-agent 2>/dev/null || true',
  );
  return [...printed.matchAll(/packets (\d+)/g)].reduce((sum, [, packets]) => sum + Number(packets), 0);
}

/** All drops of all hosts by name, those of the backstop too. */
async function readAll(): Promise<Record<string, number>> {
  return { ...(await readLedger(lab)), 'edge backstop': await readStopped() };
}

async function runCli(...words: string[]): Promise<string> {
  const config = ['--config', `${hostFolder(lab, 'edge')}/agent.yaml`];
  return lab.on('edge', process.execPath, program, ...words, ...config);
}

const pin = (name: string, direction: string): string => `${lab.bpffs}/edge/links/${name}@${direction}`;

function detach(name: string, direction: string): void {
  const link = loadNative().openPinnedLink(pin(name, direction));
  link.detach();
  link.close();
}

function isAttached(name: string, direction: string): boolean {
  try {
    const link = loadNative().openPinnedLink(pin(name, direction));
    const { ifindex } = link.info;
    link.close();
    return ifindex !== 0;
  } catch {
    return false;
  }
}

/** Deletes an interface of the edge and makes it anew, with its addresses, routes and MAC addresses. */
async function remake(name: string): Promise<void> {
  const [own = '', far = ''] = (cables.find((ends) => ends.includes(`edge:${name}`)) ?? []).toSorted((a) =>
    a.startsWith('edge:') ? -1 : 1,
  );
  const [host = '', device = ''] = far.split(':');
  const [mac, farMac] = [await readMac('edge', name), await readMac(host, device)];
  await lab.on('edge', 'ip', 'link', 'delete', name);
  const near = `name ${name} address ${mac} netns ${lab.prefix}edge`;
  await execa(
    'ip',
    `link add ${near} type veth peer name ${device} address ${farMac} netns ${lab.prefix}${host}`.split(' '),
  );
  for (const [owner, port] of [
    [host, device],
    ['edge', own.split(':')[1] ?? ''],
  ] as const) {
    const { addresses, routes = [], switches = false } = topology.hosts[owner] ?? {};
    const lines = [
      switches ? `link set ${port} master br0` : `address add ${addresses?.[port]} dev ${port}`,
      `link set ${port} up`,
      ...(port === 'edge0' ? [] : routes.map((route) => `route replace ${route}`)),
    ];
    await execa('ip', ['-n', lab.prefix + owner, '-batch', '-'], { input: `${lines.join('\n')}\n` });
  }
}

async function readMac(host: string, name: string): Promise<string> {
  return JSON.parse(await lab.on(host, 'ip', '-j', 'link', 'show', 'dev', name))[0].address;
}

async function waitFor(condition: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error('waited in vain');
    await setTimeout(10);
  }
}
