/**
 * One header, three opinions: the programs in the kernel, bpf/parse.h in user space under sanitizers, and
 * tests/helpers/header.ts. LSR_SEED and LSR_PACKETS choose other random packets, and more of them.
 */
import test, { type ExecutionContext } from 'ava';
import { ethernet } from '../helpers/packet.js';
import { applyMesh, countAll, macOf, openTestbed, sendFrame, type Testbed } from '../helpers/testbed.js';
import { makeChainPackets, mesh, node } from '../parser/chains.js';
import { DECISION_BYTES, readDecision } from '../parser/decision.js';
import { expectReasons, type Place, reasonsOfMesh } from '../parser/expectation.js';
import { findDisagreements, type Harness, judge, openHarness } from '../parser/harness.js';
import { PacketBatch } from '../parser/packet-batch.js';
import {
  bendChains,
  countOptions,
  exhaust,
  reduced,
  resizeChains,
  seedRandom,
  vary,
  whole,
} from '../parser/packets.js';
import { openRunners, PACKET_BYTES_MIN, type Runner } from '../parser/port-runner.js';

const batchSize = 50_000;
const seed = Number(process.env.LSR_SEED ?? 791);
const randomPackets = Number(process.env.LSR_PACKETS ?? 200_000);
/** Every packet meets the mesh port, every eighth also one of these. */
const otherPlaces: Place[] = ['broadcast', 'edge', 'strip', 'local'];
const everyEighth = 8;

let bed: Testbed;
let harness: Harness;
let runners: Record<Place, Runner>;
const seen = new Map<Place, Map<string, number>>();

test.before(async () => {
  bed = await openTestbed();
  applyMesh(bed, mesh, node);
  harness = openHarness();
  runners = openRunners(bed);
});

test.after.always(() => {
  harness?.close();
  bed?.close();
});

test.serial('every type, length and pointer at every offset is judged alike', (t) => {
  t.log(`${countOptions(reduced)} packets stand for the ${countOptions(whole)} that there are`);
  compareAll(t, exhaust(reduced), countOptions(reduced));
});

test.serial(
  'every packet of a chain with any byte replaced, cut anywhere, or at another node is judged alike',
  (t) => {
    compareAll(t, bendChains(), 50_000);
  },
);

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

test.serial('on the wire: a frame that ends inside its base header is short, wherever it ends', (t) => {
  const chain = makeChainPackets()[0] ?? Buffer.alloc(0);
  const batch = new PacketBatch();
  for (let length = 1; length < PACKET_BYTES_MIN; length++) batch.add(chain.subarray(0, length));
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
  for (const [place, counts] of seen) t.log(`${place}: ${JSON.stringify(Object.fromEntries(counts))}`);
  t.deepEqual(
    reasonsOfMesh.filter((reason) => !seen.get('mesh')?.has(reason)),
    [],
  );
});

/** Compares the three opinions on `packets`, of which there must be `least`. */
function compareAll(t: ExecutionContext, packets: Iterable<Buffer>, least: number, segmented = false): void {
  const batch = new PacketBatch();
  const start = performance.now();
  let count = 0;
  let runs = 0;
  const compareBatch = (): void => {
    runs += compare(t, batch);
    count += batch.count;
    batch.clear();
  };
  for (const packet of packets) {
    batch.add(packet, segmented);
    if (batch.count === batchSize) compareBatch();
  }
  compareBatch();
  t.log(`${count} packets, ${runs} runs in ${((performance.now() - start) / 1000).toFixed(1)} s`);
  t.true(count >= least);
}

/** Fails at the first batch with a disagreement, and shows some of them. Returns how often a program ran. */
function compare(t: ExecutionContext, batch: PacketBatch): number {
  const fromC = harness.decide(batch);
  const lines = findDisagreements(batch, fromC, judge(batch)).slice(0, 5);
  let runs = 0;
  for (let i = 0; i < batch.count && lines.length < 5; i++) {
    const other = i % everyEighth === 0 ? otherPlaces[(i / everyEighth) % otherPlaces.length] : undefined;
    for (const place of other ? (['mesh', other] as const) : (['mesh'] as const)) {
      if (batch.packet(i).length < PACKET_BYTES_MIN) continue;
      const line = runOne(place, batch, i, fromC);
      if (line) lines.push(line);
      runs++;
    }
  }
  if (lines.length > 0) t.fail(`they disagree, among others about\n${lines.join('\n')}`);
  return runs;
}

/** What to print where a program does something else than C and TypeScript have it; null where not. */
function runOne(place: Place, batch: PacketBatch, index: number, fromC: Buffer): string | null {
  const packet = Buffer.from(batch.packet(index));
  const expected = expectReasons(place, packet, readDecision(fromC, index), batch.isSegmented(index));
  const { moved, frame } = runners[place](packet, batch.isSegmented(index));
  const [reason = 'nothing', ...more] = moved;
  const counts = seen.get(place) ?? new Map<string, number>();
  seen.set(place, counts.set(reason, (counts.get(reason) ?? 0) + 1));
  const options = place === 'strip' && reason === 'passed' && ((frame[14] ?? 0) & 15) > 5;
  if (more.length === 0 && expected.includes(reason) && !options) return null;
  const decision = fromC.subarray(index * DECISION_BYTES, (index + 1) * DECISION_BYTES);
  return [
    `packet ${packet.toString('hex')}${batch.isSegmented(index) ? ' as GSO' : ''} at ${place}`,
    `  BPF        ${moved.join(', ')}${options ? ' with its options' : ''}`,
    `  expected   ${expected.join(' or ')}`,
    `  C and TypeScript ${decision.toString('hex')}`,
  ].join('\n');
}
