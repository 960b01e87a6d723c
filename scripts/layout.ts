/** Writes src/layout.ts from the compiled object, or with --check fails where it is stale. */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describeLayout } from '../src/layout-source.js';
import { loadNative } from '../src/native.js';

const object = fileURLToPath(new URL('../build/bpf/lsr.bpf.o', import.meta.url));
const target = fileURLToPath(new URL('../src/layout.ts', import.meta.url));
const { text } = describeLayout(loadNative().btfTypes(object));

if (process.argv.includes('--check')) {
  if (readFileSync(target, 'utf8') !== text) {
    console.error('src/layout.ts does not belong to bpf/lsr.h: run `npm run layout` and commit the result');
    process.exit(1);
  }
} else {
  writeFileSync(target, text);
}
