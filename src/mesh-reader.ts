import { Worker } from 'node:worker_threads';
import type { readMesh } from './document.js';
import { LsrError } from './errors.js';
import { API_LIMITS } from './limits.js';

export type MeshReading = ReturnType<typeof readMesh>;

/** What the thread answers. */
export type ReaderAnswer = { reading: MeshReading } | { parts: number };

/**
 * Reads mesh documents of clients in a thread of its own: whatever a text does to a parser, the daemon goes on, and
 * time and memory have a limit. One document at a time; the thread starts with the first and ends when it is idle.
 */
export class MeshReader {
  #worker: Worker | null = null;
  #turn: Promise<unknown> = Promise.resolve();
  #idle: NodeJS.Timeout | undefined;

  read(text: string): Promise<MeshReading> {
    const reading = this.#turn.then(() => this.#readNow(text));
    this.#turn = reading.catch(() => undefined);
    return reading;
  }

  async close(): Promise<void> {
    clearTimeout(this.#idle);
    const worker = this.#worker;
    this.#worker = null;
    await worker?.terminate();
  }

  async #readNow(text: string): Promise<MeshReading> {
    clearTimeout(this.#idle);
    this.#worker ??= startWorker();
    try {
      const answer = await ask(this.#worker, text);
      this.#idle = setTimeout(() => void this.close(), idleMs).unref();
      if ('reading' in answer) return answer.reading;
      throw tooCostly(`it has more than ${API_LIMITS.bodyParts} words and marks`);
    } catch (error) {
      if (error instanceof LsrError && error.details.worker !== 'gone') throw error;
      await this.close();
      throw error;
    }
  }
}

/** Always the built one: threads do not go through the loader that runs TypeScript in tests. */
const { href } = new URL('./mesh-reader-thread.js', import.meta.url);
const threadFile = new URL(href.replace(/\/src\/(?=[^/]+$)/, '/dist/'));

const idleMs = 10_000;

function startWorker(): Worker {
  const worker = new Worker(threadFile, {
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: API_LIMITS.readMegabytes },
  });
  // One that ends later than anybody waits for it must not end the daemon.
  worker.on('error', () => undefined);
  worker.unref();
  return worker;
}

/** Sends a text and waits for what becomes of it: an answer, the thread's end, or the time limit. */
function ask(worker: Worker, text: string): Promise<ReaderAnswer> {
  return new Promise((resolve, reject) => {
    const gone = { worker: 'gone' };
    const deadline = setTimeout(
      () => finish(() => reject(tooCostly(`reading it takes more than ${API_LIMITS.readMs} ms`, gone))),
      API_LIMITS.readMs,
    );
    const onError = (error: NodeJS.ErrnoException): void => {
      const known = error.code === 'ERR_WORKER_OUT_OF_MEMORY';
      const why = `reading it takes more than ${API_LIMITS.readMegabytes} MB of memory`;
      finish(() => reject(known ? tooCostly(why, gone) : error));
    };
    const onAnswer = (answer: ReaderAnswer): void => finish(() => resolve(answer));
    const finish = (end: () => void): void => {
      clearTimeout(deadline);
      worker.off('error', onError).off('message', onAnswer);
      end();
    };
    worker.once('error', onError).once('message', onAnswer);
    worker.postMessage(text);
  });
}

function tooCostly(why: string, details: Record<string, unknown> = {}): LsrError {
  return new LsrError('BODY_TOO_LARGE', `the document is too costly to read: ${why}`, details);
}
