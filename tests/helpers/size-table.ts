/**
 * Packets of every size and kind through chains, for one layout of MTUs: each is delivered as it was sent, or its
 * sender learns the MTU that it can really use, and whatever is lost is counted under a name.
 *
 *   client ── edge ──┬── fw ══ ids ──┬── gw ── server        ══ is a leg of its own in the layout with a narrow one
 *                    └─ 10.0.0.0/24 ─┘
 */
import test, { type ExecutionContext } from 'ava';
import { agentHosts } from '../../src/lab-standing.js';
import { labTopology, type Topology } from '../../src/lab-topology.js';
import { countOptionBytes } from '../../src/option-bytes.js';
import { type Chains, countLosses, putInForce } from './chains.js';
import {
  carryStream,
  countBroken,
  forgetMtu,
  learnedMtu,
  onEitherWay,
  pingOnce,
  readLedger,
  sendDatagrams,
  server,
  subtractLedger,
} from './delivery.js';
import { createLab, type TestLab } from './namespaces.js';
import { capture, findUnbalanced, readDrops, readStatus } from './wire.js';

export interface Layout {
  name: string;
  topology: Topology;
  /** Interface -> MTU, on every host that has it, the switch's ports among them. */
  mtus: Record<string, number>;
  /** The smallest MTU between edge and gw, and between client and server, bytes. */
  mesh: number;
  access: number;
  /** Addresses that traceroute sees between client and server. */
  way: string[];
}

/** A leg from fw to ids beside the switch. */
export const narrowTopology: Topology = {
  hosts: {
    ...labTopology.hosts,
    fw: {
      ...labTopology.hosts.fw,
      addresses: { mesh0: '10.0.0.2/24', narrow0: '10.0.1.2/24' },
      routes: [...(labTopology.hosts.fw?.routes ?? []), '10.0.0.3/32 dev narrow0'],
    },
    ids: {
      ...labTopology.hosts.ids,
      addresses: { mesh0: '10.0.0.3/24', narrow0: '10.0.1.3/24' },
      routes: [...(labTopology.hosts.ids?.routes ?? []), '10.0.0.2/32 dev narrow0'],
    },
  },
  cables: [...labTopology.cables, ['fw:narrow0', 'ids:narrow0']],
};

const there = ['fw', 'ids', 'gw'];
const back = ['ids', 'fw', 'edge'];
/** What the client's packets take and, where given, the server's. */
const chains: Record<string, Chains & Required<Pick<Chains, 'there'>>> = {
  loose: { there: { hops: there, mode: 'loose' } },
  'loose both ways': { there: { hops: there }, back: { hops: back } },
  strict: { there: { hops: there, mode: 'strict' } },
  'Record Route': { there: { hops: there, record: 2 } },
  'all 40 option bytes': { there: { hops: there, record: 5 }, back: { hops: back, record: 5 } },
};

interface Case {
  lab: TestLab;
  layout: Layout;
  offloads: 'on' | 'off';
  /** The largest packet that the client can get through the chain in force, bytes. */
  limit: number;
}

type Check = (t: ExecutionContext, c: Case) => Promise<void>;

export function defineSizeTable(layout: Layout): void {
  let lab: TestLab;

  test.before(async () => {
    lab = await createLab({ topology: layout.topology, icmp: 'all' });
    await setMtus(lab, layout);
  });

  test.after.always(() => lab?.remove());

  for (const offloads of ['on', 'off'] as const) {
    test.serial(`${layout.name}: offloads are switched ${offloads}`, async (t) => {
      await setOffloads(lab, layout, offloads);
      t.pass();
    });
    for (const [name, chain] of Object.entries(chains)) {
      const overhead = countOptionBytes(there.length, chain.there.record ?? 0);
      const limit = Math.min(layout.access, layout.mesh - overhead);
      const title = (text: string): string => `${layout.name}, offloads ${offloads}, ${name}: ${text}`;
      test.serial(title('the chain is in force'), async (t) => {
        await putInForce(lab, chain);
        t.true((await pingOnce(lab, 100, 'dont')).received === 1);
      });
      for (const [text, check] of Object.entries(checks)) {
        test.serial(title(text), (t) => keepingLaw(t, { lab, limit, layout, offloads }, check));
      }
      if (offloads === 'off') {
        test.serial(title('every checksum on the wire is right'), (t) =>
          checkWire(t, { lab, limit, layout, offloads }),
        );
      }
    }
  }

  test.serial(
    `${layout.name}: on every host each packet was counted under exactly one outcome`,
    async (t) => {
      for (const host of agentHosts) t.deepEqual(findUnbalanced(await readDrops(lab, host)), [], host);
    },
  );
}

