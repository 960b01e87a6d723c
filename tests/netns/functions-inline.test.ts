/**
 * Functions behind a device of a hop (tests/helpers/function-lab.ts): a bump in the wire, and a router on one device.
 * Packets of both ways go through them.
 */
import test from 'ava';
import { agentHosts, apiSocket, hostFolder, program } from '../../src/lab-standing.js';
import { countLosses, putInForce } from '../helpers/chains.js';
import {
  carryStream,
  forgetMtu,
  learnedMtu,
  onEitherWay,
  pingOnce,
  sendDatagrams,
  server,
  waitForPing,
} from '../helpers/delivery.js';
import {
  createFunctionLab,
  fetchPage,
  greeting,
  refused,
  services,
  through,
  unanswered,
} from '../helpers/function-lab.js';
import type { TestLab } from '../helpers/namespaces.js';
import { readCounter, withTable } from '../helpers/nftables.js';
import { capture, findUnbalanced, readDrops, readPaths, readStatus, sumCounts } from '../helpers/wire.js';

const client = '10.1.0.10';
const overhead = 28;
let lab: TestLab;

test.before(async () => {
  lab = await createFunctionLab();
});

test.after.always(() => lab?.remove());

test.afterEach.always(async (t) => {
  for (const host of agentHosts) t.deepEqual(findUnbalanced(await readDrops(lab, host)), [], host);
});

const toService = (service: 'plain' | 'bump' | 'router') =>
  putInForce(lab, { there: through(service), back: { hops: ['ids', service, 'edge'], record: 1 } }, services);

/** What fw has counted under a name at a port. */
async function countAt(port: string, direction: string, name: string): Promise<number> {
  const view = await readDrops(lab, 'fw');
  const interfaces = view.interfaces.filter((i) => i.interface === port && i.direction === direction);
  return sumCounts({ ...view, interfaces }, name);
}

const families = { bump: 'bridge', router: 'ip' } as const;

for (const service of ['bump', 'router'] as const) {
  const table = `${families[service]} function`;
  const counted = (name: string): Promise<number> => readCounter(lab, service, table, name);
  const blocking = `counter blocked { }
    counter passed { }
    counter answers { }
    chain forward {
      type filter hook forward priority 0
      ip saddr ${client} ip daddr ${server} tcp dport 81 counter name blocked drop
      ip saddr ${client} ip daddr ${server} tcp dport 80 counter name passed
      ip saddr ${server} ip daddr ${client} tcp sport 80 counter name answers
    }`;

  test.serial(`${service}: with a hop that is only transit it sees nothing`, async (t) => {
    await toService('plain');
    await withTable(lab, service, table, blocking, async () => {
      t.regex(await fetchPage(lab, server), greeting);
      t.regex(await fetchPage(lab, `${server}:81`), refused);
      for (const name of ['passed', 'answers', 'blocked']) t.is(await counted(name), 0, name);
    });
  });

  test.serial(`${service}: its nftables drop one port of the true flow and let another pass`, async (t) => {
    await toService(service);
    await withTable(lab, service, table, blocking, async () => {
      t.regex(await fetchPage(lab, server), greeting);
      t.true((await counted('passed')) > 0);
      t.true((await counted('answers')) > 0);
      const seen = await capture(lab, 'server', 'eth0', 'tcp port 81', ['tcp.flags'], async () => {
        t.regex(await fetchPage(lab, `${server}:81`), unanswered);
      });
      t.deepEqual(seen, []);
      t.true((await counted('blocked')) > 0);
    });
    const [record] = await readPaths(lab, 'gw', '?chain=there&verdict=complete&limit=1');
    t.deepEqual(
      record?.recorded.map(({ node }) => node),
      ['fw', 'ids', 'gw'],
    );
  });

  test.serial(`${service}: 5 MB go both ways, and datagrams of all sizes`, async (t) => {
    await toService(service);
    const before = await countAt('mesh0', 'ingress', 'to_device');
    t.true(await carryStream(lab, 5_000_000));
    for (const [size, discover] of [
      [500, 'want'],
      [4000, 'dont'],
    ] as const) {
      t.like(await sendDatagrams(lab, { size, count: 5, discover }), { received: 5, same: true });
    }
    t.true((await countAt('mesh0', 'ingress', 'to_device')) > before + 200);
  });
}

const strict = `counter invalid { }
  counter established { }
  chain forward {
    type filter hook forward priority 0
    ct state invalid counter name invalid drop
    ct state established counter name established
  }`;

test.serial('conntrack of a router on one device finds nothing invalid', async (t) => {
  await toService('router');
  const table = 'ip function';
  await withTable(lab, 'router', table, strict, async () => {
    t.regex(await fetchPage(lab, server), greeting);
    t.true(await carryStream(lab, 5_000_000));
    t.is((await pingOnce(lab, 4028, 'dont')).received, 1);
    t.true((await readCounter(lab, 'router', table, 'established')) > 100);
    t.is(await readCounter(lab, 'router', table, 'invalid'), 0);
  });
});

