import type { ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { setTimeout } from 'node:timers/promises';
import { progress } from './connections.js';
import { API_LIMITS } from './limits.js';
import { fitsFilter, type StreamFilter } from './path-query.js';
import type { Store } from './store.js';

/** So often something is sent, so that a client that is gone is noticed, and one that waits knows that it is not. */
const heartbeatMs = 10_000;

/**
 * Each record that fits, when it is made and whenever more of its flow is stored, as server-sent events (HTML §9.2): `id` is the record's,
 * `data` the record as it is then. What changes more than once before it is read is sent once. Who reads so slowly that
 * too many wait is cut off, as one that never knew what it missed would be worse.
 */
export function streamPaths(store: Store, filter: StreamFilter, response: ServerResponse): Readable {
  const waiting = new Set<string>();
  const news = new AbortController();
  let wake = (): void => undefined;
  const stop = store.onWritten((written) => {
    for (const { id, row } of written) if (fitsFilter(row, filter)) waiting.add(id);
    if (waiting.size > API_LIMITS.streamBacklog) response.destroy();
    wake();
  });
  response.once('close', () => {
    stop();
    news.abort();
    wake();
  });

  async function* send(): AsyncGenerator<string> {
    yield ': what is stored from now on\n\n';
    while (!response.destroyed) {
      response.emit(progress);
      const [id] = waiting;
      if (id === undefined) {
        const arrived = new Promise<void>((resolve) => {
          wake = resolve;
        });
        const beat = setTimeout(heartbeatMs, 'beat' as const, { signal: news.signal, ref: false });
        if ((await Promise.race([arrived, beat.catch(() => undefined)])) === 'beat') yield ':\n\n';
        continue;
      }
      waiting.delete(id);
      const record = store.readRecord(id);
      if (record) yield `id: ${id}\nevent: path\ndata: ${JSON.stringify(record)}\n\n`;
    }
  }
  return Readable.from(send());
}
