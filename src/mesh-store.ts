import { existsSync, readFileSync, renameSync, rmSync, watch, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { LsrError } from './errors.js';
import type { Mesh } from './mesh.js';
import { loadMesh } from './mesh-file.js';

export interface Loaded {
  mesh: Mesh;
  text: string;
  source: string;
}

/** The copy of the newest document that was in force, beside the audit store. */
export const lastGoodFile = (store: string): string => join(dirname(store), 'mesh.last-good.yaml');

/** The wanted document at start: the file; where that is bad, the last good one with the error. */
export function loadWanted(
  file: string | null,
  lastGood: string,
): { loaded: Loaded | null; error: string | null } {
  if (file !== null && existsSync(file)) {
    try {
      return { loaded: { ...loadMesh(file), source: file }, error: null };
    } catch (error) {
      return { loaded: loadLastGood(lastGood), error: describeError(error) };
    }
  }
  return { loaded: loadLastGood(lastGood), error: null };
}

function loadLastGood(file: string): Loaded | null {
  try {
    return { ...loadMesh(file), source: file };
  } catch {
    return null; // none yet, or written by a version with other rules
  }
}

/** One line a problem, for status and log. */
export function describeError(error: unknown): string {
  if (!(error instanceof LsrError)) return String((error as Error).message ?? error);
  const problems = (error.details.problems ?? []) as { line?: number; column?: number; message: string }[];
  return [
    error.message,
    ...problems.map(({ line, column, message }) => `${line}:${column}: ${message}`),
  ].join('\n');
}

/** Writes a document so that a crash leaves the old one or the new one. */
export function saveDocument(file: string, text: string, mode = 0o640): void {
  const fresh = join(dirname(file), `.${basename(file)}.new`);
  try {
    rmSync(fresh, { force: true }); // its mode would stay
    writeFileSync(fresh, text, { mode, flush: true });
    renameSync(fresh, file);
  } catch (error) {
    throw new LsrError('STORE', `the document cannot be kept in ${file}: ${(error as Error).message}`);
  }
}

/**
 * Calls back when the file's content has changed. The folder is watched: editors and configuration
 * tools put a new file in place of the old one.
 */
export function watchDocument(file: string, onChange: () => void): { close(): void } {
  const read = (): string | null => (existsSync(file) ? readFileSync(file, 'utf8') : null);
  let known = read();
  let timer: NodeJS.Timeout | undefined;
  const check = (): void => {
    const now = read();
    if (now === known || now === null) return;
    known = now;
    onChange();
  };
  const watcher = watch(dirname(file), { persistent: false }, () => {
    clearTimeout(timer);
    timer = setTimeout(check, 100).unref();
  });
  return {
    close() {
      clearTimeout(timer);
      watcher.close();
    },
  };
}
