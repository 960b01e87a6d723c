/** Loads the programs with the rights it was started with, and prints what came of it as JSON. */
import { readFileSync } from 'node:fs';
import { objectFile } from '../../src/datapath.js';
import { loadNative } from '../../src/native.js';

const [, effective] = /^CapEff:\s*(\S+)/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
try {
  const object = loadNative().openObject(objectFile);
  object.load();
  const programs = ['lsr_ingress', 'lsr_egress'].map((name) => object.program(name).info);
  console.log(JSON.stringify({ effective, programs }));
} catch (error) {
  console.log(
    JSON.stringify({
      effective,
      error: (error as Error).message,
      log: (error as Error & { log?: string }).log,
    }),
  );
}
