import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { FastifyBaseLogger, FastifyInstance, FastifySchemaCompiler, RawServerDefault } from 'fastify';
import { type TSchema, Type } from 'typebox';
import { type Prefix, parsePrefix } from './address.js';
import type { Agent } from './agent.js';
import { mediaTypes } from './api-errors.js';
import {
  ApplyResultSchema,
  type ChainName,
  ChainNameSchema,
  ChainsSchema,
  DropsSchema,
  type ExportQuery,
  ExportQuerySchema,
  NoQuerySchema,
  type PathsQuery,
  PathsQuerySchema,
  ProblemSchema,
  pageLimit,
  StatusSchema,
  type StreamQuery,
  StreamQuerySchema,
} from './api-schemas.js';
import { DrainsSchema } from './drains.js';
import { LsrError } from './errors.js';
import { streamExport } from './export.js';
import { exportTypes } from './export-format.js';
import { KeysSchema, KeysViewSchema } from './keys.js';
import { API_LIMITS } from './limits.js';
import { MeshSchema } from './mesh.js';
import type { MeshReader } from './mesh-reader.js';
import type { PathFilter } from './path-query.js';
import { streamPaths } from './path-stream.js';
import { PathRecordSchema, PathsPageSchema } from './record.js';
import type { Store } from './store.js';
import { SummarySchema } from './summary.js';
import { type TraceQuery, TraceQuerySchema, TraceSchema } from './trace.js';
import { type WatchQuery, WatchQuerySchema, WatchSchema } from './watch.js';

type Scope = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;

interface RouteContext {
  agent: Agent;
  store: Store;
  readOnly: boolean;
  reader: MeshReader;
}

/** Every route of the API; what they answer is described by api-schemas.ts and record.ts. */
export function addRoutes(app: Scope, context: RouteContext): void {
  const { agent } = context;
  app.get('/v1/status', answering('How this agent is', StatusSchema), () => agent.status());
  app.get('/v1/chains', answering('The chains of the mesh as rendered', ChainsSchema), () => ({
    chains: agent.chains(),
  }));
  app.get(
    '/v1/chains/:name/summary',
    answering(
      'What became of the packets of a chain at this node',
      SummarySchema,
      NoQuerySchema,
      ChainNameSchema,
    ),
    async (request) => {
      await agent.flush();
      return agent.summary((request.params as ChainName).name);
    },
  );
  app.get('/v1/drops', answering('What was dropped, where and why', DropsSchema), () => agent.drops());
  addMeshRoutes(app, context);
  addKeyRoutes(app, context);
  addDrainRoutes(app, context);
  addPathsRoute(app, context);
  addExportRoute(app, context);
  addStreamRoute(app, context);
  addLiveRoutes(app, context);
  app.get(
    '/metrics',
    { schema: { summary: 'Prometheus metrics', produces: ['text/plain'] } },
    async (_request, reply) => {
      const text = await agent.metrics();
      return reply.type('text/plain; version=0.0.4; charset=utf-8').send(text);
    },
  );
  app.get('/openapi.json', { schema: { hide: true, querystring: NoQuerySchema } }, () => app.swagger());
}

function addMeshRoutes(app: Scope, { agent, readOnly, reader }: RouteContext): void {
  const read = answering(
    'The mesh document in force; with Accept: application/yaml as it was written',
    meshAnswer,
  );
  app.get('/v1/mesh', read, async (request, reply) => {
    const mesh = agent.mesh();
    if (!mesh)
      throw new LsrError(
        'MESH_ABSENT',
        'no mesh document is in force yet; PUT one, or name a file in "mesh"',
      );
    reply.header('vary', 'accept');
    const wantsYaml = /\b(application|text)\/yaml\b/.test(request.headers.accept ?? '');
    return wantsYaml ? reply.type('application/yaml').send(mesh.text) : mesh.document;
  });

  const { schema } = answering('Put a mesh document in force, whole or not at all', ApplyResultSchema);
  const write = { schema: { ...schema, body: MeshSchema, consumes: mediaTypes } };
  app.put('/v1/mesh', { ...write, ...writing(app, readOnly) }, async ({ body }) => {
    const text = readBody(body);
    const { mesh, problems } = await reader.read(text);
    if (!mesh) {
      const first = problems[0];
      const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : '';
      const detail = first
        ? `${first.line}:${first.column}: ${first.message}${more}`
        : 'the document is empty';
      throw new LsrError('MESH_INVALID', detail, { problems });
    }
    return agent.applyMesh(mesh, text);
  });
}

