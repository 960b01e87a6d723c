/** Hostile packets as frames on the cables of real agents: what host fw counts, what it lets out, and whom it answers. */
import test, { type ExecutionContext } from 'ava';
import { mapPin } from '../../src/datapath.js';
import { stopProcesses } from '../../src/lab-processes.js';
import { agentHosts, hostFolder, program } from '../../src/lab-standing.js';
import { loadNative } from '../../src/native.js';
import { putMeshOn } from '../helpers/chains.js';
import { type CorpusRow, chained, chainedPort, corpus, unrouted } from '../helpers/corpus.js';
import { endFrames, type FrameSender, openSender, watchFrames } from '../helpers/frames.js';
import {
  createHostileLab,
  findPort,
  type HostileLab,
  hostileMesh,
  type Port,
  readUntil,
  readViews,
  subtractPort,
  type Views,
  weighMesh,
} from '../helpers/hostile-lab.js';
import { ethernet, internetChecksum, ipv4, tcp, udp } from '../helpers/packet.js';
import { findUnbalanced, isBalanced, readDrops } from '../helpers/wire.js';
import { repair } from '../parser/base.js';
import { client, server } from '../parser/chains.js';
import { readDecision } from '../parser/decision.js';
import { expectReasons } from '../parser/expectation.js';
import { judge } from '../parser/harness.js';
import { PacketBatch } from '../parser/packet-batch.js';
import { cut, fillOptions, replaceBytes, resize, seedRandom } from '../parser/packets.js';
import { PortCounters } from '../parser/port-runner.js';

type Role = 'mesh' | 'edge';

let lab: HostileLab;
const senders = {} as Record<Role, FrameSender>;

test.before(async () => {
  lab = await createHostileLab();
  senders.mesh = await openSender(lab, 'intruder', 'eth0');
  senders.edge = await openSender(lab, 'client', 'eth0');
});

test.after.always(async () => {
  await endFrames();
  await lab?.remove();
});

/** On the mesh port as if from the hop before. */
function frameFor(role: Role, packet: Uint8Array, broadcast = false): Buffer {
  const [to, from] = role === 'mesh' ? ['fw:mesh0', 'edge:mesh0'] : ['fw:edge0', 'client:eth0'];
  return ethernet(broadcast ? 'ff:ff:ff:ff:ff:ff' : (lab.macs[to] ?? ''), packet, 0x0800, lab.macs[from]);
}

/** Sends a packet to a port of fw; returns what that port has counted. */
async function sendOne(role: Role, packet: Uint8Array, broadcast = false): Promise<Record<string, number>> {
  return countOne(role, () => senders[role].send(frameFor(role, packet, broadcast)));
}

async function countOne(role: Role, send: () => Promise<void>): Promise<Record<string, number>> {
  const read = async () => findPort(await readDrops(lab, 'fw'), `${role}0`, 'ingress');
  const before = await read();
  await send();
  // Whoever reads while a packet is counted may see one counter moved and the other not yet.
  const isCounted = (port: Port): boolean => port.received > before.received && isBalanced(port);
  return subtractPort(await readUntil(read, isCounted), before);
}

const good = ipv4({ source: client, destination: server, payload: udp({ destinationPort: chainedPort }) });

test.serial('every number of the corpus has a row, or a test of its own', (t) => {
  const numbers = new Set([...corpus.map(({ h }) => h), 73, 74, 76]);
  const missing = Array.from({ length: 79 }, (_, i) => i + 1).filter((h) => !numbers.has(h));
  t.deepEqual(missing, []);
  t.true(numbers.has(87));
});

test.serial('a plain packet to where no plain route goes gets a chain at once', async (t) => {
  const before = await readViews(lab);
  t.deepEqual(await sendOne('edge', ipv4({ source: client, destination: unrouted })), {
    received: 1,
    imposed: 1,
  });
  await settle(before, 0);
});

test.serial('a plain packet from the client gets a chain and reaches the server', async (t) => {
  const before = await readViews(lab);
  const seen = await watchFrames(lab, 'server', 'eth0');
  t.deepEqual(await sendOne('edge', good), { received: 1, passed: 1 });
  const after = await settle(before, 0);
  t.is((await seen.finish()).length, 1);
  t.is(countAt(after, before, 'fw', 'mesh0', 'egress').imposed, 1);
  t.is(countAt(after, before, 'ids', 'mesh0', 'ingress').advanced, 1);
  t.is(countAt(after, before, 'gw', 'mesh0', 'ingress').ended, 1);
});

