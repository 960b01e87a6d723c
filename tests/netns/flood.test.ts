/** As many hostile packets as the machine can send, on an edge port and a mesh port of one host at once. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import test from 'ava';
import { enums } from '../../src/layout.js';
import { loadNative } from '../../src/native.js';
import { reasons } from '../../src/reasons.js';
import { chained, corpus, neighbour } from '../helpers/corpus.js';
import { sendDatagrams } from '../helpers/delivery.js';
import { compileFlood, flood } from '../helpers/flood.js';
import {
  createHostileLab,
  findPort,
  type HostileLab,
  readUntil,
  subtractPort,
} from '../helpers/hostile-lab.js';
import { ethernet, ipv4, options, sourceRoute, udp } from '../helpers/packet.js';
import { findUnbalanced, readDrops, readStatus } from '../helpers/wire.js';
import { client, server } from '../parser/chains.js';

const seconds = 3;
/** Frames a second on both ports together, also on a machine that does something else. */
const rateMin = 50_000;
/** Of one processor. */
const daemonShareMax = 0.2;
const daemonGrowthMax = 64 << 20;
const askEveryMs = 500;
const answerMaxMs = 1000;

interface Frame {
  bytes: Buffer;
  reason: string;
}

let lab: HostileLab;
let folder: string;
let program: string;

test.before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'lsr-flood-'));
  program = compileFlood(folder);
  lab = await createHostileLab();
});

test.after.always(async () => {
  await lab?.remove();
  if (folder) rmSync(folder, { recursive: true });
});

test.serial(
  'under a flood everything is counted, the daemon rests, and what is right is carried on',
  async (t) => {
    const ports = {
      edge0: { host: 'client', device: 'eth0', frames: makeFrames('edge', 'fw:edge0', 'client:eth0') },
      mesh1: { host: 'intruder', device: 'eth1', frames: makeFrames('mesh', 'fw:mesh1', 'intruder:eth1') },
    };
    const send = ({ host, device, frames }: typeof ports.edge0) =>
      flood(
        program,
        { lab, host, device },
        frames.map(({ bytes }) => bytes),
        seconds,
      );
    const { pid } = await readStatus(lab, 'fw');
    const lost = () => Promise.all(Object.values(ports).map(({ host, device }) => readLost(host, device)));
    const before = { view: await readDrops(lab, 'fw'), lost: await lost(), daemon: readDaemon(pid) };

    const ending = new AbortController();
    const watching = watchDaemon(ending.signal);
    const [edge, mesh, meanwhile] = await Promise.all([
      send(ports.edge0),
      send(ports.mesh1),
      sendDatagrams(lab, { size: 100, count: 100, discover: 'dont' }),
    ]);
    const daemon = readDaemon(pid);
    ending.abort();
    const { slowest, sampled, samplings } = await watching;
    const sent = { edge0: edge, mesh1: mesh };

    const rate = Object.values(sent).reduce((sum, { taken, seconds }) => sum + add(taken) / seconds, 0);
    t.log(`${Math.round(rate)} frames a second were taken`);
    t.true(rate >= rateMin);

    // What the kernel took and did not bring to the port it has dropped in between, and counts at the sender's end of the cable.
    const after = await lost();
    for (const [i, name] of (['edge0', 'mesh1'] as const).entries()) {
      const { taken, refused } = sent[name];
      const { frames } = ports[name];
      const silent = (after[i] ?? 0) - (before.lost[i] ?? 0) - refused;
      const all = add(taken) - silent;
      const read = async () =>
        subtractPort(
          findPort(await readDrops(lab, 'fw'), name, 'ingress'),
          findPort(before.view, name, 'ingress'),
        );
      const {
        received,
        passed = 0,
        event_lost = 0,
        flow_lost = 0,
        ...counted
      } = await readUntil(read, ({ received = 0, passed = 0 }) => received - passed >= all);
      t.log(`${name}: ${add(taken)} taken, ${silent} of them lost in the kernel, ${refused} refused`);
      t.is((received ?? 0) - passed, all);
      t.is(add(Object.values(counted)), all);
      const expected: Record<string, number> = {};
      frames.forEach(({ reason }, j) => {
        expected[reason] = (expected[reason] ?? 0) + (taken[j] ?? 0);
      });
      t.deepEqual(Object.keys(counted).sort(), Object.keys(expected).sort());
      const missing = Object.entries(expected).map(([reason, count]) => count - (counted[reason] ?? 0));
      t.true(missing.every((count) => count >= 0));
      t.is(add(missing), silent);
      t.is(event_lost, 0);
      t.is(flow_lost, 0);
      for (const { reason } of frames)
        t.true(sampled.has(`${name} ${reason}`), `no sample of ${name} ${reason}`);
    }
    t.deepEqual(findUnbalanced(await readDrops(lab, 'fw')), []);

    const share = (daemon.cpuSeconds - before.daemon.cpuSeconds) / seconds;
    t.log(`daemon: ${(100 * share).toFixed(1)} % of a processor, slowest answer ${Math.round(slowest)} ms`);
    t.true(share < daemonShareMax);
    t.true(slowest < answerMaxMs);
    const grown = daemon.bytes - before.daemon.bytes;
    t.log(`daemon: ${(grown / 2 ** 20).toFixed(1)} MiB more`);
    t.true(grown < daemonGrowthMax);

    const kinds = new Set(
      Object.entries(ports).flatMap(([name, { frames }]) => frames.map(({ reason }) => `${name} ${reason}`)),
    );
    const { LSR_SAMPLES_PER_SECOND, LSR_SAMPLES_BURST } = enums.lsr_limits;
    const processors = loadNative().possibleCpus();
    for (const { events, seconds } of samplings) {
      const most =
        processors * (LSR_SAMPLES_BURST + kinds.size + seconds * (LSR_SAMPLES_PER_SECOND + kinds.size));
      t.true(events <= most, `${events} events in ${seconds} s`);
    }
    const last = samplings.at(-1);
    t.log(`events: the last ${last?.events} in ${last?.seconds.toFixed(2)} s`);

    t.log(`meanwhile ${meanwhile.received} of ${meanwhile.sent} datagrams were carried through a chain`);
    const afterwards = await sendDatagrams(lab, { size: 100, count: 100, discover: 'dont' });
    t.is(afterwards.received, 100);
    t.true(afterwards.same);
  },
);

