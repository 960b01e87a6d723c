import { openSync, readSync } from 'node:fs';
import { LsrError } from './errors.js';

/** Bytes that come in pieces of any size, handed out in pieces of the size that is asked for. */
export interface Cursor {
  /** Of the next byte, from the beginning. */
  readonly offset: number;
  /** The next `count` bytes; null, and nothing taken, where there are fewer. */
  take(count: number): Buffer | null;
  /** Passes over `count` bytes without keeping them; false where there are fewer. */
  skip(count: number): boolean;
  /** Bytes that are left when take() gave null. */
  countLeft(): number;
}

export function makeCursor(chunks: Iterable<Buffer>): Cursor {
  const source = chunks[Symbol.iterator]();
  let current: Buffer = Buffer.alloc(0);
  let at = 0;
  let offset = 0;

  const fill = (count: number): boolean => {
    const parts = [current.subarray(at)];
    let length = current.length - at;
    while (length < count) {
      const next = source.next();
      if (next.done) break;
      parts.push(next.value);
      length += next.value.length;
    }
    current = parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
    at = 0;
    return length >= count;
  };

  const take = (count: number): Buffer | null => {
    if (current.length - at < count && !fill(count)) return null;
    const bytes = current.subarray(at, at + count);
    at += count;
    offset += count;
    return bytes;
  };

  return {
    get offset() {
      return offset;
    },
    take,
    skip(count) {
      for (let left = count; left > 0; ) {
        const taken = take(Math.min(left, chunkBytes)) ?? take(current.length - at);
        if (!taken?.length) return false;
        left -= taken.length;
      }
      return true;
    },
    countLeft: () => current.length - at,
  };
}

const chunkBytes = 1024 * 1024;

/** A file piece by piece; "-" is standard input. Throws CAPTURE_UNREADABLE. */
export function* readChunks(file: string): Generator<Buffer> {
  const descriptor = attempt(file, () => (file === '-' ? 0 : openSync(file, 'r')));
  for (;;) {
    const chunk = Buffer.allocUnsafe(chunkBytes);
    const count = attempt(file, () => readSome(descriptor, chunk));
    if (count === 0) return;
    yield chunk.subarray(0, count);
  }
}

/** A pipe that another program made non-blocking says EAGAIN while it is empty. */
function readSome(descriptor: number, chunk: Buffer): number {
  for (;;) {
    try {
      return readSync(descriptor, chunk);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    }
  }
}

const reasons: Record<string, string> = {
  ENOENT: 'there is no such file',
  EACCES: 'permission denied',
  EISDIR: 'it is a directory',
};

function attempt<T>(file: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    const { code = '', message } = error as NodeJS.ErrnoException;
    throw new LsrError('CAPTURE_UNREADABLE', `cannot read ${file}: ${reasons[code] ?? message}`, { file });
  }
}