for (const role of ['mesh', 'edge'] as const) {
  const rows = corpus.filter((row) => row[role] !== null);
  let watched: Watched;

  test.serial(`${role} port: everything is watched`, async (t) => {
    watched = await watchAll();
    t.pass();
  });

  for (const row of rows) {
    const [reason = '', ...notes] = row[role] ?? [];
    test.serial(`${role} port: H${row.h} ${row.title}: ${reason}`, async (t) => {
      t.deepEqual(await sendOne(role, row.packet, row.broadcast), {
        received: 1,
        [reason]: 1,
        ...Object.fromEntries(notes.map((note) => [note, 1])),
      });
    });
  }

  test.serial(`${role} port: each packet is where the counters say, and no other is`, async (t) => {
    const passed = rows.filter(({ [role]: counted }) => counted?.[0] === 'passed');
    await checkAll(t, watched, {
      role,
      sent: rows.length,
      arrivals: role === 'mesh' ? countArrivals(rows) : 0,
      passed: passed.map(({ packet }) => packet),
      imposed: role === 'edge' ? 1 : 0,
    });
  });

  test.serial(`${role} port: made-up packets are counted as the model of tests/parser has it`, async (t) => {
    const watched = await watchAll();
    const counters = new PortCounters(openCounters(), `${role}0`, 'ingress');
    const packets = [...makeUp()];
    const passed: Buffer[] = [];
    const seen = new Map<string, number>();
    const wrong: string[] = [];
    const batch = new PacketBatch();
    for (const packet of packets) batch.add(packet);
    const opinions = judge(batch);
    for (const [i, packet] of packets.entries()) {
      await senders[role].send(frameFor(role, packet));
      const moved = await takeMoved(counters);
      const [reason = ''] = moved;
      const expected = expectReasons(role, packet, readDecision(opinions, i), false);
      if (moved.length !== 1 || !expected.includes(reason)) {
        wrong.push(`${packet.toString('hex')}: ${moved.join(' ')} instead of ${expected.join(' or ')}`);
      }
      if (reason === 'passed') passed.push(packet);
      seen.set(reason, (seen.get(reason) ?? 0) + 1);
    }
    t.log(
      `${packets.length} packets: ${[...seen].map(([reason, count]) => `${reason} ${count}`).join(', ')}`,
    );
    t.deepEqual(wrong.slice(0, 5), [], `${wrong.length} packets`);
    const arrivals = role === 'mesh' ? packets.length : 0;
    await checkAll(t, watched, { role, sent: packets.length, arrivals, passed, imposed: 0 });
  });
}

test.serial(
  'H73 a packet of 60,000 bytes for the device to cut becomes segments that are right one by one',
  async (t) => {
    for (const [host, device] of [
      ['fw', 'mesh0'],
      ['gw', 'edge0'],
    ] as const) {
      await lab.on(host, 'ethtool', '-K', device, 'tso', 'off', 'gso', 'off');
    }
    const size = 1400;
    const data = 'segment '.repeat(7500);
    const ends = { source: client, destination: server };
    const packet = ipv4({ ...ends, protocol: 6, fragment: 0x4000, payload: tcp(ends, { data }) });
    const watched = {
      switch: await watchFrames(lab, 'switch', 'fw'),
      server: await watchFrames(lab, 'server', 'eth0'),
    };
    const sender = await openSender(lab, 'client', 'eth0', 'segment');
    const before = await readViews(lab);
    t.deepEqual(await countOne('edge', () => sender.send(frameFor('edge', packet), size)), {
      received: 1,
      passed: 1,
    });
    await settle(before, 0);
    const count = Math.ceil(data.length / size);
    for (const [where, watch] of Object.entries(watched)) {
      const segments = (await watch.finish()).map((frame) => frame.subarray(14));
      t.is(segments.length, count, where);
      const first = segments[0]?.readUInt16BE(4) ?? 0;
      for (const [i, segment] of segments.entries()) {
        const header = ((segment[0] ?? 0) & 15) * 4;
        t.is(header > 20, where === 'switch');
        t.is(segment.readUInt16BE(2), segment.length);
        t.is(segment.length, header + 20 + Math.min(size, data.length - i * size));
        t.is(segment.readUInt16BE(4), first + i);
        t.is(internetChecksum(segment.subarray(0, header)), 0);
      }
    }
  },
);

test.serial(
  'H74 a header that is split over pages of the skb after any byte is read, and advances',
  async (t) => {
    const sender = await openSender(lab, 'intruder', 'eth0', 'split');
    const packet = ipv4(chained('through', 2));
    for (let page = 1; page < 60; page++) {
      const counted = await countOne('mesh', () => sender.send(frameFor('mesh', packet), page));
      t.deepEqual(counted, { received: 1, advanced: 1 }, `after ${page} bytes`);
    }
  },
);

test.serial(
  'H76 a path that the newest mesh no longer has is taken for a while, and then is unknown',
  async (t) => {
    const packet = ipv4(chained('through', 2));
    const { through: _, ...chains } = hostileMesh.chains;
    const rules = hostileMesh.rules.filter(({ chain }) => chain !== 'through');
    await putMeshOn(lab, 'fw', { ...hostileMesh, chains, rules });
    t.deepEqual(await sendOne('mesh', packet), { received: 1, advanced: 1 });
    const last = await readUntil(
      () => sendOne('mesh', packet),
      ({ advanced }) => advanced === undefined,
    );
    t.deepEqual(last, { received: 1, unknown_path: 1 });
  },
);