async function setMtus(lab: TestLab, { mtus, topology }: Layout): Promise<void> {
  for (const cable of topology.cables) {
    const mtu = cable.map((end) => mtus[end.split(':')[1] ?? '']).find((value) => value !== undefined);
    if (mtu === undefined) continue;
    for (const end of cable) {
      const [host = '', device = ''] = end.split(':');
      await lab.on(host, 'ip', 'link', 'set', device, 'mtu', String(mtu));
    }
  }
  await Promise.all(agentHosts.map((host) => waitForMtus(lab, host)));
}

/** Until the agent knows what its interfaces are now. */
async function waitForMtus(lab: TestLab, host: string): Promise<void> {
  const links: { ifname: string; mtu: number }[] = JSON.parse(await lab.on(host, 'ip', '-j', 'link'));
  const deadline = Date.now() + 5000;
  for (;;) {
    const { interfaces } = await readStatus(lab, host);
    const late = interfaces.filter(({ name, mtu }) => links.some((l) => l.ifname === name && l.mtu !== mtu));
    if (late.length === 0) return;
    if (Date.now() > deadline) throw new Error(`${host} does not take notice: ${JSON.stringify(late)}`);
  }
}

async function setOffloads(lab: TestLab, { topology }: Layout, state: 'on' | 'off'): Promise<void> {
  const features = ['tx', 'rx', 'tso', 'gso', 'gro'].flatMap((feature) => [feature, state]);
  await Promise.all(
    topology.cables.flat().map((end) => {
      const [host = '', device = ''] = end.split(':');
      return lab.on(host, 'ethtool', '-K', device, ...features);
    }),
  );
}

/** Around each check: a sender that knows nothing yet, no broken packet, and losses of which each has a name. */
async function keepingLaw(t: ExecutionContext, c: Case, check: Check): Promise<void> {
  await forgetMtu(c.lab);
  const broken = await Promise.all(['client', 'server'].map((host) => countBroken(c.lab, host)));
  await check(t, c);
  t.deepEqual(await Promise.all(['client', 'server'].map((host) => countBroken(c.lab, host))), broken);
}

