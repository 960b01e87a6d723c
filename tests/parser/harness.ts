import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DECISION_BYTES, writeOpinion } from './decision.js';
import type { PacketBatch } from './packet-batch.js';

const flags = ['-g', '-O2', '-Wall', '-Wextra', '-Werror', '-fno-sanitize-recover=all'];

/** The parser of bpf/parse.h as a process of user space, under AddressSanitizer and UndefinedBehaviorSanitizer. */
export interface Harness {
  /** A struct lsr_decision for each packet. A fault that a sanitizer finds is an exception. */
  decide(batch: PacketBatch): Buffer;
  close(): void;
}

export function openHarness(): Harness {
  const folder = mkdtempSync(join(tmpdir(), 'lsr-parser-'));
  const program = compileParser('harness.c', 'address,undefined', folder);
  return {
    decide(batch) {
      const size = batch.count * DECISION_BYTES;
      const output = execFileSync(program, { input: batch.bytes(), maxBuffer: size + 1 });
      if (output.length !== size) throw new Error(`${output.length} bytes for ${batch.count} packets`);
      return output;
    },
    close: () => rmSync(folder, { recursive: true }),
  };
}

/** Compiles a C file of this folder for this machine and returns the program's path. */
export function compileParser(source: string, sanitizers: string, folder: string): string {
  const input = fileURLToPath(new URL(source, import.meta.url));
  const output = join(folder, source.replace(/\.c$/, ''));
  execFileSync('clang', [...flags, `-fsanitize=${sanitizers}`, input, '-o', output]);
  return output;
}

/** TypeScript's opinion of each packet, in the same bytes. */
export function judge(batch: PacketBatch): Buffer {
  const output = Buffer.alloc(batch.count * DECISION_BYTES);
  const view = new DataView(output.buffer, output.byteOffset, output.length);
  for (let i = 0; i < batch.count; i++) {
    writeOpinion(view, i * DECISION_BYTES, batch.packet(i), batch.isSegmented(i));
  }
  return output;
}

/** The packets that C and TypeScript do not agree on, as lines to print. */
export function findDisagreements(batch: PacketBatch, fromC: Buffer, fromTypeScript: Buffer): string[] {
  if (fromC.equals(fromTypeScript)) return [];
  const lines: string[] = [];
  for (let i = 0; i < batch.count; i++) {
    const [c, ts] = [fromC, fromTypeScript].map((all) =>
      all.subarray(i * DECISION_BYTES, (i + 1) * DECISION_BYTES),
    );
    if (c?.equals(ts ?? Buffer.alloc(0))) continue;
    const packet = Buffer.from(batch.packet(i)).toString('hex');
    lines.push(
      `packet ${packet}${batch.isSegmented(i) ? ' as GSO' : ''}\n  C          ${c?.toString('hex')}\n  TypeScript ${ts?.toString('hex')}`,
    );
  }
  return lines;
}
