/**
 * Interfaces that flap, vanish and come back under a running daemon, in the lab of every example. The
 * edge's port towards the client has a name as VLANs have.
 *
 *   client ──edge0.7── edge ──┬── fw ── ids ──┬── gw ── server        chain web: edge → fw → ids → gw
 *                             └─ 10.0.0.0/24 ─┘
 */
import { mkdirSync, readdirSync, rmdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import type { Status } from '../../src/api-schemas.js';
import { callApi } from '../../src/client.js';
import { apiSocket, hostFolder, startAgent } from '../../src/lab-standing.js';
import { labTopology, type Topology } from '../../src/lab-topology.js';
import { loadNative } from '../../src/native.js';
import { createLab, type TestLab } from '../helpers/namespaces.js';
import { capture, findUnbalanced, readDrops, sumCounts } from '../helpers/wire.js';

const server = '10.9.0.10';
/** The promise: so long after an interface is up its programs are there. */
const limitMs = 1000;
const addon = fileURLToPath(new URL('../../build/Release/addon.node', import.meta.url));

const { hosts } = labTopology;
const topology: Topology = {
  hosts: {
    ...hosts,
    edge: { ...hosts.edge, addresses: { mesh0: '10.0.0.1/24', 'edge0.7': '10.1.0.1/24' } },
  },
  cables: labTopology.cables.map((ends) =>
    ends.map((end) => end.replace('edge:edge0', 'edge:edge0.7')),
  ) as Topology['cables'],
};

let lab: TestLab;
test.before(async () => {
  lab = await createLab({ topology });
});
test.after.always(() => lab?.remove());

test.serial('in the lab as it is built every port is attached, and pings pass the chain', async (t) => {
  for (const host of ['edge', 'fw', 'ids', 'gw']) await assertHealthy(t, host);
  await assertChained(t);
});

const ports: [host: string, name: string][] = [
  ['fw', 'mesh0'],
  ['edge', 'mesh0'],
  ['edge', 'edge0.7'],
];
for (const [host, name] of ports) {
  test.serial(`${name} of ${host}, deleted, is missing; made again, it is managed in time`, async (t) => {
    const before = await readStatus(host);
    const received = await readReceived(host, name);
    const lay = await cut(t, host, name);

    const without = await waitForMissing(host, name);
    t.is(without.state, 'degraded');
    const missing = portOf(without, name);
    t.like(missing, { ifindex: null, attached: null, mtu: null, address: null });
    t.is(missing.error, `interface ${name} does not exist`);
    t.false(listPins(host).some((pin) => pin.startsWith(name.replace('.', '%2E'))));
    t.true((await readReceived(host, name)) >= received, 'what it counted is still told');
    t.false(await canPing());
    const { stdout } = await execa(process.execPath, [
      'dist/cli.js',
      '--api',
      apiSocket(lab, host),
      'status',
    ]);
    t.regex(stdout, new RegExp(`^${host} is degraded`));
    t.regex(stdout, new RegExp(`^interface ${name.replace('.', '\\.')} does not exist`, 'm'));
    t.regex(stdout, new RegExp(`${name.replace('.', '\\.')} .*missing`));

    const laid = await lay();
    const after = await waitForPort(t, host, name, laid);
    t.not(portOf(after, name).ifindex, portOf(before, name).ifindex);
    t.deepEqual([after.pid, after.generation], [before.pid, before.generation]);
    await assertHealthy(t, host);
    await assertChained(t);
    t.true((await readReceived(host, name)) > received, 'it counts on where it was');
  });
}

test.serial('an interface that is deleted and made again in one breath is attached anew', async (t) => {
  const before = await readStatus('fw');
  for (let round = 0; round < 3; round++) {
    const lay = await cut(t, 'fw', 'mesh0');
    await waitForPort(t, 'fw', 'mesh0', await lay());
  }
  t.is((await readStatus('fw')).pid, before.pid);
  await assertHealthy(t, 'fw');
  await assertChained(t);
});

test.serial('two ports that come back in another order keep their own counters', async (t) => {
  await lab.on('fw', 'ping', '-c', '20', '-i', '0.01', '10.0.0.1'); // so that one has more than the other
  const before = await Promise.all(['mesh0', 'edge0.7'].map((name) => readReceived('edge', name)));
  const layMesh = await cut(t, 'edge', 'mesh0');
  const layEdge = await cut(t, 'edge', 'edge0.7');
  await waitForStatus('edge', ({ interfaces }) => interfaces.every(({ ifindex }) => ifindex === null));
  t.deepEqual(listPins('edge'), []);
  await waitForPort(t, 'edge', 'edge0.7', await layEdge());
  await waitForPort(t, 'edge', 'mesh0', await layMesh());
  const after = await Promise.all(['mesh0', 'edge0.7'].map((name) => readReceived('edge', name)));
  // A few packets of ARP and the like may have passed meanwhile; the two differ by more.
  for (const [index, count] of after.entries()) t.true(Math.abs(count - (before[index] ?? 0)) < 10);
  t.true((before[0] ?? 0) - (before[1] ?? 0) >= 20);
  await assertHealthy(t, 'edge');
  await assertChained(t);
});

test.serial('an interface that goes down and up again keeps its programs', async (t) => {
  const before = await readStatus('fw');
  await onHost('fw', ['link set mesh0 down']);
  t.false(await canPing());
  t.is((await readStatus('fw')).state, 'ready');
  await onHost('fw', ['link set mesh0 up', ...routesOf('fw')]);
  await assertChained(t);
  const after = await readStatus('fw');
  t.deepEqual(after.interfaces, before.interfaces);
  t.deepEqual([after.pid, after.generation], [before.pid, before.generation]);
  await assertHealthy(t, 'fw');
});

test.serial('an interface with another name is left, and taken again when it has its own', async (t) => {
  const before = portOf(await readStatus('fw'), 'mesh0');
  await onHost('fw', ['link set mesh0 down', 'link set mesh0 name other0', 'link set other0 up']);
  const without = await waitForMissing('fw', 'mesh0');
  t.is(portOf(without, 'mesh0').error, 'interface mesh0 does not exist');
  t.deepEqual(await countPrograms('fw', before.ifindex), [0, 0], 'nothing stays on what is not ours');
  t.deepEqual(listPins('fw'), []);
  await onHost('fw', ['link set other0 down', 'link set other0 name mesh0', 'link set mesh0 up']);
  await onHost('fw', routesOf('fw'));
  const after = await waitForStatus('fw', ({ state }) => state === 'ready');
  t.deepEqual(portOf(after, 'mesh0'), before);
  await assertHealthy(t, 'fw');
  await assertChained(t);
});

test.serial(
  'a new MTU is in force at once, in the status and in the MSS that clients are told',
  async (t) => {
    const before = await readStatus('edge');
    const mss = await readMss();
    t.is(mss, 1500 - 40 - 28, 'MTU less IPv4 and TCP headers and the options of the chain');
    await onHost('edge', ['link set mesh0 mtu 1400']);
    const after = await waitForStatus('edge', (status) => portOf(status, 'mesh0').mtu === 1400);
    t.is(await readMss(), mss - 100);
    t.deepEqual([after.state, after.pid, after.generation], ['ready', before.pid, before.generation]);
    await onHost('edge', ['link set mesh0 mtu 1500']);
    await waitForStatus('edge', (status) => portOf(status, 'mesh0').mtu === 1500);
    t.is(await readMss(), mss);
  },
);

test.serial('addresses that come and go are known at once, and forgotten', async (t) => {
  const owned = ({ maps }: Status): number => maps.find(({ name }) => name === 'addresses')?.entries ?? 0;
  const before = await readStatus('fw');
  await onHost('fw', ['address add 10.0.0.77/24 dev mesh0']);
  await waitForStatus('fw', (status) => owned(status) === owned(before) + 1);
  await onHost('fw', ['address del 10.0.0.77/24 dev mesh0']);
  const after = await waitForStatus('fw', (status) => owned(status) === owned(before), 5000);
  t.is(after.generation, before.generation);

  await onHost('gw', ['address del 10.9.0.1/24 dev edge0', 'address add 10.9.0.2/24 dev edge0']);
  await waitForStatus('gw', (status) => portOf(status, 'edge0').address === '10.9.0.2');
  await onHost('gw', ['address del 10.9.0.2/24 dev edge0', 'address add 10.9.0.1/24 dev edge0']);
  await waitForStatus('gw', (status) => portOf(status, 'edge0').address === '10.9.0.1');
  await assertHealthy(t, 'gw');
  await assertChained(t);
});

test.serial('an address of this host takes no chain, whatever interface it is on', async (t) => {
  const mine = '10.9.0.77'; // in the destinations of the chain
  const advanced = async (): Promise<number> => sumCounts(await readDrops(lab, 'fw'), 'advanced');
  const owned = async (): Promise<number> =>
    (await readStatus('edge')).maps.find(({ name }) => name === 'addresses')?.entries ?? 0;
  const ping = (): Promise<string> => lab.on('client', 'ping', '-c', '1', '-W', '1', mine);
  const before = await advanced();
  await t.throwsAsync(ping());
  t.is(await advanced(), before + 1, 'the negative control: as an address of nobody it takes the chain');
  const known = await owned();
  await onHost('edge', [`address add ${mine}/32 dev lo`]);
  await waitForStatus('edge', ({ maps }) =>
    maps.some((map) => map.name === 'addresses' && map.entries > known),
  );
  t.regex(await ping(), / 0% packet loss/);
  t.is(await advanced(), before + 1);
  await onHost('edge', [`address del ${mine}/32 dev lo`]);
});

test.serial('while the daemon is stopped a new interface has no programs; then it gets them', async (t) => {
  const { pid } = await readStatus('fw');
  process.kill(pid, 'SIGSTOP');
  t.teardown(() => process.kill(pid, 'SIGCONT'));
  const laid = await (await cut(t, 'fw', 'mesh0'))();
  const { ifindex } = laid;
  t.deepEqual(await countPrograms('fw', ifindex), [0, 0]);
  t.false(await canPing());
  process.kill(pid, 'SIGCONT');
  const after = await waitForPort(t, 'fw', 'mesh0', { ...laid, up: Date.now() });
  t.is(portOf(after, 'mesh0').ifindex, ifindex);
  await assertHealthy(t, 'fw');
  await assertChained(t);
});

test.serial('an interface that cannot be managed says why, and the right one is taken again', async (t) => {
  const lay = await cut(t, 'fw', 'mesh0');
  await onHost('fw', ['tuntap add mode tun name mesh0']);
  const wrong = await waitForStatus('fw', (status) => portOf(status, 'mesh0').ifindex !== null);
  t.is(wrong.state, 'degraded');
  t.regex(portOf(wrong, 'mesh0').error ?? '', /^interface mesh0 is of type none; only Ethernet/);
  await onHost('fw', ['link delete mesh0']);
  await waitForPort(t, 'fw', 'mesh0', await lay());
  await assertHealthy(t, 'fw');
  await assertChained(t);
});

test.serial('a refused program degrades one port, and is tried again', async (t) => {
  const lay = await cut(t, 'edge', 'edge0.7');
  await waitForMissing('edge', 'edge0.7');
  const foreign = `${linkFolder('edge')}/edge0%2E7@egress`;
  mkdirSync(foreign);
  await lay();
  const refused = await waitForStatus(
    'edge',
    (status) => portOf(status, 'edge0.7').error !== undefined && portOf(status, 'edge0.7').ifindex !== null,
  );
  t.is(refused.state, 'degraded');
  t.regex(portOf(refused, 'edge0.7').error ?? '', /^interface edge0\.7 takes no program: .*edge0%2E7@egress/);
  t.is(portOf(refused, 'mesh0').attached, 'tcx');
  rmdirSync(foreign);
  await waitForStatus('edge', ({ state }) => state === 'ready', 5000);
  await assertHealthy(t, 'edge');
  await assertChained(t);
});

test.serial('a daemon starts without one of its interfaces, and takes it when it appears', async (t) => {
  const { pid } = await readStatus('edge');
  process.kill(pid, 'SIGTERM');
  await waitFor(async () => (await readStatus('edge').catch(() => null)) === null);
  const lay = await cut(t, 'edge', 'edge0.7');
  const config = `${hostFolder(lab, 'edge')}/agent.yaml`;
  const daemon = execa(
    'nsenter',
    [
      `--net=/run/netns/${lab.prefix}edge`,
      '--',
      process.execPath,
      'dist/cli.js',
      'daemon',
      '--config',
      config,
    ],
    { reject: false },
  );
  t.teardown(() => daemon.kill('SIGKILL'));
  await waitFor(async () => (await readStatus('edge').catch(() => null)) !== null);
  const degraded = await readStatus('edge');
  t.is(degraded.state, 'degraded');
  t.is(portOf(degraded, 'edge0.7').error, 'interface edge0.7 does not exist');
  t.is(portOf(degraded, 'mesh0').attached, 'tcx');
  t.deepEqual(listPins('edge'), ['mesh0@egress', 'mesh0@ingress']);

  await waitForPort(t, 'edge', 'edge0.7', await lay());
  await assertHealthy(t, 'edge');
  await assertChained(t);
  daemon.kill('SIGTERM');
  const { exitCode, stderr } = await daemon;
  t.is(exitCode, 0);
  t.regex(stderr, /interface edge0\.7 does not exist/);
  t.regex(stderr, /all interfaces are managed again/);
  await startAgent(lab, 'edge');
});

interface Laid {
  ifindex: number;
  /** When its creation began, and when it was up; ms. */
  made: number;
  up: number;
}

/** Deletes a host's interface, and so its cable. What comes back lays it again as it was, addresses and routes too. */
async function cut(t: ExecutionContext, host: string, name: string): Promise<() => Promise<Laid>> {
  const cable = topology.cables.find((ends) => ends.includes(`${host}:${name}`)) ?? [];
  const ends = await Promise.all(
    cable.map(async (end) => {
      const [owner = '', device = ''] = end.split(':');
      return { owner, device, ...(await readLink(owner, device)) };
    }),
  );
  await onHost(host, [`link delete ${name}`]);
  const own = ends.filter(({ owner }) => owner === host);
  const far = ends.filter(({ owner }) => owner !== host);
  let isCut = true;
  const lay = async (): Promise<Laid> => {
    isCut = false;
    const made = Date.now();
    // The same hardware addresses, or the neighbours would have to find out first.
    const [left, right] = ends.map(
      ({ owner, device, address }) =>
        `name ${device} address ${address} mtu 1500 netns ${lab.prefix}${owner}`,
    );
    await execa('ip', `link add ${left} type veth peer ${right}`.split(' '));
    for (const { owner, device } of [...far, ...own]) await onHost(owner, configure(owner, device));
    return { made, up: Date.now(), ifindex: (await readLink(host, name)).ifindex };
  };
  // A test that failed in between leaves the next ones a whole lab.
  t.teardown(async () => void (isCut && (await lay())));
  return lay;
}

function configure(host: string, device: string): string[] {
  const address = topology.hosts[host]?.addresses?.[device];
  return [
    ...(address === undefined ? [`link set ${device} master br0`] : [`address add ${address} dev ${device}`]),
    `link set ${device} up`,
    ...routesOf(host, device),
  ];
}

/** The kernel takes them away with the link or its address; ifupdown and the like put them back. */
function routesOf(host: string, device = 'mesh0'): string[] {
  const { addresses, routes = [] } = topology.hosts[host] ?? {};
  const network = addresses?.[device]?.replace(/\d+\/24$/, '');
  return routes.filter((route) => route.includes(`via ${network}`)).map((route) => `route replace ${route}`);
}

async function onHost(host: string, lines: string[]): Promise<void> {
  await execa('ip', ['-n', lab.prefix + host, '-batch', '-'], { input: `${lines.join('\n')}\n` });
}

async function readLink(host: string, name: string): Promise<{ ifindex: number; address: string }> {
  const { stdout } = await execa('ip', ['-n', lab.prefix + host, '-j', 'link', 'show', 'dev', name]);
  return JSON.parse(stdout)[0];
}

const readStatus = (host: string): Promise<Status> =>
  callApi<Status>(apiSocket(lab, host), { path: '/v1/status' });

function portOf({ interfaces }: Status, name: string): Status['interfaces'][number] {
  const port = interfaces.find((candidate) => candidate.name === name);
  if (!port) throw new Error(`no ${name} in the status`);
  return port;
}

async function readReceived(host: string, name: string): Promise<number> {
  const { interfaces } = await readDrops(lab, host);
  return interfaces
    .filter((port) => port.interface === name)
    .reduce((sum, { received }) => sum + received, 0);
}

async function waitFor(condition: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!(await condition())) if (Date.now() > deadline) throw new Error('waited in vain');
}

