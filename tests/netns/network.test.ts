/**
 * What a real network does to a chain: other routers, firewalls, tunnels, neighbours that change or die.
 *
 *   client ── edge ──┬── fw ── ids ──┬── gw ── server
 *                    ├─ 10.0.0.0/24 ─┤
 *                    └──── router ───┘     10.0.0.77: plain Linux that lets source routes pass
 */
import { setTimeout } from 'node:timers/promises';
import test from 'ava';
import { agentHosts } from '../../src/lab-standing.js';
import { labTopology } from '../../src/lab-topology.js';
import type { Mesh } from '../../src/mesh.js';
import { countLosses, putInForce } from '../helpers/chains.js';
import {
  carryStream,
  forgetMtu,
  learnedMtu,
  onEitherWay,
  pingOnce,
  readLedger,
  sendDatagrams,
  server,
  subtractLedger,
  waitForPing,
} from '../helpers/delivery.js';
import { createLab, type TestLab } from '../helpers/namespaces.js';
import { addRules } from '../helpers/nftables.js';
import { capture, findUnbalanced, readDrops, runScapy, sumCounts } from '../helpers/wire.js';

const chain: Mesh['chains'][string] = { hops: ['fw', 'ids', 'gw'], record: 2 };
const overhead = 28;
let lab: TestLab;

test.before(async () => {
  lab = await createLab({
    topology: {
      hosts: {
        ...labTopology.hosts,
        router: {
          addresses: { router0: '10.0.0.77/24' },
          routes: ['10.1.0.0/24 via 10.0.0.1', '10.9.0.0/24 via 10.0.0.4'],
          forwards: true,
        },
      },
      cables: [...labTopology.cables, ['router:router0', 'switch:router']],
    },
  });
  await putInForce(lab, { there: chain });
});

test.after.always(() => lab?.remove());

const count = async (host: string, name: string): Promise<number> =>
  sumCounts(await readDrops(lab, host), name);

test.serial('a connection from before the chain goes on when it is applied', async (t) => {
  await putInForce(lab, {});
  const before = await count('fw', 'advanced');
  const carried = carryStream(lab, 150_000_000);
  await setTimeout(300); // it is under way; whether it was in time is checked below
  t.is(await count('fw', 'advanced'), before);
  await putInForce(lab, { there: chain });
  t.true(await carried);
  t.true((await count('fw', 'advanced')) > before + 100, 'the connection took the chain in the end');
});

test.serial('a socket of the edge host learns the path MTU', async (t) => {
  const limit = 1500 - overhead;
  await countLosses(t, lab, ['too_big'], async () => {
    const { received, refused } = await sendDatagrams(
      lab,
      { size: limit - 27, count: 5, discover: 'do' },
      { from: 'edge' },
    );
    t.deepEqual({ received, refused }, { received: 0, refused: 4 });
    return 1;
  });
  t.is(await learnedMtu(lab, 'edge'), limit);
  const { received, same } = await sendDatagrams(
    lab,
    { size: limit - 28, count: 5, discover: 'do' },
    { from: 'edge' },
  );
  t.deepEqual({ received, same }, { received: 5, same: true });
  await forgetMtu(lab);
  t.regex(await onEitherWay(lab, 'edge', ['tracepath', '-n', server]), /Resume: pmtu 1472 /);
  await forgetMtu(lab);
});

test.serial("behind the edge's NAT the client still learns the path MTU", async (t) => {
  await addRules(
    lab,
    'edge',
    'table ip masked {\n chain p {\n type nat hook postrouting priority 100\n oifname mesh0 masquerade\n }\n}',
  );
  t.regex(await lab.on('client', 'curl', '-sS', `http://${server}/`), /You are 10\.0\.0\.1,/);
  await pingOnce(lab, 1500, 'do');
  t.is(await learnedMtu(lab), 1500 - overhead);
  t.is((await pingOnce(lab, 1500 - overhead, 'do')).received, 1);
  await lab.on('edge', 'nft', 'delete', 'table', 'ip', 'masked');
  await forgetMtu(lab);
});

