import { once } from 'node:events';
import { streamApi } from './client.js';
import { formatFlow, formatRoute } from './flow.js';
import type { PathRecord } from './record.js';

/** Prints each record as it is made or has become more, a line each, until the agent or the reader ends. */
export async function followPaths(
  api: string,
  query: Record<string, string | undefined>,
  json: boolean,
): Promise<void> {
  for await (const record of readEvents(
    streamApi(api, { path: '/v1/paths/stream', query }, 'text/event-stream'),
  )) {
    const line = json ? JSON.stringify(record) : formatLine(record);
    if (!process.stdout.write(`${line}\n`)) await once(process.stdout, 'drain');
  }
}

/** Server-sent events whose data is one line, as this API sends them; what begins with a colon only keeps the connection. */
async function* readEvents(pieces: AsyncIterable<Buffer>): AsyncGenerator<PathRecord> {
  const decoder = new TextDecoder();
  let text = '';
  for await (const piece of pieces) {
    const blocks = (text + decoder.decode(piece, { stream: true })).split('\n\n');
    text = blocks.pop() ?? '';
    for (const block of blocks) {
      const data = /^data: (.*)$/m.exec(block)?.[1];
      if (data !== undefined) yield JSON.parse(data) as PathRecord;
    }
  }
}

function formatLine(record: PathRecord): string {
  const { lastSeen, flow, chain, verdict, recorded, packets, bytes, explanation } = record;
  const what = verdict === 'complete' ? verdict : `${verdict}: ${explanation}`;
  const words = [
    lastSeen,
    formatFlow(flow),
    chain ?? '–',
    formatRoute(recorded),
    `${packets} packets`,
    `${bytes} bytes`,
  ];
  return `${words.join('  ')}  ${what}`;
}
