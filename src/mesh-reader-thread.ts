/** The thread of mesh-reader.ts. */
import { parentPort } from 'node:worker_threads';
import { Lexer } from 'yaml';
import { readMesh } from './document.js';
import { API_LIMITS } from './limits.js';
import type { ReaderAnswer } from './mesh-reader.js';

// The parser makes an Error for each thing that is wrong; its stack costs ten times as much as finding it.
Error.stackTraceLimit = 0;

parentPort?.on('message', (text: string) => parentPort?.postMessage(answer(text)));

/** Parts are counted first: the lexer is four times as fast as the parser, and keeps nothing. */
function answer(text: string): ReaderAnswer {
  let parts = 0;
  for (const _ of new Lexer().lex(text)) {
    parts += 1;
    if (parts > API_LIMITS.bodyParts) return { parts };
  }
  return { reading: readMesh(text, 'body') };
}