test.serial(
  'what a plain router says about a chained packet reaches its sender in its own terms',
  async (t) => {
    for (const scope of ['all', 'default', 'router0']) {
      await lab.on('router', 'sysctl', '-qw', `net.ipv4.conf.${scope}.accept_source_route=1`);
      await lab.on('router', 'sysctl', '-qw', `net.ipv4.conf.${scope}.send_redirects=0`);
    }
    await lab.on('fw', 'ip', 'route', 'add', '10.0.0.3/32', 'via', '10.0.0.77');
    await lab.on('router', 'ip', 'route', 'add', '10.0.0.3/32', 'dev', 'router0', 'mtu', 'lock', '1400');
    const before = await count('fw', 'icmp_translated');
    const fields = ['ip.dst', 'ip.hdr_len', 'icmp.mtu', 'icmp.checksum.status'];
    const errors = await capture(lab, 'client', 'eth0', 'icmp[0] == 3', fields, async () => {
      t.like(await pingOnce(lab, 1450, 'do'), { received: 0, mtu: 1400 - overhead, by: '10.0.0.77' });
    });
    t.deepEqual(
      errors.map((row) => [...row.slice(0, 3), row[3]?.split(',')[0]]),
      [['10.1.0.10,10.9.0.10', '20,20', String(1400 - overhead), '1']],
    );
    t.is(await learnedMtu(lab), 1400 - overhead);
    t.is((await count('fw', 'icmp_translated')) - before, 1);
    const traced = await onEitherWay(lab, 'client', [
      'traceroute',
      '-n',
      '-q',
      '1',
      '-N',
      '1',
      '-w',
      '1',
      server,
    ]);
    t.deepEqual(
      [...traced.matchAll(/^ *\d+ +(\S+)/gm)].map(([, address]) => address),
      ['10.1.0.1', '*', '10.0.0.77', '*', '10.0.0.4', server],
      'by default our own hops are silent',
    );
    await lab.on('fw', 'ip', 'route', 'del', '10.0.0.3/32', 'via', '10.0.0.77');
    await forgetMtu(lab);
  },
);

const conntrackHosts = ['edge', 'fw', 'gw', 'server'] as const;

test.serial('firewalls that drop what conntrack calls invalid find nothing to drop', async (t) => {
  const chains = ['input', 'forward', 'output'].map(
    (hook) => ` chain ${hook} {\n type filter hook ${hook} priority 0\n ct state invalid counter drop\n }\n`,
  );
  for (const host of conntrackHosts) {
    await addRules(lab, host, `table ip strict {\n${chains.join('')}}`);
    await lab.on(host, 'sysctl', '-qw', 'net.netfilter.nf_conntrack_checksum=1');
  }
  t.regex(await lab.on('client', 'curl', '-sS', `http://${server}/`), /Hello from the server/);
  t.true(await carryStream(lab, 5_000_000));
  t.is((await pingOnce(lab, 100, 'do')).received, 1);
  t.is((await pingOnce(lab, 4028, 'dont')).received, 1);
  await pingOnce(lab, 1500, 'do');
  t.is(
    await learnedMtu(lab),
    1500 - overhead,
    'the ICMP error is related to a connection that conntrack knows',
  );
  t.like(await sendDatagrams(lab, { size: 500, count: 5, discover: 'want' }), { received: 5, same: true });
  t.regex(await lab.on('edge', 'curl', '-sS', `http://${server}/`), /Hello from the server/);
  for (const host of conntrackHosts) t.is(await countInvalid(host), 0, host);

  // The negative control: they do drop.
  await runScapy(lab, 'client', `send(IP(dst='${server}')/TCP(dport=80, flags='SFR'))`);
  t.true((await countInvalid('edge')) + (await countInvalid('gw')) + (await countInvalid('server')) > 0);
  for (const host of conntrackHosts) await lab.on(host, 'nft', 'delete', 'table', 'ip', 'strict');
  await forgetMtu(lab);
});

