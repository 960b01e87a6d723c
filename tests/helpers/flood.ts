import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { endianness } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { enterNamespace } from '../../src/lab-topology.js';
import type { TestLab } from './namespaces.js';

export interface Flooded {
  /** How often the kernel took each frame. */
  taken: number[];
  refused: number;
  seconds: number;
}

/** Compiles flood.c into `folder` and returns the program's path. */
export function compileFlood(folder: string): string {
  const program = join(folder, 'flood');
  const source = fileURLToPath(new URL('flood.c', import.meta.url));
  execFileSync('gcc', ['-O2', '-Wall', '-Wextra', '-Werror', source, '-o', program]);
  return program;
}

/** Sends these frames in turn, as fast as the host can; `wrapper` runs before the program. */
export async function flood(
  program: string,
  from: { lab: TestLab; host: string; device: string },
  frames: readonly Uint8Array[],
  seconds: number,
  wrapper: readonly string[] = [],
): Promise<Flooded> {
  const command = [...wrapper, program, from.device, String(seconds)];
  const child = spawn('nsenter', enterNamespace(from.lab.prefix + from.host, command), {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(child, 'close');
  for (const frame of frames) {
    const length = Buffer.alloc(2);
    if (endianness() === 'LE') length.writeUInt16LE(frame.length);
    else length.writeUInt16BE(frame.length);
    child.stdin.write(Buffer.concat([length, frame]));
  }
  child.stdin.end();
  let printed = '';
  for await (const text of child.stdout) printed += text;
  await ended;
  return JSON.parse(printed);
}
