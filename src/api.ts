import swagger from '@fastify/swagger';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from 'fastify';
import type { Agent } from './agent.js';
import { answerBrokenRequest, answerError, mediaTypes } from './api-errors.js';
import { addGate } from './api-gate.js';
import { addRoutes } from './api-routes.js';
import { LsrError } from './errors.js';
import { API_LIMITS } from './limits.js';
import type { Logger } from './logger.js';
import { MeshReader } from './mesh-reader.js';
import type { Store } from './store.js';
import { readVersion } from './version.js';

export interface ApiOptions {
  /** true on a listener that anyone on the host can reach: whatever changes something answers 403. */
  readOnly: boolean;
  /** Answers only requests whose Host is this listener: for a port that a browser can reach. */
  ownHostOnly?: boolean;
  logger: Logger;
  store: Store;
}

/** The HTTP API over a running agent, not yet listening. */
export function buildApi(agent: Agent, options: ApiOptions): FastifyInstance {
  const { readOnly, ownHostOnly = false, logger, store } = options;
  const app = fastify({
    loggerInstance: logger as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true }),
    ...transportLimits,
    // Only query strings are validated by ajv, and they know no numbers: so types are coerced. Bodies go through MeshReader.
    ajv: { customOptions: { removeAdditional: false, coerceTypes: true, allErrors: true } },
    frameworkErrors: answerError,
    clientErrorHandler: (error, socket) => answerBrokenRequest(error, socket, connections.get(socket)),
  }).withTypeProvider<TypeBoxTypeProvider>();

  app.setErrorHandler(answerError);
  const connections = addGate(app as unknown as FastifyInstance, { ownHostOnly });
  const reader = new MeshReader();
  app.addHook('onClose', () => reader.close());
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
  void app.register(async (scope) => addRoutes(scope, { agent, store, readOnly, reader }));
  return app as unknown as FastifyInstance;
}

/** Seen by node before any of our code: a client may be slow and long-winded only so far. */
const transportLimits = {
  bodyLimit: API_LIMITS.bodyBytes,
  connectionTimeout: API_LIMITS.answerMs,
  requestTimeout: API_LIMITS.requestMs,
  keepAliveTimeout: API_LIMITS.idleMs,
  http: {
    maxHeaderSize: API_LIMITS.headerBytes,
    headersTimeout: API_LIMITS.headerMs,
    // How often the two times above are looked at; node's own 30 s would outlast both.
    connectionsCheckingInterval: 250,
    // Ours is a problem document.
    requireHostHeader: false,
  },
  forceCloseConnections: 'idle',
  // Requests under way when the agent ends are served: store and tables are closed after the listeners.
  return503OnClosing: false,
} as const;

/** The body stays text, because positions in it are told to the user; JSON is parsed here only to refuse what is none. */
function readBodiesAsText(
  app: Pick<FastifyInstance, 'removeAllContentTypeParsers' | 'addContentTypeParser'>,
): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    mediaTypes,
    { parseAs: 'buffer', bodyLimit: API_LIMITS.bodyBytes },
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
