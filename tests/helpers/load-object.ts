/** Loads the programs with the rights it was started with, and prints what came of it as JSON. */
import { readFileSync } from 'node:fs';
import { objectFile } from '../../src/datapath.js';
import { loadNative } from '../../src/native.js';

const [, effective] = /^CapEff:\s*(\S+)/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
const measured = process.argv.includes('--measured');
try {
  const object = loadNative().openObject(objectFile);
  // `load` keeps the verifier's log where it refuses a program, `loadMeasured` its statistics where it does not.
  const statistics = measured ? object.loadMeasured() : object.load();
  const programs = ['lsr_ingress', 'lsr_egress'].map((name) => object.program(name).info);
  console.log(JSON.stringify({ effective, programs, statistics }));
} catch (error) {
  console.log(
    JSON.stringify({
      effective,
      error: (error as Error).message,
      log: (error as Error & { log?: string }).log,
    }),
  );
}
