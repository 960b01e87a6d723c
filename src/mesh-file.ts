import { readFileSync } from 'node:fs';
import { readMesh } from './document.js';
import { LsrError } from './errors.js';
import type { Mesh } from './mesh.js';

/** What the API takes in one body too. */
const largestBytes = 1024 * 1024;

/** Reads and checks a mesh document; "-" is standard input. Throws MESH_UNREADABLE or MESH_INVALID (details.problems). */
export function loadMesh(file: string): { mesh: Mesh; text: string } {
  const text = readText(file);
  const { mesh, problems } = readMesh(text, file === '-' ? 'stdin' : file);
  if (mesh) return { mesh, text };
  const count = problems.length === 1 ? '1 problem' : `${problems.length} problems`;
  throw new LsrError('MESH_INVALID', `${file} has ${count}`, { problems });
}

function readText(file: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file === '-' ? 0 : file);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const reasons: Record<string, string> = {
      ENOENT: 'there is no such file',
      EACCES: 'permission denied',
      EISDIR: 'it is a directory',
    };
    throw new LsrError('MESH_UNREADABLE', `cannot read ${file}: ${reasons[code ?? ''] ?? message}`, { file });
  }
  if (bytes.length > largestBytes) {
    const limit = `a mesh document has at most ${largestBytes} (1 MiB)`;
    throw new LsrError('MESH_UNREADABLE', `${file} has ${bytes.length} bytes; ${limit}`, { file });
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new LsrError('MESH_UNREADABLE', `${file} is not UTF-8 text`, { file });
  }
}