async function countInvalid(host: string): Promise<number> {
  const printed = await lab.on(host, 'nft', 'list', 'table', 'ip', 'strict');
  return [...printed.matchAll(/counter packets (\d+)/g)].reduce(
    (sum, [, packets]) => sum + Number(packets),
    0,
  );
}

test.serial('protocols without ports are chained by their addresses', async (t) => {
  const before = await count('ids', 'advanced');
  for (const protocol of [47, 50]) {
    const filter = `ip proto ${protocol}`;
    const seen = await capture(lab, 'server', 'eth0', filter, ['ip.proto', 'ip.len'], async () => {
      await runScapy(lab, 'client', `send(IP(dst='${server}', proto=${protocol})/Raw(b'x' * 100), count=3)`);
    });
    t.deepEqual(
      seen.map(([first = '', length]) => [first.split(',')[0], length]),
      Array(3).fill([String(protocol), '120']),
    );
  }
  t.is((await count('ids', 'advanced')) - before, 6);
});

test.serial(
  'a tunnel goes through a chain, with segmentation offload and with full-size packets',
  async (t) => {
    for (const [host, local, remote, inner] of [
      ['client', '10.1.0.10', server, '192.168.7.1/24'],
      ['server', server, '10.1.0.10', '192.168.7.2/24'],
    ] as const) {
      const tunnel = ['type', 'vxlan', 'id', '7', 'dstport', '4789', 'local', local, 'remote', remote];
      await lab.on(host, 'ip', 'link', 'add', 'tunnel7', ...tunnel);
      await lab.on(host, 'ip', 'address', 'add', inner, 'dev', 'tunnel7');
      await lab.on(host, 'ip', 'link', 'set', 'tunnel7', 'up');
    }
    const before = await count('ids', 'advanced');
    const far = { address: '192.168.7.2' };
    await waitForPing(t, lab, 'the tunnel is up', far);
    // Outside it measures 1500, and its checksum is left to the device: it cannot be fragmented, and the tunnel is told.
    await countLosses(t, lab, ['cannot_fragment'], async () => {
      t.is((await pingOnce(lab, 1450, 'do', far)).received, 0);
      return 1;
    });
    t.is(await learnedMtu(lab), 1500 - overhead);
    t.is((await pingOnce(lab, 1450, 'do', far)).received, 1, 'the tunnel fragments itself now');
    t.true(await carryStream(lab, 5_000_000, '192.168.7.2'));
    const fitting = { size: 1422 - overhead, count: 20, discover: 'do' } as const;
    t.like(await sendDatagrams(lab, fitting, far), { received: 20, same: true });
    t.true((await count('ids', 'advanced')) > before + 20);
    for (const host of ['client', 'server']) await lab.on(host, 'ip', 'link', 'del', 'tunnel7');
    await forgetMtu(lab);
  },
);

test.serial('a chain that wants no fragments drops them, and nothing else', async (t) => {
  await putInForce(lab, { there: { ...chain, fragments: 'drop' } });
  const dropped = await countLosses(t, lab, ['fragment'], async () => {
    t.is((await pingOnce(lab, 4028, 'dont')).received, 0);
    return 3;
  });
  t.deepEqual(Object.keys(dropped), ['edge fragment']);
  t.is((await pingOnce(lab, 1400, 'dont')).received, 1);
  await putInForce(lab, { there: chain });
  t.is((await pingOnce(lab, 4028, 'dont')).received, 1);
});

