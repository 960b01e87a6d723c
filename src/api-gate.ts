import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { answerSocket, answerUnknown } from './api-errors.js';
import { type Connections, watchConnections } from './connections.js';
import { LsrError } from './errors.js';
import { API_LIMITS } from './limits.js';
import { isOwnHost } from './loopback.js';

/** Refuses what no route should ever see, before a byte of a body is read. */
export function addGate(app: FastifyInstance, { ownHostOnly }: { ownHostOnly: boolean }): Connections {
  const server = app.server as Server;
  const connections = watchConnections(server, (socket) =>
    answerSocket(
      socket,
      new LsrError('TOO_MANY_REQUESTS', `${API_LIMITS.connections} clients are being served; try again`),
    ),
  );
  refuseWhatNodeAnswers(app, server);
  app.addHook('onRequest', async (request, reply) => {
    const { raw } = request;
    if ((connections.get(raw.socket)?.pending.length ?? 0) > API_LIMITS.pipelined) {
      void reply.header('connection', 'close');
      throw new LsrError(
        'TOO_MANY_REQUESTS',
        `over ${API_LIMITS.pipelined} requests of this connection wait for an answer`,
      );
    }
    checkHeader(raw);
    if (ownHostOnly) checkHost(request);
    if (request.is404) answerUnknown(request, reply);
  });
  return connections;
}

/** What node would answer by itself, and without a problem document. */
function refuseWhatNodeAnswers(app: FastifyInstance, server: Server): void {
  server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
    request.headers.expect = 'refused';
    app.routing(request, response);
  });
  server.on('connect', (_request: IncomingMessage, socket: Duplex) => {
    answerSocket(socket, new LsrError('METHOD_NOT_ALLOWED', 'this is no proxy: CONNECT is not allowed'));
  });
}

function checkHeader({ rawHeaders, headers, httpVersion }: IncomingMessage): void {
  const names = rawHeaders.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase());
  if (names.length > API_LIMITS.headers) {
    throw new LsrError('HEADER_TOO_LARGE', `the request has over ${API_LIMITS.headers} header fields`);
  }
  const hosts = names.filter((name) => name === 'host').length;
  if (hosts > 1 || (hosts === 0 && httpVersion !== '1.0')) {
    throw new LsrError(
      'REQUEST_INVALID',
      `the request has ${hosts} Host fields; it needs one (RFC 9112 §3.2)`,
    );
  }
  if (headers.expect === 'refused') {
    throw new LsrError('REQUEST_INVALID', 'the only thing to expect is 100-continue', { status: 417 });
  }
}

function checkHost({ raw }: FastifyRequest): void {
  const { localPort = 0 } = raw.socket;
  if (isOwnHost(raw.headers.host, localPort)) return;
  const given = raw.headers.host === undefined ? 'no Host' : `Host ${JSON.stringify(raw.headers.host)}`;
  throw new LsrError(
    'HOST_REFUSED',
    `the request names ${given}; this listener is 127.0.0.1:${localPort} or localhost:${localPort}`,
  );
}
