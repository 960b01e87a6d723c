/**
 * Functions in the stack of a hop (tests/helpers/function-lab.ts): nftables and conntrack of fw see the true flow of a chain.
 */
import test from 'ava';
import { agentHosts } from '../../src/lab-standing.js';
import type { Mesh } from '../../src/mesh.js';
import { putInForce } from '../helpers/chains.js';
import {
  carryStream,
  countBroken,
  forgetMtu,
  learnedMtu,
  pingOnce,
  sendDatagrams,
  server,
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
import { capture, findUnbalanced, readDrops, readPaths, runScapy } from '../helpers/wire.js';

const client = '10.1.0.10';
const overhead = 28;
const back: Mesh['chains'][string] = { hops: ['ids', 'firewall', 'edge'], record: 1 };
let lab: TestLab;

test.before(async () => {
  lab = await createFunctionLab();
});

test.after.always(() => lab?.remove());

test.afterEach.always(async (t) => {
  for (const host of agentHosts) t.deepEqual(findUnbalanced(await readDrops(lab, host)), [], host);
});

const table = 'ip function';
const withRules = (rules: string, action: () => Promise<void>): Promise<void> =>
  withTable(lab, 'fw', table, rules, action);
const counted = (name: string): Promise<number> => readCounter(lab, 'fw', table, name);
const fetchPort = (port: number): Promise<string> => fetchPage(lab, `${server}:${port}`);

const blocking = `counter blocked { }
  counter passed { }
  chain forward {
    type filter hook forward priority 0
    ip saddr ${client} ip daddr ${server} tcp dport 81 counter name blocked drop
    ip saddr ${client} ip daddr ${server} tcp dport 80 counter name passed
  }`;

test.serial('a hop that is only transit: its nftables see nothing of the flow', async (t) => {
  await putInForce(lab, { there: through('plain') }, services);
  await withRules(blocking, async () => {
    t.regex(await fetchPort(80), greeting);
    t.regex(await fetchPort(81), refused, 'nothing listens there');
    t.deepEqual([await counted('blocked'), await counted('passed')], [0, 0]);
  });
});

test.serial('nftables of a stack hop drop one port of the true flow and let another pass', async (t) => {
  await putInForce(lab, { there: through('firewall') }, services);
  await withRules(blocking, async () => {
    t.regex(await fetchPort(80), greeting);
    t.true((await counted('passed')) > 0);
    const seen = await capture(lab, 'server', 'eth0', 'tcp port 81', ['tcp.flags'], async () => {
      t.regex(await fetchPort(81), unanswered);
    });
    t.deepEqual(seen, []);
    t.true((await counted('blocked')) > 0);
  });
  const [record] = await readPaths(lab, 'gw', '?chain=there&limit=1');
  t.is(record?.verdict, 'complete');
});

const strict = `counter invalid { }
  counter established { }
  chain forward {
    type filter hook forward priority 0
    ct state invalid counter name invalid drop
    ct state established counter name established
  }`;

test.serial('conntrack of a hop on both ways finds nothing invalid', async (t) => {
  await putInForce(lab, { there: through('firewall'), back }, services);
  await lab.on('fw', 'sysctl', '-qw', 'net.netfilter.nf_conntrack_checksum=1');
  await withRules(strict, async () => {
    t.regex(await fetchPort(80), greeting);
    t.true(await carryStream(lab, 5_000_000));
    t.is((await pingOnce(lab, 100, 'do')).received, 1);
    t.like(await sendDatagrams(lab, { size: 500, count: 5, discover: 'want' }), { received: 5, same: true });
    t.true((await counted('established')) > 100);
    t.is(await counted('invalid'), 0);
    // The negative control: it does drop.
    await runScapy(lab, 'client', `send(IP(dst='${server}')/TCP(dport=80, flags='SFR'))`);
    t.is(await counted('invalid'), 1);
  });
  for (const host of ['client', 'server']) {
    const broken = await countBroken(lab, host);
    t.true(
      Object.values(broken).every((number) => number === 0),
      JSON.stringify(broken),
    );
  }
});

const countReassembled = async (): Promise<number> =>
  Number(/IpReasmOKs\s+(\d+)/.exec(await lab.on('fw', 'nstat', '-asz', 'IpReasmOKs'))?.[1]);

test.serial('what conntrack puts together is fragmented again, with its source route', async (t) => {
  await putInForce(lab, { there: through('firewall'), back }, services);
  await withRules(strict, async () => {
    const before = await countReassembled();
    const fields = ['ip.frag_offset', 'ip.opt.type', 'ip.checksum.status'];
    const seen = await capture(lab, 'ids', 'mesh0', 'ip[6:2] & 0x1fff != 0', fields, async () => {
      t.like(await sendDatagrams(lab, { size: 4000, count: 5, discover: 'dont' }), {
        received: 5,
        same: true,
      });
    });
    t.is((await countReassembled()) - before, 5);
    t.true(seen.length >= 2 * 5 * 2, 'at least three fragments each, in and out');
    for (const [, types, checksum] of seen) {
      t.regex(types ?? '', /^131(,1)+,0$/, 'Record Route is in the first fragment only');
      t.is(checksum, '1');
    }
    t.is((await pingOnce(lab, 4028, 'dont')).received, 1, 'both ways');
    t.is(await counted('invalid'), 0);
  });
});

const narrowings = [
  { title: 'the mesh network behind it', way: '10.0.0.3/32 dev mesh0', undo: 'del 10.0.0.3/32 dev mesh0' },
  {
    title: "its stack's own route to the destination",
    way: '10.9.0.0/24 via 10.0.0.4',
    undo: 'replace 10.9.0.0/24 via 10.0.0.4',
  },
];

for (const { title, way, undo } of narrowings) {
  test.serial(`a sender learns the MTU of a stack hop: of ${title}`, async (t) => {
    await putInForce(lab, { there: through('firewall'), back }, services);
    await withRules(strict, async () => {
      await lab.on('fw', 'ip', 'route', 'replace', ...way.split(' '), 'mtu', 'lock', '1400');
      t.like(await pingOnce(lab, 1450, 'do'), { received: 0, mtu: 1400 - overhead, by: '10.0.0.2' });
      t.is(await learnedMtu(lab), 1400 - overhead);
      t.is((await pingOnce(lab, 1400 - overhead, 'do')).received, 1);
      await lab.on('fw', 'ip', 'route', ...undo.split(' '));
      await forgetMtu(lab);
      t.is(await counted('invalid'), 0);
    });
  });
}

test.serial('what the function writes into a packet goes along: DSCP and TTL', async (t) => {
  await putInForce(lab, { there: through('firewall') }, services);
  const rules = 'chain forward {\n type filter hook forward priority 0\n ip dscp set 10 ip ttl set 33\n }';
  await withRules(rules, async () => {
    const fields = ['ip.dsfield.dscp', 'ip.ttl'];
    const seen = await capture(lab, 'server', 'eth0', `icmp and dst ${server}`, fields, async () => {
      t.is((await pingOnce(lab, 100, 'dont')).received, 1);
    });
    t.deepEqual(seen, [['10', String(33 - 2)]], 'ids and gw are behind it');
  });
});

test.serial(
  'policy routing by a mark works in the function, and the chain decides what comes after',
  async (t) => {
    await putInForce(lab, { there: through('firewall') }, services);
    const rules = `counter rerouted { }
    chain choose {
      type filter hook prerouting priority 0
      ip daddr ${server} meta mark set 7
    }
    chain leave {
      type filter hook postrouting priority 0
      ip protocol udp meta mark 7 rt ip nexthop 10.0.0.77 counter name rerouted
    }`;
    await lab.on('fw', 'ip', 'route', 'add', 'default', 'via', '10.0.0.77', 'table', '77');
    await lab.on('fw', 'ip', 'neigh', 'replace', '10.0.0.77', 'lladdr', '02:00:00:00:00:77', 'dev', 'mesh0');
    await lab.on('fw', 'ip', 'rule', 'add', 'fwmark', '7', 'lookup', '77');
    await withRules(rules, async () => {
      t.like(await sendDatagrams(lab, { size: 500, count: 6, discover: 'want' }), {
        received: 6,
        same: true,
      });
      t.is(await counted('rerouted'), 6);
    });
    await lab.on('fw', 'ip', 'rule', 'del', 'fwmark', '7', 'lookup', '77');
    const records = await readPaths(lab, 'gw', '?chain=there&verdict=complete');
    t.is(records.filter(({ flow, packets }) => flow.protocol === 17 && packets === 6).length, 1);
  },
);

/** How connect(2) to the server ends: `0`, or the name of its error. */
const connectTo = async (port: number): Promise<string> => {
  const script = [
    'import errno, socket, sys',
    's = socket.socket(); s.settimeout(1)',
    'code = s.connect_ex((sys.argv[1], int(sys.argv[2])))',
    "print(errno.errorcode.get(code, '0'))",
  ].join('\n');
  return (await lab.on('client', 'python3', '-c', script, server, String(port))).trim();
};

const rejections = [
  { how: 'drop', error: 'EAGAIN' },
  { how: 'reject with tcp reset', error: 'ECONNREFUSED' },
  { how: 'reject with icmp type admin-prohibited', error: 'EHOSTUNREACH' },
  { how: 'reject with icmp type port-unreachable', error: 'ECONNREFUSED' },
];

for (const { how, error } of rejections) {
  test.serial(`what nftables of a stack hop says to a connection reaches its socket: ${how}`, async (t) => {
    await putInForce(lab, { there: through('firewall') }, services);
    t.is(await connectTo(80), '0');
    await withRules(
      `chain forward {\n type filter hook forward priority 0\n ip daddr ${server} tcp dport 80 ${how}\n }`,
      async () => void t.is(await connectTo(80), error),
    );
  });
}

/** The last one: the server goes on for half a minute to answer a connection that it believes half open. */
test.serial('conntrack with half of a connection calls it invalid', async (t) => {
  await putInForce(lab, { there: through('firewall') }, services);
  await withRules(strict, async () => {
    t.regex(await fetchPort(80), unanswered);
    t.true((await counted('invalid')) > 0);
    t.is(await counted('established'), 0);
    t.is((await pingOnce(lab, 100, 'dont')).received, 1, 'without a connection nothing is amiss');
    t.like(await sendDatagrams(lab, { size: 500, count: 5, discover: 'want' }), { received: 5, same: true });
  });
});
