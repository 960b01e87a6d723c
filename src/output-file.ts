import { createWriteStream, existsSync, realpathSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { LsrError } from './errors.js';

/** Writes a file in pieces so that there is the whole one in the end, or what was there before. */
export async function writeOutput(file: string, pieces: AsyncIterable<Buffer>): Promise<void> {
  if (existsSync(file) && !statSync(file).isFile())
    throw new LsrError(
      'USAGE',
      `--output ${file} is no regular file; leave --output out to write to a pipe or device`,
    );
  const target = existsSync(file) ? realpathSync(file) : file;
  const fresh = join(dirname(target), `.${basename(target)}.${process.pid}.new`);
  try {
    // Flows are nobody else's business.
    await pipeline(
      Readable.from(pieces),
      createWriteStream(fresh, { flags: 'wx', mode: 0o640, flush: true }),
    );
    renameSync(fresh, target);
  } catch (error) {
    rmSync(fresh, { force: true });
    throw error instanceof LsrError ? error : explainFailure(file, error as NodeJS.ErrnoException);
  }
}

function explainFailure(file: string, { code, message }: NodeJS.ErrnoException): LsrError {
  const reasons: Record<string, string> = {
    ENOENT: 'its folder does not exist',
    ENOTDIR: 'a part of its path is not a directory',
    EACCES: 'permission denied',
    EROFS: 'the file system is read-only',
    ENOSPC: 'the disk is full',
  };
  return new LsrError('OUTPUT', `--output ${file} cannot be written: ${reasons[code ?? ''] ?? message}`);
}
