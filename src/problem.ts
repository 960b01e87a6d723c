import type { ProblemDocument } from './api-schemas.js';
import { errorTable, LsrError } from './errors.js';
import { API_LIMITS, PROBLEMS_MAX } from './limits.js';

/** One thing that is wrong in a document or a query; the position is known where there was a text. */
export interface ProblemEntry {
  pointer: string;
  code: string;
  message: string;
  file?: string;
  line?: number;
  column?: number;
}

/** An RFC 9457 problem document for any error. What nobody foresaw becomes INTERNAL and tells nothing of its inside. */
export function toProblem(error: unknown, instance?: string): ProblemDocument {
  const known =
    error instanceof LsrError ? error : new LsrError('INTERNAL', 'the log of the agent says more');
  const { status, title } = errorTable[known.code];
  // One more than PROBLEMS_MAX may say how many there are.
  const problems = readProblems(known)
    .slice(0, PROBLEMS_MAX + 1)
    .map((problem) => ({ ...problem, message: shorten(problem.message) }));
  return {
    type: `urn:problem:lsr-agent:${known.code.toLowerCase().replaceAll('_', '-')}`,
    title,
    status: typeof known.details.status === 'number' ? known.details.status : status,
    detail: shorten(known.message),
    code: known.code,
    ...(instance === undefined ? {} : { instance }),
    ...(problems.length === 0 ? {} : { problems }),
  };
}

/** The single things an error complains about: `details.problems` of MESH_INVALID, CONFIG_INVALID and REQUEST_INVALID. */
export function readProblems(error: LsrError): ProblemEntry[] {
  const problems = error.details.problems;
  return Array.isArray(problems) ? problems : [];
}

/** A message may quote what a client sent, and that may be long. */
function shorten(message: string): string {
  return message.length <= API_LIMITS.messageLength
    ? message
    : `${message.slice(0, API_LIMITS.messageLength)}…`;
}
