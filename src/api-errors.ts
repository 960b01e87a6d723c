import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import type { Dialogue } from './connections.js';
import { type ErrorCode, LsrError } from './errors.js';
import { API_LIMITS, PROBLEMS_MAX } from './limits.js';
import { type ProblemEntry, toProblem } from './problem.js';

export const mediaTypes = ['application/json', 'application/yaml', 'text/yaml'];

/** Fastify's error handler: every answer is a problem document, and what is our fault is logged. */
export function answerError(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  const known = translate(error, request);
  const problem = toProblem(known ?? error, request.url);
  if (problem.status >= 500) request.log.error({ err: error, code: problem.code }, 'request failed');
  if (problem.code === 'BODY_TOO_LARGE') discardBody(request, reply);
  // Sent as bytes, because fastify adds a charset to JSON, a parameter that RFC 9457 §6.1 does not know.
  void reply
    .code(problem.status)
    .type('application/problem+json')
    .send(Buffer.from(JSON.stringify(problem)));
}

/** Closing on a client that still sends would lose him the answer: the rest is read, kept nowhere, and timed. */
function discardBody({ raw }: FastifyRequest, reply: FastifyReply): void {
  reply.removeHeader('connection');
  raw.resume();
}

/** For a path or method that no route serves: 405 with Allow where the path exists, else 404. */
export function answerUnknown(request: FastifyRequest, reply: FastifyReply): void {
  const url = request.url.split('?', 1)[0] ?? '/';
  const allowed = (['GET', 'HEAD', 'PUT'] as const).filter((method) =>
    request.server.hasRoute({ method, url }),
  );
  const error =
    allowed.length === 0
      ? new LsrError(
          'NOT_FOUND',
          `there is no ${JSON.stringify(url)} here; GET /openapi.json lists what there is`,
        )
      : new LsrError('METHOD_NOT_ALLOWED', `${url} takes ${allowed.join(', ')}, not ${request.method}`);
  if (allowed.length > 0) reply.header('allow', allowed.join(', '));
  answerError(error, request, reply);
}

/**
 * For bytes that are no HTTP request, so there is no request object to answer with (node:http clientError). Where
 * a client could take it for the answer to something else that he asked, the connection just ends.
 */
export function answerBrokenRequest(
  error: NodeJS.ErrnoException,
  socket: Socket,
  dialogue: Dialogue | undefined,
): void {
  const { pending = [], newest = null } = dialogue ?? {};
  const isAnswered = newest !== null && !newest.complete && pending.length === 0;
  const isAnothers = pending.some(({ request, response }) => request.complete || response.headersSent);
  if (error.code === 'ECONNRESET' || isAnswered || isAnothers) return void socket.destroy();
  const [code, detail] = brokenRequests[error.code ?? ''] ?? ['REQUEST_INVALID', 'this is not HTTP/1.1'];
  answerSocket(socket, new LsrError(code, detail));
}

/** Sockets that were answered, and that wait for their clients to read that. */
const lingering = new Set<Duplex>();

/**
 * Answers where node has no response object, and ends the connection: not at once, since who closes with a
 * request unread takes his answer back (TCP then resets the connection).
 */
export function answerSocket(socket: Duplex, error: LsrError): void {
  if (!socket.writable) return void socket.destroy();
  const problem = toProblem(error);
  const body = JSON.stringify(problem);
  const phrase = STATUS_CODES[problem.status] ?? '';
  socket.end(
    `HTTP/1.1 ${problem.status} ${phrase}\r\nContent-Type: application/problem+json\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
  if (lingering.size >= API_LIMITS.connections) return void socket.destroy();
  lingering.add(socket);
  const timer = setTimeout(() => socket.destroy(), API_LIMITS.lingerMs).unref();
  socket
    .once('end', () => socket.destroy())
    .once('close', () => {
      lingering.delete(socket);
      clearTimeout(timer);
    })
    .resume();
}

const brokenRequests: Record<string, [ErrorCode, string]> = {
  HPE_HEADER_OVERFLOW: ['HEADER_TOO_LARGE', `the request header is over ${API_LIMITS.headerBytes} bytes`],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: ['BODY_TOO_LARGE', 'the chunks of the body carry too many extensions'],
  ERR_HTTP_REQUEST_TIMEOUT: ['REQUEST_TIMEOUT', 'the request did not arrive in time'],
};

/** null: nobody foresaw it. */
function translate(error: unknown, request: FastifyRequest): LsrError | null {
  if (error instanceof LsrError) return error;
  const { code, validation, statusCode, message } = error as Partial<FastifyError>;
  if (validation) return describeInvalidQuery(validation);
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    return new LsrError(
      'BODY_TOO_LARGE',
      `the body is over the limit of ${API_LIMITS.bodyBytes} bytes (1 MiB)`,
    );
  }
  if (code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') {
    const given = request.headers['content-type'] ?? 'none';
    return new LsrError('MEDIA_TYPE', `content-type is ${given}; send the mesh as ${mediaTypes.join(', ')}`);
  }
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return new LsrError('REQUEST_INVALID', message ?? 'the request is not valid', { status: statusCode });
  }
  return null;
}

type ValidationEntry = NonNullable<FastifyError['validation']>[number];

function describeInvalidQuery(validation: ValidationEntry[]): LsrError {
  // A header of 16 KiB has room for thousands of parameters.
  const problems = validation.slice(0, PROBLEMS_MAX).map(describeParameter);
  const detail = problems.map((problem) => problem.message).join('; ');
  return new LsrError('REQUEST_INVALID', detail, { problems });
}

function describeParameter({ instancePath, keyword, params, message }: ValidationEntry): ProblemEntry {
  const name = instancePath.slice(1);
  if (keyword === 'additionalProperties') {
    const unknown = String(params.additionalProperty);
    return {
      pointer: `/${unknown}`,
      code: 'unknown-parameter',
      message: `there is no parameter "${unknown}"`,
    };
  }
  if (keyword === 'enum') {
    const values = (params.allowedValues as string[]).join(', ');
    return { pointer: instancePath, code: 'bad-parameter', message: `${name} must be one of ${values}` };
  }
  if (params.format === 'date-time') {
    const message = `${name} must be a time like 2025-01-31T12:00:00Z (write a "+" of the offset as %2B)`;
    return { pointer: instancePath, code: 'bad-parameter', message };
  }
  return { pointer: instancePath, code: 'bad-parameter', message: `${name} ${message ?? 'is not valid'}` };
}
