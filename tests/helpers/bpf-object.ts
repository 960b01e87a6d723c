import { execFileSync } from 'node:child_process';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Compiles a C file of tests/fixtures, or a URL's, into `folder` and returns the object's path. */
export function compileBpf(source: string | URL, folder: string): string {
  const input = fileURLToPath(new URL(source, new URL('../fixtures/', import.meta.url)));
  const output = join(folder, basename(input).replace(/\.c$/, '.o'));
  // <linux/types.h> needs the headers of a machine, which the target bpf has not.
  const machine = execFileSync('gcc', ['-print-multiarch'], { encoding: 'utf8' }).trim();
  const flags = ['-g', '-O2', '-target', 'bpf', '-mcpu=v3', '-Wall', '-Wextra', '-Werror'];
  execFileSync('clang', [...flags, `-I/usr/include/${machine}`, '-c', input, '-o', output]);
  return output;
}
