import swagger from '@fastify/swagger';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from 'fastify';
import type { Agent } from './agent.js';
import { answerBrokenRequest, answerError, answerUnknown, bodyLimit, mediaTypes } from './api-errors.js';
import { addRoutes } from './api-routes.js';
import { LsrError } from './errors.js';
import type { Logger } from './logger.js';
import type { Store } from './store.js';
import { readVersion } from './version.js';

export interface ApiOptions {
  /** true on a listener that anyone on the host can reach: whatever changes something answers 403. */
  readOnly: boolean;
  logger: Logger;
  store: Store;
}

/** The HTTP API over a running agent, not yet listening. */
export function buildApi(agent: Agent, { readOnly, logger, store }: ApiOptions): FastifyInstance {
  const app = fastify({
    loggerInstance: logger as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit,
    connectionTimeout: 30_000,
    requestTimeout: 15_000,
    keepAliveTimeout: 10_000,
    http: { maxHeaderSize: 16 * 1024, headersTimeout: 10_000 },
    forceCloseConnections: 'idle',
    // Only query strings are validated by ajv, and they know no numbers: so types are coerced. Bodies go through readMesh.
    ajv: { customOptions: { removeAdditional: false, coerceTypes: true, allErrors: true } },
    frameworkErrors: answerError,
    clientErrorHandler: answerBrokenRequest,
  }).withTypeProvider<TypeBoxTypeProvider>();

  app.setErrorHandler(answerError);
  // As a hook and not as a handler, so that nobody's body is read to tell him that nothing is here.
  app.addHook('onRequest', async (request, reply) => {
    if (request.is404) answerUnknown(request, reply);
  });
  // The schemas' own types make the answers; fast-json-stringify would drop and coerce in silence.
  app.setSerializerCompiler(() => (data) => JSON.stringify(data));
  app.addHook('onSend', async (_request, reply) => {
    reply.header('cache-control', 'no-store').header('x-content-type-options', 'nosniff');
  });
  app.addHook('onResponse', async (request, reply) => {
    const { method, url } = request;
    request.log.debug(
      { method, url, status: reply.statusCode, ms: Math.round(reply.elapsedTime) },
      'request answered',
    );
  });
  readBodiesAsText(app);
  void app.register(swagger, { openapi: describeApi() });
  void app.register(async (scope) => addRoutes(scope, { agent, store, readOnly }));
  return app as unknown as FastifyInstance;
}

/** The body stays text, because positions in it are told to the user; JSON is parsed here only to refuse what is none. */
function readBodiesAsText(
  app: Pick<FastifyInstance, 'removeAllContentTypeParsers' | 'addContentTypeParser'>,
): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    mediaTypes,
    { parseAs: 'buffer', bodyLimit },
    async (request: unknown, body: Buffer) => {
      const text = decodeUtf8(body);
      const { headers } = request as { headers: Record<string, string | undefined> };
      if (headers['content-type']?.startsWith('application/json')) refuseBrokenJson(text);
      return text;
    },
  );
}

function decodeUtf8(body: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(body);
  } catch {
    throw new LsrError('REQUEST_INVALID', 'the body is not UTF-8 text');
  }
}

function refuseBrokenJson(text: string): void {
  try {
    JSON.parse(text);
  } catch (error) {
    throw new LsrError('REQUEST_INVALID', `the body is not JSON: ${(error as Error).message}`);
  }
}

function describeApi() {
  return {
    openapi: '3.1.0' as const,
    info: {
      title: 'lsr-agent',
      version: readVersion(),
      description: 'Chains, and the ways that packets really went, as one host of the mesh sees them.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
  };
}
