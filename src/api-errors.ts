import type { Socket } from 'node:net';
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import { LsrError } from './errors.js';
import { type ProblemEntry, toProblem } from './problem.js';

export const bodyLimit = 1024 * 1024;
export const mediaTypes = ['application/json', 'application/yaml', 'text/yaml'];

/** Fastify's error handler: every answer is a problem document, and what is our fault is logged. */
export function answerError(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  const known = translate(error, request);
  const problem = toProblem(known ?? error, request.url);
  if (problem.status >= 500) request.log.error({ err: error, code: problem.code }, 'request failed');
  // Sent as bytes, because fastify adds a charset to JSON, a parameter that RFC 9457 §6.1 does not know.
  void reply
    .code(problem.status)
    .type('application/problem+json')
    .send(Buffer.from(JSON.stringify(problem)));
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
      : new LsrError('REQUEST_INVALID', `${url} takes ${allowed.join(', ')}, not ${request.method}`, {
          status: 405,
        });
  if (allowed.length > 0) reply.header('allow', allowed.join(', '));
  answerError(error, request, reply);
}

/** For bytes that are no HTTP request, so there is no request object to answer with (node:http clientError). */
export function answerBrokenRequest(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy();
  const [status, phrase, detail] = brokenRequests[error.code ?? ''] ?? [
    400,
    'Bad Request',
    'this is not HTTP/1.1',
  ];
  const body = JSON.stringify(toProblem(new LsrError('REQUEST_INVALID', detail, { status })));
  socket.end(
    `HTTP/1.1 ${status} ${phrase}\r\nContent-Type: application/problem+json\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}

const brokenRequests: Record<string, [number, string, string]> = {
  HPE_HEADER_OVERFLOW: [431, 'Request Header Fields Too Large', 'the request header is over 16 KiB'],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'Request Timeout', 'the request did not arrive in time'],
};

/** null: nobody foresaw it. */
function translate(error: unknown, request: FastifyRequest): LsrError | null {
  if (error instanceof LsrError) return error;
  const { code, validation, statusCode, message } = error as Partial<FastifyError>;
  if (validation) return describeInvalidQuery(validation);
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    return new LsrError('BODY_TOO_LARGE', `the body is over the limit of ${bodyLimit} bytes (1 MiB)`);
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
  const problems = validation.map(describeParameter);
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