test.serial('the negative control: with the programs taken away an option gets through', async (t) => {
  await stopProcesses(`${lab.prefix}fw`, hostFolder(lab, 'fw'));
  await lab.on('fw', process.execPath, program, 'unload', '--config', `${hostFolder(lab, 'fw')}/agent.yaml`);
  const seen = await watchFrames(lab, 'switch', 'fw');
  const recorded = corpus.find(({ h }) => h === 2)?.packet ?? Buffer.alloc(0);
  const read = async () => findPort(await readDrops(lab, 'gw'), 'mesh0', 'ingress').received;
  const before = await read();
  await senders.edge.send(frameFor('edge', recorded));
  t.is(await readUntil(read, (received) => received > before), before + 1);
  t.is((await seen.finish()).filter(hasOptions).length, 1);
});

interface Watched {
  before: Views;
  client: Watch;
  switch: Watch;
}
type Watch = Awaited<ReturnType<typeof watchFrames>>;

async function watchAll(): Promise<Watched> {
  return {
    before: await readViews(lab),
    client: await watchFrames(lab, 'client', 'eth0'),
    switch: await watchFrames(lab, 'switch', 'fw'),
  };
}

interface Sent {
  role: Role;
  sent: number;
  /** Frames that the agents got of these from the mesh. */
  arrivals: number;
  /** Those that were handed to the stack. */
  passed: readonly Uint8Array[];
  imposed: number;
}

/** The law of conservation on every host, and that nobody outside has had an answer or got an option through. */
async function checkAll(t: ExecutionContext, { before, ...watched }: Watched, expected: Sent): Promise<void> {
  const { role, sent, arrivals } = expected;
  const after = await settle(before, arrivals);
  const answers = await watched.client.finish();
  const out = await watched.switch.finish();
  for (const host of agentHosts) {
    const view = after.agents[host];
    t.deepEqual(view && findUnbalanced(view), [], host);
  }
  t.is(countAt(after, before, 'fw', `${role}0`, 'ingress').received, sent);
  const mesh = weighMesh(after, before);
  t.is(mesh.arrived, mesh.sent + arrivals);
  const { own = 0, passed = 0, imposed = 0 } = countAt(after, before, 'fw', 'mesh0', 'egress');
  t.is(out.length, own + passed);
  if (role === 'mesh') return;
  t.is(imposed, expected.imposed);
  t.is(out.filter(hasOptions).length, imposed);
  // The stack may say something about what it was given, and so may hosts that such a packet got to.
  const known = new Set(expected.passed.map(describe));
  for (const answer of answers.filter(isIpv4))
    t.true(known.has(describe(answer.subarray(14 + 28))), answer.toString('hex'));
}

/** Packets of chains that visit fw with something changed, and random options. */
function* makeUp(): Generator<Buffer> {
  for (const chain of [chained('through', 2), chained('in', 3)]) {
    const packet = Buffer.from(ipv4(chain));
    yield* replaceBytes(packet);
    yield* cut(packet);
    yield* resize(packet);
  }
  const random = seedRandom(791);
  for (let i = 0; i < 500; i++) yield repair(fillOptions(random));
}

function openCounters() {
  const open = (name: string) => loadNative().openPinnedMap(mapPin(`${lab.bpffs}/fw`, name));
  return { interfaces: open('interfaces'), counters: open('counters') };
}

/** The outcomes and drops of the next packet that is counted. */
async function takeMoved(counters: PortCounters): Promise<string[]> {
  return readUntil(
    async () => counters.takeMoved().filter((name) => !name.startsWith('received')),
    (moved) => moved.length > 0,
  );
}

/** Frames that the agents get of these on the mesh: a broadcast reaches all. */
const countArrivals = (rows: readonly CorpusRow[]): number =>
  rows.reduce((sum, { broadcast }) => sum + (broadcast ? agentHosts.length : 1), 0);

const isIpv4 = (frame: Buffer): boolean => frame.readUInt16BE(12) === 0x0800;
const hasOptions = (frame: Buffer): boolean => isIpv4(frame) && ((frame[14] ?? 0) & 15) > 5;

/** What a router leaves of a packet without options. */
const describe = (packet: Uint8Array): string =>
  [0, 1, 4, 5, 9, 12, 13, 14, 15, 16, 17, 18, 19].map((at) => packet[at]).join(' ');

const countAt = (after: Views, before: Views, host: string, port: string, direction: 'ingress' | 'egress') =>
  subtractPort(findPort(after.agents[host], port, direction), findPort(before.agents[host], port, direction));

/** Until what went into the switch, `sent` by us included, has come out of it, and nothing more does. */
function settle(before: Views, sent: number): Promise<Views> {
  let last = -1;
  return readUntil(
    () => readViews(lab),
    (after) => {
      const mesh = weighMesh(after, before);
      const still = mesh.arrived === last;
      last = mesh.arrived;
      return still && mesh.arrived >= mesh.sent + sent;
    },
  );
}