test.serial('the first packet after all neighbours are forgotten is not lost', async (t) => {
  const before = await Promise.all(agentHosts.map((host) => count(host, 'neighbour_pending')));
  for (const host of agentHosts) await lab.on(host, 'ip', 'neigh', 'flush', 'all');
  t.like(await sendDatagrams(lab, { size: 100, count: 1, discover: 'want' }), { received: 1, same: true });
  const after = await Promise.all(agentHosts.map((host) => count(host, 'neighbour_pending')));
  t.true(after.some((noted, index) => noted > (before[index] ?? 0)));
});

test.serial('a hop whose MAC address changes is found again', async (t) => {
  await lab.on('ids', 'sysctl', '-qw', 'net.ipv4.conf.mesh0.arp_notify=1');
  await lab.on('ids', 'ip', 'link', 'set', 'mesh0', 'address', '02:00:00:00:77:03');
  await waitForPing(t, lab, 'ids is found again');
  const seen = await capture(lab, 'ids', 'mesh0', 'icmp and host 10.0.0.3', ['eth.dst'], async () => {
    t.is((await pingOnce(lab, 100, 'dont')).received, 1);
  });
  t.true(seen.some(([mac]) => mac === '02:00:00:00:77:03'));
});

test.serial('packets to a dead next hop are all accounted for', async (t) => {
  const packets = 20;
  await lab.on('ids', 'ip', 'link', 'set', 'mesh0', 'down');
  await lab.on('fw', 'ip', 'neigh', 'flush', 'all');
  const before = await count('fw', 'neighbour_pending');
  const ledger = await readLedger(lab);
  const sent = await sendDatagrams(lab, { size: 100, count: packets, discover: 'want' });
  const dropped = subtractLedger(await readLedger(lab), ledger);
  t.deepEqual({ sent: sent.sent, received: sent.received }, { sent: packets, received: 0 });
  t.deepEqual(dropped, {});
  t.is((await count('fw', 'neighbour_pending')) - before, packets);
  await lab.on('ids', 'ip', 'link', 'set', 'mesh0', 'up');
  for (const way of ['10.9.0.0/24 via 10.0.0.4', '10.1.0.0/24 via 10.0.0.1']) {
    await lab.on('ids', 'ip', 'route', 'replace', ...way.split(' '));
  }
  await waitForPing(t, lab, 'ids is back');
});

test.serial(
  'a flood of packets that are too big is answered at a limited rate, and counted to the last',
  async (t) => {
    const names = ['too_big', 'icmp_sent', 'icmp_limited'] as const;
    const before = await Promise.all(names.map((name) => count('edge', name)));
    const flood =
      "import socket;s=socket.socket(2,2);s.setsockopt(0,10,3)\nfor i in range(5000): s.sendto(bytes(1472),('10.9.0.10',9))";
    await lab.on('client', 'python3', '-c', flood);
    const [big = 0, sent = 0, limited = 0] = (
      await Promise.all(names.map((name) => count('edge', name)))
    ).map((value, index) => value - (before[index] ?? 0));
    t.is(big, 5000);
    t.is(sent + limited, 5000);
    t.true(sent > 0 && limited > 0, `${sent} sent, ${limited} limited`);
    await forgetMtu(lab);
  },
);

test.serial('answers of a direct chain come back as the server sent them', async (t) => {
  const fields = ['ip.id', 'ip.hdr_len', 'ip.len', 'icmp.seq', 'data.data'];
  const sent = await capture(lab, 'server', 'eth0', 'icmp and src 10.9.0.10', fields, async () => {
    const arrived = await capture(lab, 'client', 'eth0', 'icmp and src 10.9.0.10', fields, async () => {
      await lab.on('client', 'ping', '-c', '5', '-i', '0.05', '-s', '200', server);
    });
    t.is(arrived.length, 5);
    answers = arrived;
  });
  t.deepEqual(answers, sent);
});
let answers: string[][] = [];

test.serial('every packet is counted under exactly one outcome', async (t) => {
  for (const host of agentHosts) t.deepEqual(findUnbalanced(await readDrops(lab, host)), [], host);
});
