import { readDecision } from './decision.js';
import { expectReasons, type Place } from './expectation.js';
import { findDisagreements, type Harness, judge } from './harness.js';
import { PacketBatch } from './packet-batch.js';
import { PACKET_BYTES_MIN, type Runner } from './port-runner.js';

const BATCH_PACKETS = 50_000;
const SHOWN_MAX = 5;
const otherPlaces: Place[] = ['broadcast', 'edge', 'strip', 'local'];

export interface Opinions {
  harness: Harness;
  /** Without, only C and TypeScript are compared. */
  runners?: Record<Place, Runner>;
  /** One packet in so many meets the mesh port. */
  meshEvery: number;
  /** One packet in so many meets one of the other ports, in turn. */
  otherEvery: number;
}

/** The three opinions on packets: what was compared so far, and what came of it. */
export class Comparison {
  packets = 0;
  /** Of a program in the kernel. */
  runs = 0;
  /** How often a program gave a reason, by the place where. */
  readonly reasons = new Map<Place, Map<string, number>>();
  readonly #opinions: Opinions;

  constructor(opinions: Opinions) {
    this.#opinions = opinions;
  }

  /**
   * Compares until `packets` end or `isEnough`, or there is a disagreement; returns lines about some of them.
   * `segmented`: as GSO packets.
   */
  compareAll(packets: Iterable<Buffer>, segmented = false, isEnough = () => false): string[] {
    const batch = new PacketBatch();
    for (const packet of packets) {
      batch.add(packet, segmented);
      if (batch.count < BATCH_PACKETS) continue;
      const lines = this.compare(batch);
      if (lines.length > 0 || isEnough()) return lines;
      batch.clear();
    }
    return this.compare(batch);
  }

  compare(batch: PacketBatch): string[] {
    const { harness, runners, meshEvery, otherEvery } = this.#opinions;
    const fromC = harness.decide(batch);
    const lines = findDisagreements(batch, fromC, judge(batch)).slice(0, SHOWN_MAX);
    for (let i = 0; runners && i < batch.count && lines.length < SHOWN_MAX; i++) {
      if (batch.packet(i).length < PACKET_BYTES_MIN) continue;
      const other = i % otherEvery === 0 ? otherPlaces[(i / otherEvery) % otherPlaces.length] : undefined;
      for (const place of [i % meshEvery === 0 ? 'mesh' : undefined, other] as const) {
        const line = place && this.#run(place, runners[place], batch, i, fromC);
        if (line) lines.push(line);
      }
    }
    this.packets += batch.count;
    return lines;
  }

  /** What to print where a program does something else than C and TypeScript have it. */
  #run(place: Place, run: Runner, batch: PacketBatch, index: number, fromC: Buffer): string | null {
    const packet = Buffer.from(batch.packet(index));
    const segmented = batch.isSegmented(index);
    const decision = readDecision(fromC, index);
    const expected = expectReasons(place, packet, decision, segmented);
    const { moved, frame } = run(packet, segmented);
    this.#count(place, moved);
    const keepsOptions = place === 'strip' && moved[0] === 'passed' && ((frame[14] ?? 0) & 15) > 5;
    if (moved.length === 1 && expected.includes(moved[0] ?? '') && !keepsOptions) return null;
    return [
      `packet ${packet.toString('hex')}${segmented ? ' as GSO' : ''} at ${place}`,
      `  BPF ${moved.join(', ')}${keepsOptions ? ' with its options' : ''}, expected ${expected.join(' or ')}`,
      `  C and TypeScript ${JSON.stringify(decision)}`,
    ].join('\n');
  }

  #count(place: Place, moved: readonly string[]): void {
    const counts = this.reasons.get(place) ?? new Map<string, number>();
    this.reasons.set(place, counts);
    for (const reason of moved) counts.set(reason, (counts.get(reason) ?? 0) + 1);
    this.runs++;
  }
}
