// Looks for packets that C, TypeScript and the kernel judge differently, and runs libFuzzer on the C alone meanwhile.
// Usage: npm run fuzz [-- --seconds N] [--seed N] [--whole]; --whole first exhausts type, length and pointer. Root.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { KeyRing } from '../src/key-ring.js';
import { applyMesh, openTestbed } from '../tests/helpers/testbed.js';
import { keys, makeChainPackets, mesh, node } from '../tests/parser/chains.js';
import { Comparison } from '../tests/parser/comparison.js';
import { exhaust, whole } from '../tests/parser/exhaustion.js';
import { compileParser, openHarness } from '../tests/parser/harness.js';
import { seedRandom, vary } from '../tests/parser/packets.js';
import { openRunners } from '../tests/parser/port-runner.js';

const PACKET_BYTES_MAX = 120;

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '180' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 32) },
    whole: { type: 'boolean', default: false },
  },
});
const seconds = Number(values.seconds);
const seed = Number(values.seed);
if (!(seconds > 0) || !Number.isInteger(seed)) throw new Error('--seconds and --seed want numbers');

const folder = mkdtempSync(join(tmpdir(), 'lsr-fuzz-'));
const fuzzer = startFuzzer();
try {
  const ended = once(fuzzer, 'exit');
  const disagreements = await compareForLong();
  const [code] = await ended;
  if (code !== 0) console.log('libFuzzer found a packet; see above');
  process.exitCode = disagreements.length > 0 || code !== 0 ? 1 : 0;
} finally {
  fuzzer.kill();
  rmSync(folder, { recursive: true });
}

/** The bytes of chains are what it starts from. */
function startFuzzer(): ChildProcess {
  const program = compileParser('fuzz.c', 'address,undefined,fuzzer', folder);
  const corpus = join(folder, 'corpus');
  mkdirSync(corpus);
  makeChainPackets().forEach((packet, i) => {
    writeFileSync(join(corpus, String(i)), Buffer.concat([Buffer.alloc(1), packet]));
  });
  const options = [
    `-max_total_time=${seconds}`,
    `-max_len=${PACKET_BYTES_MAX}`,
    `-seed=${seed}`,
    '-print_final_stats=1',
    '-verbosity=0',
  ];
  return spawn(program, [...options, corpus], { cwd: folder, stdio: ['ignore', 'inherit', 'inherit'] });
}

async function compareForLong(): Promise<string[]> {
  const bed = await openTestbed();
  const harness = openHarness();
  try {
    applyMesh(bed, mesh, node);
    new KeyRing(bed.datapath.maps).write(keys);
    const runners = openRunners(bed);
    const comparison = new Comparison({ harness, runners, meshEvery: 64, otherEvery: 1024 });
    const lines = values.whole ? comparison.compareAll(exhaust(whole)) : [];
    const start = performance.now();
    const isEnough = (): boolean => performance.now() - start > 1000 * seconds;
    console.log(`${comparison.packets} packets exhausted; random ones with --seed ${seed}`);
    if (lines.length === 0) {
      lines.push(...comparison.compareAll(vary(seedRandom(seed), Number.POSITIVE_INFINITY), false, isEnough));
    }
    console.log(
      [...lines, `${comparison.packets} packets, ${comparison.runs} of them in the kernel`].join('\n'),
    );
    console.log(lines.length === 0 ? '0 disagreements' : 'there are disagreements, the first are above');
    return lines;
  } finally {
    harness.close();
    bed.close();
  }
}
