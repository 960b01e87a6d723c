import type { ProblemDocument } from './api-schemas.js';
import { errorTable, LsrError } from './errors.js';

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
  const problems = readProblems(known);
  return {
    type: `urn:problem:lsr-agent:${known.code.toLowerCase().replaceAll('_', '-')}`,
    title,
    status: typeof known.details.status === 'number' ? known.details.status : status,
    detail: known.message,
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