/** Every packet of the corpus that is dropped and not answered, and source routes of no chain from many ports. */
function makeFrames(role: 'mesh' | 'edge', to: string, from: string): Frame[] {
  const frame = (packet: Uint8Array, broadcast = false): Buffer =>
    ethernet(broadcast ? 'ff:ff:ff:ff:ff:ff' : (lab.macs[to] ?? ''), packet, 0x0800, lab.macs[from]);
  const dropped = new Set(reasons.filter(({ kind }) => kind === 'drop').map(({ name }) => name));
  // What is looked at only if it came from the hop before, which is not on this leg.
  const behind = ['ttl', 'tag_wrong', 'key_unknown', 'key_expired'];
  const rows = corpus.flatMap(({ packet, broadcast, [role]: counted }) => {
    const [reason = '', ...notes] = counted ?? [];
    if (!dropped.has(reason) || behind.includes(reason) || notes.length > 0) return [];
    return [{ bytes: frame(packet, broadcast), reason }];
  });
  const strangers = Array.from({ length: 200 }, (_, i) => {
    const route = options(sourceRoute(['10.0.0.9', neighbour, server]));
    const payload = udp({ sourcePort: 5000 + i });
    const packet = ipv4({ source: client, destination: '10.0.0.2', options: route, payload });
    return { bytes: frame(packet), reason: role === 'edge' ? 'edge_option' : 'unknown_path' };
  });
  const away = { bytes: frame(ipv4(chained('from-aside', 2))), reason: 'previous_hop' };
  return [...rows, ...strangers, ...(role === 'mesh' ? [away] : [])];
}

/** Frames that a veth has not brought to its other end. */
async function readLost(host: string, device: string): Promise<number> {
  const [link] = JSON.parse(await lab.on(host, 'ip', '-j', '-s', 'link', 'show', device));
  return link.stats64.tx.dropped;
}

function readDaemon(pid: number): { cpuSeconds: number; bytes: number } {
  // proc(5): the fields behind the name, from the third on
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  const ticksPerSecond = 100; // USER_HZ
  return {
    cpuSeconds: (Number(fields[11]) + Number(fields[12])) / ticksPerSecond,
    bytes: Number(fields[21]) * Number(execFileSync('getconf', ['PAGESIZE'], { encoding: 'utf8' })),
  };
}

/** Asks the daemon now and then: its slowest answer, ports and reasons that were sampled, and how dense the samples were. */
async function watchDaemon(signal: AbortSignal) {
  let slowest = 0;
  const sampled = new Set<string>();
  const samplings: { events: number; seconds: number }[] = [];
  while (!signal.aborted) {
    await setTimeout(askEveryMs);
    const start = performance.now();
    const { samples } = await readDrops(lab, 'fw');
    slowest = Math.max(slowest, performance.now() - start);
    for (const { interface: name, reason } of samples) sampled.add(`${name} ${reason}`);
    const times = samples.map(({ time }) => Date.parse(time));
    samplings.push({
      events: samples.length,
      seconds: ((times.at(0) ?? 0) - (times.at(-1) ?? 0)) / 1000,
    });
  }
  return { slowest, sampled, samplings };
}

const add = (counts: readonly number[]): number => counts.reduce((sum, count) => sum + count, 0);