function addKeyRoutes(app: Scope, { agent, readOnly }: RouteContext): void {
  const summary = 'The integrity keys, without the keys themselves';
  app.get('/v1/keys', answering(summary, KeysViewSchema), () => agent.keys());
  const { schema } = answering('Put integrity keys in force, all or none', KeysViewSchema);
  const write = { schema: { ...schema, body: KeysSchema, consumes: mediaTypes } };
  app.put('/v1/keys', { ...write, ...writing(app, readOnly) }, ({ body }) => agent.applyKeys(readBody(body)));
}

function addDrainRoutes(app: Scope, { agent, readOnly }: RouteContext): void {
  app.get('/v1/drains', answering('The nodes that flows are sent past', DrainsSchema), () => ({
    drains: agent.drains(),
  }));
  const { schema } = answering('Send flows past these nodes, and no others', DrainsSchema);
  const write = { schema: { ...schema, body: DrainsSchema, consumes: mediaTypes } };
  app.put('/v1/drains', { ...write, ...writing(app, readOnly) }, ({ body }) => ({
    drains: agent.applyDrains(readBody(body)),
  }));
}

/** They write nothing, but have the host do more than read: for the socket alone. */
function addLiveRoutes(app: Scope, { agent, readOnly }: RouteContext): void {
  const guard = readOnly && { onRequest: refuseWriting };
  const trace = answering('Send probes down a path, for each of its hops', TraceSchema, TraceQuerySchema);
  app.post('/v1/trace', { ...trace, ...guard }, ({ query }) => agent.trace(query as TraceQuery));
  const watch = answering(
    'Mark a flow for 10 s, and tell what became of its packets here since it was marked',
    WatchSchema,
    WatchQuerySchema,
  );
  app.post('/v1/watch', { ...watch, ...guard }, ({ query }) => agent.watch(query as WatchQuery));
}

/** A route for the socket alone, whose body is checked by its own reader. */
function writing(app: Scope, readOnly: boolean) {
  return { validatorCompiler: passBody(app), ...(readOnly && { onRequest: refuseWriting }) };
}

async function refuseWriting(): Promise<void> {
  throw new LsrError('READ_ONLY', 'this listener only reads; write through the unix socket of the agent');
}

function readBody(body: unknown): string {
  if (typeof body === 'string' && body.trim() !== '') return body;
  throw new LsrError('REQUEST_INVALID', 'the body is empty; send the document');
}

function addPathsRoute(app: Scope, { agent, store }: RouteContext): void {
  const summary = 'The ways flows really went, newest first';
  app.get('/v1/paths', answering(summary, PathsPageSchema, PathsQuerySchema), async (request) => {
    const filter = toFilter(request.query as PathsQuery);
    await agent.flush();
    return store.queryPaths(filter);
  });
}

function addExportRoute(app: Scope, { agent, store }: RouteContext): void {
  const summary =
    'All records that fit and that there were when it began, in the order in which they were made';
  const { schema } = answering(summary, exportAnswer, ExportQuerySchema);
  const admit = limitRunning(API_LIMITS.exports, 'exports');
  // Without HEAD: fastify would make the whole export for it, and throw it away.
  app.get('/v1/paths/export', { schema, exposeHeadRoute: false }, async (request, reply) => {
    const { format = 'ndjson', ...query } = request.query as ExportQuery;
    const filter = toFilter(query);
    admit(reply.raw);
    await agent.flush();
    return reply.type(exportTypes[format]).send(streamExport(store, filter, format, reply.raw));
  });
}