test.serial('a router on one device costs a hop of TTL, a bump in the wire none', async (t) => {
  const seen: string[] = [];
  for (const service of ['plain', 'bump', 'router'] as const) {
    await toService(service);
    const rows = await capture(lab, 'server', 'eth0', `icmp and dst ${server}`, ['ip.ttl'], async () => {
      t.is((await pingOnce(lab, 100, 'dont')).received, 1, service);
    });
    seen.push(...rows.flat());
  }
  t.deepEqual(seen, ['60', '60', '59']);
});

test.serial('a sender learns the MTU behind a router on one device', async (t) => {
  await toService('router');
  await lab.on('router', 'ip', 'route', 'replace', 'default', 'via', '10.3.0.1', 'mtu', 'lock', '1400');
  t.like(await pingOnce(lab, 1450, 'do'), { received: 0, mtu: 1400 - overhead, by: '10.3.0.9' });
  t.is(await learnedMtu(lab), 1400 - overhead);
  t.is((await pingOnce(lab, 1400 - overhead, 'do')).received, 1);
  await lab.on('router', 'ip', 'route', 'replace', 'default', 'via', '10.3.0.1');
  await forgetMtu(lab);
});

const cuts = [
  { service: 'bump', host: 'bump', device: 'near', back: 'function1' },
  { service: 'bump', host: 'bump', device: 'far', back: 'function1' },
  { service: 'router', host: 'router', device: 'eth0', back: 'function2' },
] as const;

for (const { service, host, device, back } of cuts) {
  test.serial(`${service}: with ${device} down nothing passes, and nothing passes around it`, async (t) => {
    await toService(service);
    t.is((await pingOnce(lab, 100, 'dont')).received, 1);
    const given = await countAt('mesh0', 'ingress', 'to_device');
    const returned = await countAt(back, 'ingress', 'received');
    await lab.on(host, 'ip', 'link', 'set', device, 'down');
    const seen = await capture(lab, 'gw', 'mesh0', 'udp dst port 9', ['ip.dst'], async () => {
      t.like(await sendDatagrams(lab, { size: 100, count: 20, discover: 'want' }), { sent: 20, received: 0 });
    });
    t.deepEqual(seen, []);
    t.is((await countAt('mesh0', 'ingress', 'to_device')) - given, 20);
    t.is((await countAt(back, 'ingress', 'received')) - returned, 0);
    await lab.on(host, 'ip', 'link', 'set', device, 'up');
    if (service === 'router') await lab.on(host, 'ip', 'route', 'replace', 'default', 'via', '10.3.0.1');
    await waitForPing(t, lab, 'the function is back');
  });
}

/** What a command of fw says, and whether it found all well. */
const runCommand = (...words: string[]): Promise<string> =>
  onEitherWay(lab, 'fw', ['sh', '-c', '"$@"; echo exit code $?', 'sh', process.execPath, program, ...words]);
const diagnose = () => runCommand('doctor', '--config', `${hostFolder(lab, 'fw')}/agent.yaml`);

test.serial('a service whose device is not in agent.yaml is told of by status and doctor', async (t) => {
  await toService('router');
  t.is((await readStatus(lab, 'fw')).state, 'ready');
  const sound = await diagnose();
  t.regex(sound, /service router: inline/);
  t.regex(sound, /exit code 0/);
  const elsewhere = { ...services, router: { ...services.router, device: 'function9' } };
  await putInForce(lab, { there: through('router') }, elsewhere);
  t.is((await readStatus(lab, 'fw')).state, 'degraded');
  t.is((await readStatus(lab, 'ids')).state, 'ready', 'it is no service of ids');
  const said =
    /service "router" has the device "function9", which is not in agent\.yaml.*\s+.*"function9: function"/;
  t.regex((await runCommand('--api', apiSocket(lab, 'fw'), 'status')).replaceAll(';', '\n'), said);
  const found = await diagnose();
  t.regex(found, said);
  t.regex(found, /exit code 1/);
  await countLosses(t, lab, ['no_function'], async () => {
    const { sent, received } = await sendDatagrams(lab, { size: 100, count: 5, discover: 'want' });
    return sent - received;
  });
  await toService('router');
  t.is((await readStatus(lab, 'fw')).state, 'ready');
});

test.serial('doctor tells of settings that functions suffer from', async (t) => {
  await toService('bump');
  for (const setting of [
    'function1.rp_filter=1',
    'mesh0.forwarding=0',
    'mesh0.send_redirects=1',
    'all.send_redirects=1',
  ])
    await lab.on('fw', 'sysctl', '-qw', `net.ipv4.conf.${setting}`);
  const found = await diagnose();
  t.regex(found, /warning\s+rp_filter on function1: strict/);
  t.regex(found, /error\s+forwarding on mesh0/);
  t.regex(found, /warning\s+send_redirects: on for all, mesh0/);
  for (const setting of [
    'function1.rp_filter=0',
    'mesh0.forwarding=1',
    'mesh0.send_redirects=0',
    'all.send_redirects=0',
  ])
    await lab.on('fw', 'sysctl', '-qw', `net.ipv4.conf.${setting}`);
  t.notRegex(await diagnose(), /rp_filter|forwarding on|on for all, mesh0/);
});
