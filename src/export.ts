import type { ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import { progress } from './connections.js';
import { type ExportFormat, recordFormats } from './export-format.js';
import { API_LIMITS } from './limits.js';
import type { WalkFilter } from './path-query.js';
import type { Store } from './store.js';

/** Bytes that are handed on in one piece, and more by one record at most. */
const pieceBytes = 16 * 1024;

/** All records that fit and that there are now. Holds a step of the walk and a few pieces in memory, however slow the client. */
export function streamExport(
  store: Store,
  filter: WalkFilter,
  format: ExportFormat,
  response: ServerResponse,
): Readable {
  return Readable.from(reportTaken(formatPieces(store, filter, format, response), response));
}

/** A generator goes on when what it gave last was taken, so that is how much the client has, less what is buffered on the way. */
async function* reportTaken(pieces: AsyncIterable<string>, response: ServerResponse): AsyncGenerator<string> {
  let taken = 0;
  for await (const piece of pieces) {
    yield piece;
    taken += Buffer.byteLength(piece);
    if (taken < API_LIMITS.exportBytes) continue;
    taken = 0;
    response.emit(progress);
  }
}

async function* formatPieces(
  store: Store,
  filter: WalkFilter,
  format: ExportFormat,
  response: ServerResponse,
): AsyncGenerator<string> {
  const { head, format: formatRecord } = recordFormats[format];
  const last = store.lastNumber();
  let piece = head;
  for (let number = 0; number < last; ) {
    const step = store.walkPaths(filter, number, last);
    for (const record of step.records) {
      piece += formatRecord(record);
      if (piece.length < pieceBytes) continue;
      yield piece;
      piece = '';
    }
    number = step.number;
    // Other requests have their turn; the store may be closed meanwhile, but not before its clients are gone.
    await setImmediate();
    if (response.destroyed) return;
  }
  if (piece !== '') yield piece;
}