function addStreamRoute(app: Scope, { store }: RouteContext): void {
  const summary = 'Records as they are made and become more, as server-sent events';
  const { schema } = answering(summary, streamAnswer, StreamQuerySchema);
  const admit = limitRunning(API_LIMITS.streams, 'streams');
  app.get('/v1/paths/stream', { schema, exposeHeadRoute: false }, async (request, reply) => {
    const filter = toFilter(request.query as StreamQuery);
    admit(reply.raw);
    return reply.type('text/event-stream').send(streamPaths(store, filter, reply.raw));
  });
}

/** Throws TOO_MANY_REQUESTS where as many are under way. */
function limitRunning(most: number, what: string): (response: ServerResponse) => void {
  let running = 0;
  return (response) => {
    if (running >= most)
      throw new LsrError(
        'TOO_MANY_REQUESTS',
        `${running} ${what} are under way; try again when one has ended`,
      );
    running += 1;
    response.once('close', () => {
      running -= 1;
    });
  };
}

const failure = {
  description: 'What went wrong',
  content: { 'application/problem+json': { schema: ProblemSchema } },
};

const meshAnswer = {
  description: 'The mesh document',
  content: { 'application/json': { schema: MeshSchema }, 'application/yaml': { schema: Type.String() } },
};

const exportAnswer = {
  description: 'A record a line',
  content: {
    [exportTypes.ndjson]: { schema: PathRecordSchema },
    [exportTypes.csv]: { schema: Type.Unsafe<Readable>({ type: 'string' }) },
  },
};

const streamAnswer = {
  description: 'Events of type path, whose data is a record',
  content: { 'text/event-stream': { schema: Type.Unsafe<Readable>({ type: 'string' }) } },
};

function answering<Answer extends object>(
  summary: string,
  answer: Answer,
  querystring: TSchema = NoQuerySchema,
  params?: TSchema,
) {
  const input = { querystring, ...(params && { params }) };
  return { schema: { summary, ...input, response: { 200: answer, '4xx': failure, '5xx': failure } } };
}

/** The schema describes the body in OpenAPI; the check itself is the reader's, which knows lines and meaning. */
function passBody(app: Scope): FastifySchemaCompiler<TSchema> {
  return (route) => {
    if (route.httpPart === 'body') return () => true;
    const compile = app.validatorCompiler;
    if (!compile) throw new LsrError('INTERNAL', 'the API has no validator yet');
    return compile(route);
  };
}

function toFilter(query: PathsQuery): PathFilter {
  const { chain, node, verdict, sort, order, cursor } = query;
  return {
    chain,
    node,
    verdict,
    sort,
    order,
    cursor,
    limit: query.limit ?? pageLimit.default,
    source: toPrefix('source', query.source),
    destination: toPrefix('destination', query.destination),
    since: toDate('since', query.since),
    until: toDate('until', query.until),
  };
}

function toPrefix(name: string, text: string | undefined): Prefix | undefined {
  if (text === undefined) return undefined;
  const prefix = parsePrefix(text);
  if (prefix) return prefix;
  const right = 'write an IPv4 address or prefix like 10.1.0.10 or 10.1.0.0/24, host bits zero';
  throw new LsrError('REQUEST_INVALID', `${name} is ${JSON.stringify(text)}; ${right}`);
}

/** The pattern was checked by the schema; this catches what the calendar has not, like second 60. */
function toDate(name: string, text: string | undefined): Date | undefined {
  if (text === undefined) return undefined;
  const date = new Date(text);
  if (!Number.isNaN(date.getTime())) return date;
  throw new LsrError(
    'REQUEST_INVALID',
    `${name} is ${JSON.stringify(text)}; write a time like 2025-01-31T12:00:00Z`,
  );
}