async function waitForStatus(
  host: string,
  condition: (status: Status) => boolean,
  limit = limitMs,
): Promise<Status> {
  const deadline = Date.now() + limit;
  for (;;) {
    const status = await readStatus(host);
    if (condition(status)) return status;
    if (Date.now() > deadline) throw new Error(`not so after ${limit} ms: ${JSON.stringify(status)}`);
  }
}

const waitForMissing = (host: string, name: string): Promise<Status> =>
  waitForStatus(host, (status) => portOf(status, name).ifindex === null);

/** Waits until the status names the new interface, and tells how long that took. */
async function waitForPort(t: ExecutionContext, host: string, name: string, laid: Laid): Promise<Status> {
  const status = await waitForStatus(host, (now) => {
    const { attached, ifindex } = portOf(now, name);
    return attached !== null && ifindex === laid.ifindex;
  });
  const now = Date.now();
  t.log(
    `${host} ${name}: attached ${now - laid.up} ms after up, ${now - laid.made} ms after its making began`,
  );
  t.true(now - laid.up < limitMs);
  return status;
}

const linkFolder = (host: string): string => `${lab.bpffs}/${host}/links`;
const listPins = (host: string): string[] => readdirSync(linkFolder(host)).sort();

/** Ready; two live pins for each port and no others; each program once. */
async function assertHealthy(t: ExecutionContext, host: string): Promise<void> {
  const status = await waitForStatus(host, ({ state }) => state === 'ready');
  const wanted = status.interfaces.flatMap(({ name, ifindex }) =>
    ['egress', 'ingress'].map((side) => [`${name.replace('.', '%2E')}@${side}`, ifindex]),
  );
  const found = listPins(host).map((pin) => {
    const link = loadNative().openPinnedLink(`${linkFolder(host)}/${pin}`);
    const { ifindex } = link.info;
    link.close();
    return [pin, ifindex];
  });
  t.deepEqual(found, wanted.sort());
  for (const { ifindex } of status.interfaces) t.deepEqual(await countPrograms(host, ifindex), [1, 1]);
}