const checks: Record<string, Check> = {
  'a TCP stream gets through both ways at once, byte for byte': async (t, { lab }) => {
    const before = await readLedger(lab);
    t.true(await carryStream(lab, 10_000_000));
    // Full-size segments sent before the path MTU is known, and nothing else.
    const dropped = subtractLedger(await readLedger(lab), before);
    for (const name of Object.keys(dropped)) t.regex(name, / too_big$/);
  },

  'datagrams of all kinds that fit are delivered byte for byte': async (t, { lab, limit }) => {
    const kinds = [
      { size: 100, count: 50, discover: 'want' },
      { size: 1200, count: 20, discover: 'do' },
      { size: 1252, count: 20, discover: 'do' },
      { size: limit - 28, count: 20, discover: 'do' },
      { size: 24_000, count: 5, discover: 'want', segment: 1200 },
      { size: (limit - 28) * 10, count: 5, discover: 'do', segment: limit - 28 },
      { size: 4000, count: 20, discover: 'dont' },
      { size: 9000, count: 5, discover: 'want' },
    ] as const;
    for (const kind of kinds) {
      await countLosses(t, lab, [], async () => {
        const { sent, refused, received, same } = await sendDatagrams(lab, kind);
        t.is(refused, 0, JSON.stringify(kind));
        t.is(received, sent, JSON.stringify(kind));
        t.true(same, JSON.stringify(kind));
        return sent - received;
      });
    }
  },

  'a sender with DF learns by the first datagram that is a byte too long': async (
    t,
    { lab, limit, layout, offloads },
  ) => {
    if (limit === layout.access) {
      t.is((await sendDatagrams(lab, { size: limit - 27, count: 5, discover: 'do' })).refused, 5);
      return;
    }
    for (const segment of [undefined, limit - 27]) {
      await forgetMtu(lab);
      const size = (limit - 27) * (segment === undefined ? 1 : 4);
      await countLosses(t, lab, ['too_big'], async () => {
        const sent = await sendDatagrams(lab, {
          size,
          count: 5,
          discover: 'do',
          ...(segment && { segment }),
        });
        t.is(sent.received, 0);
        t.is(sent.refused, 4);
        // Without offloads the client's kernel cuts what is one packet for the hosts otherwise.
        return segment !== undefined && offloads === 'off' ? 4 : 1;
      });
      t.is(await learnedMtu(lab), limit);
    }
  },

  'without DF sizes around the limit are fragmented, or the sender is told and fragments itself': async (
    t,
    { lab, limit, layout },
  ) => {
    for (const bytes of new Set([limit - 1, limit, Math.min(limit + 1, layout.access), layout.access])) {
      await forgetMtu(lab);
      await countLosses(t, lab, ['cannot_fragment'], async () => {
        const { sent, received } = await sendDatagrams(lab, {
          size: bytes - 28,
          count: 10,
          discover: 'dont',
        });
        t.true(sent - received <= 2, `${sent - received} of ${sent} lost with ${bytes} bytes`);
        return sent - received;
      });
    }
  },

  'ping with DF fits up to the limit, and is told the limit beyond': async (t, { lab, limit, layout }) => {
    for (const bytes of [limit - 1, limit]) {
      t.like(await pingOnce(lab, bytes, 'do'), { received: 1, mtu: null }, `${bytes} bytes`);
    }
    for (const bytes of [limit + 1, layout.access]) {
      await forgetMtu(lab);
      // A packet that fits the first legs only is told of by the hop before the narrow one, at the second try.
      for (
        let known = bytes;
        known > limit && known <= layout.access;
        known = (await learnedMtu(lab)) ?? bytes
      ) {
        await countLosses(t, lab, ['too_big'], async () => {
          const { received, mtu, by } = await pingOnce(lab, known, 'do');
          t.is(received, 0);
          t.true(mtu !== null && mtu < known, `${mtu} for ${known} bytes`);
          t.true(layout.way.includes(by ?? ''), `told by ${by}`);
          return 1;
        });
      }
      if (bytes > limit) {
        t.like(await pingOnce(lab, bytes, 'do'), {
          received: 0,
          mtu: Math.min(limit, layout.access),
          by: null,
        });
      }
    }
  },

  'ping without DF gets through in fragments of any number': async (t, { lab, limit, layout }) => {
    for (const bytes of [limit + 1, layout.access, 4028, 20_028]) {
      await countLosses(t, lab, [], async () => {
        t.like(await pingOnce(lab, bytes, 'dont'), { received: 1 }, `${bytes} bytes`);
        return 0;
      });
    }
  },

  'tracepath finds the limit, and traceroute every hop': async (t, { lab, limit, layout }) => {
    const found = await onEitherWay(lab, 'client', ['tracepath', '-n', server]);
    t.regex(found, new RegExp(`Resume: pmtu ${limit} `));
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
      layout.way,
    );
  },
};

async function checkWire(t: ExecutionContext, { lab, limit }: Case): Promise<void> {
  const fields = ['ip.checksum.status', 'tcp.checksum.status', 'udp.checksum.status', 'icmp.checksum.status'];
  const rows = await capture(lab, 'server', 'eth0', 'ip', fields, async () => {
    await lab.on('client', 'curl', '-sS', '-o', '/dev/null', `http://${server}/`);
    await pingOnce(lab, limit, 'do');
    await pingOnce(lab, 4028, 'dont');
    await sendDatagrams(lab, { size: 500, count: 3, discover: 'want' });
    await sendDatagrams(lab, { size: limit - 20, count: 3, discover: 'dont' });
  });
  t.true(rows.length > 20, `${rows.length} packets`);
  const bad = rows.filter((row) => row.some((status) => status.split(',').includes('0')));
  t.deepEqual(bad, []);
  t.true(rows.some(([, tcp]) => tcp === '1') && rows.some(([, , udp]) => udp === '1'), 'tshark verified');
}
