import { execFileSync } from 'node:child_process';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Compiles a C file of tests/fixtures into `folder` and returns the object's path. */
export function compileBpf(source: string, folder: string): string {
  const input = fileURLToPath(new URL(`../fixtures/${source}`, import.meta.url));
  const output = join(folder, basename(source).replace(/\.c$/, '.o'));
  // <linux/types.h> needs the headers of a machine, which the target bpf has not.
  const machine = execFileSync('gcc', ['-print-multiarch'], { encoding: 'utf8' }).trim();
  const flags = ['-g', '-O2', '-target', 'bpf', '-mcpu=v3', '-Wall', '-Wextra', '-Werror'];
  execFileSync('clang', [...flags, `-I/usr/include/${machine}`, '-c', input, '-o', output]);
  return output;
}