/** At ingress and egress. */
async function countPrograms(host: string, ifindex: number | null): Promise<number[]> {
  const script = `['ingress', 'egress'].map((side) => require('${addon}').queryTcx(${ifindex}, side).programIds.length)`;
  return JSON.parse(await lab.on(host, process.execPath, '-p', `JSON.stringify(${script})`));
}

async function canPing(): Promise<boolean> {
  return lab.on('client', 'ping', '-c', '1', '-W', '1', server).then(
    () => true,
    () => false,
  );
}

/** Pings arrive, by way of the chain's hops, and all counters add up. */
async function assertChained(t: ExecutionContext): Promise<void> {
  const advanced = async (): Promise<number[]> =>
    Promise.all(['fw', 'ids'].map(async (host) => sumCounts(await readDrops(lab, host), 'advanced')));
  const before = await advanced();
  t.regex(await lab.on('client', 'ping', '-c', '3', '-i', '0.05', '-W', '1', server), / 0% packet loss/);
  t.deepEqual(
    await advanced(),
    before.map((count) => count + 3),
  );
  for (const host of ['edge', 'fw', 'ids', 'gw']) t.deepEqual(findUnbalanced(await readDrops(lab, host)), []);
}

/** What the client is told by the server's SYN, which the edge clamps (bpf/clamp.h). */
async function readMss(): Promise<number> {
  const seen = await capture(lab, 'client', 'eth0', `tcp and src ${server}`, ['tcp.options.mss_val'], () =>
    lab.on('client', 'curl', '-sS', '--max-time', '5', `http://${server}/`),
  );
  return Number(seen.flat().find((value) => value !== ''));
}
