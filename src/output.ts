import { LsrError } from './errors.js';
import { type ProblemEntry, readProblems, toProblem } from './problem.js';

/** Data for scripts with --json, else text for people, on stdout. */
export function printAnswer(json: boolean, data: unknown, formatText: () => string): void {
  process.stdout.write(`${json ? JSON.stringify(data, null, 2) : formatText()}\n`);
}

/** An error on stderr: a problem document with --json; else `file:line:column: message` for each thing wrong in a document, or one line. */
export function printError(json: boolean, error: unknown): void {
  if (json) {
    const known = error instanceof LsrError ? error : new LsrError('INTERNAL', String(error));
    process.stderr.write(`${JSON.stringify(toProblem(known))}\n`);
    return;
  }
  if (!(error instanceof LsrError)) {
    process.stderr.write(
      `error: this is a defect of lsr-agent: ${(error as Error)?.stack ?? String(error)}\n`,
    );
    return;
  }
  const lines = readProblems(error)
    .filter((problem) => problem.line !== undefined)
    .map(formatPosition);
  process.stderr.write(`${lines.length > 0 ? lines.join('\n') : `error: ${error.message}`}\n`);
}

/** A closed pipe (`| head`) is the reader's right and no error. */
export function endQuietlyOnClosedPipe(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit();
      throw error;
    });
  }
}

function formatPosition({ file, line, column, message }: ProblemEntry): string {
  return `${file ?? 'document'}:${line}:${column}: ${message}`;
}
