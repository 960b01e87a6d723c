/**
 * One header, three opinions: the programs in the kernel, bpf/parse.h in user space under sanitizers, and
 * tests/helpers/header.ts. LSR_SEED and LSR_PACKETS choose other random packets, and more of them.
 */
import test, { type ExecutionContext } from 'ava';
import { KeyRing } from '../../src/key-ring.js';
import { enums } from '../../src/layout.js';
import { ethernet } from '../helpers/packet.js';
import { applyMesh, countAll, macOf, openTestbed, sendFrame, type Testbed } from '../helpers/testbed.js';
import { keys, makeChainPackets, mesh, node } from '../parser/chains.js';
import { Comparison, type Opinions } from '../parser/comparison.js';
import { DECISION_BYTES, readDecision } from '../parser/decision.js';
import { countOptions, exhaust, reduced, whole } from '../parser/exhaustion.js';
import { reasonsOfMesh } from '../parser/expectation.js';
import { findDisagreements, type Harness, judge, openHarness } from '../parser/harness.js';
import { PacketBatch } from '../parser/packet-batch.js';
import { bendChains, resizeChains, seedRandom, vary } from '../parser/packets.js';
import { openRunners, PACKET_BYTES_MIN } from '../parser/port-runner.js';

const seed = Number(process.env.LSR_SEED ?? 791);
const randomPackets = Number(process.env.LSR_PACKETS ?? 200_000);

let bed: Testbed;
let harness: Harness;
let opinions: Opinions;
let comparison: Comparison;

test.before(async () => {
  bed = await openTestbed();
  applyMesh(bed, mesh, node);
  new KeyRing(bed.datapath.maps).write(keys);
  harness = openHarness();
  opinions = { harness, runners: openRunners(bed), meshEvery: 1, otherEvery: 8 };
  comparison = new Comparison(opinions);
});

test.after.always(() => {
  harness?.close();
  bed?.close();
});

test.serial('a single field that C and TypeScript see differently is told with its packet', (t) => {
  const batch = new PacketBatch();
  for (const packet of makeChainPackets()) batch.add(packet);
  const fromC = harness.decide(batch);
  t.deepEqual(findDisagreements(batch, fromC, judge(batch)), []);
  fromC.writeUInt8(fromC.readUInt8(7 * DECISION_BYTES + 27) ^ 4, 7 * DECISION_BYTES + 27); // the pointer
  const lines = findDisagreements(batch, fromC, judge(batch));
  t.is(lines.length, 1);
  t.true(lines[0]?.includes(Buffer.from(batch.packet(7)).toString('hex')));
});

test.serial('a program that does not do what C and TypeScript decide is told with its packet', (t) => {
  const batch = new PacketBatch();
  for (const packet of makeChainPackets()) batch.add(packet);
  const pretender: Harness = {
    ...harness,
    decide: (packets) => {
      const decisions = harness.decide(packets);
      decisions.writeUInt8(enums.lsr_reason.LSR_DROP_POINTER, 7 * DECISION_BYTES + 1);
      return decisions;
    },
  };
  const lines = new Comparison({ ...opinions, harness: pretender }).compare(batch);
  t.true(
    lines.some((line) => /at mesh\n.*BPF forwarded, expected pointer/.test(line)),
    lines.join('\n'),
  );
});

test.serial('chain packets with a byte replaced, cut, or at another node are judged alike', (t) => {
  compareAll(t, bendChains(), 100_000);
});

for (const segmented of [false, true]) {
  const how = segmented ? ' as GSO' : '';
  test.serial(`every header length with every total length is judged alike${how}`, (t) => {
    compareAll(t, resizeChains(), 10_000, segmented);
  });
}

test.serial('random and mutated packets are judged alike', (t) => {
  t.log(`LSR_SEED=${seed}`);
  compareAll(t, vary(seedRandom(seed), randomPackets), randomPackets);
});

test.serial('every type, length and pointer at every offset is judged alike', (t) => {
  const count = countOptions(reduced);
  t.log(`${count} packets stand for the ${countOptions(whole)} that there are`);
  compareAll(t, exhaust(reduced), count);
});

test.serial('on the wire: a frame that ends inside its base header is short', (t) => {
  const chain = makeChainPackets()[0] ?? Buffer.alloc(0);
  const batch = new PacketBatch();
  for (const length of [1, 8, 16, PACKET_BYTES_MIN - 1]) batch.add(chain.subarray(0, length));
  const fromC = harness.decide(batch);
  t.deepEqual(findDisagreements(batch, fromC, judge(batch)), []);
  const before = countAll(bed, 'mesh0', 'ingress');
  for (let i = 0; i < batch.count; i++) {
    t.is(readDecision(fromC, i).headerFault, 'short');
    sendFrame('mesh0p', ethernet(macOf('mesh0'), batch.packet(i)));
  }
  const after = countAll(bed, 'mesh0', 'ingress');
  t.is((after.short ?? 0) - (before.short ?? 0), batch.count);
});

test.serial('the packets above meet every reason of a mesh port', (t) => {
  for (const [place, counts] of comparison.reasons) {
    t.log(`${place}: ${[...counts].map(([reason, count]) => `${reason} ${count}`).join(', ')}`);
  }
  const met = comparison.reasons.get('mesh');
  t.deepEqual(
    reasonsOfMesh.filter((reason) => !met?.has(reason)),
    [],
  );
});

/** Compares the three opinions on `packets`, of which there must be `least`. */
function compareAll(t: ExecutionContext, packets: Iterable<Buffer>, least: number, segmented = false): void {
  const start = performance.now();
  const { packets: packetsBefore, runs: runsBefore } = comparison;
  const lines = comparison.compareAll(packets, segmented);
  const count = comparison.packets - packetsBefore;
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  t.log(`${count} packets, ${comparison.runs - runsBefore} runs in the kernel, ${seconds} s`);
  if (lines.length > 0) t.fail(`they disagree, among others about\n${lines.join('\n')}`);
  else t.true(count >= least);
}
