import type { Client } from 'undici';
import { type ErrorCode, errorTable, LsrError } from './errors.js';

export const defaultApi = '/run/lsr-agent/api.sock';

export interface ApiRequest {
  method?: 'GET' | 'PUT' | 'POST';
  path: string;
  query?: Record<string, string | number | undefined>;
  body?: string;
  contentType?: string;
}

/** Asks the agent behind a unix socket or an http:// URL. A problem document comes back as the LsrError it was. */
export async function callApi<Answer>(api: string, request: ApiRequest): Promise<Answer> {
  const client = await openClient(api);
  try {
    const { statusCode, body } = await client.request({
      method: request.method ?? 'GET',
      path: request.path + formatQuery(request.query ?? {}),
      headers: {
        accept: 'application/json',
        ...(request.contentType && { 'content-type': request.contentType }),
      },
      body: request.body ?? null,
    });
    return readAnswer(api, statusCode, await body.text()) as Answer;
  } catch (error) {
    throw error instanceof LsrError ? error : explainFailure(api, error as NodeJS.ErrnoException);
  } finally {
    await client.destroy();
  }
}

/** As callApi, but the answer, of type `accept`, comes in pieces, and no faster than they are taken. */
export async function* streamApi(api: string, request: ApiRequest, accept: string): AsyncGenerator<Buffer> {
  const client = await openClient(api, { maxResponseSize: -1 });
  let bytes = 0;
  try {
    const path = request.path + formatQuery(request.query ?? {});
    const { statusCode, headers, body } = await client.request({ method: 'GET', path, headers: { accept } });
    if (statusCode !== 200 || headers['content-type'] !== accept)
      throw refuseAnswer(api, statusCode, await body.text());
    for await (const piece of body as AsyncIterable<Buffer>) {
      bytes += piece.length;
      yield piece;
    }
  } catch (error) {
    if (error instanceof LsrError || bytes === 0)
      throw error instanceof LsrError ? error : explainFailure(api, error as NodeJS.ErrnoException);
    throw new LsrError(
      'AGENT_UNREACHABLE',
      `the agent at ${api} broke off after ${bytes} bytes: it ended, or too little was read in 30 s`,
    );
  } finally {
    await client.destroy();
  }
}

/** Longest path that fits sockaddr_un.sun_path with its NUL (unix(7)). */
const longestSocketPath = 107;

/** undici takes 60 ms to load, which --help need not pay. */
async function openClient(api: string, more: Client.Options = {}): Promise<Client> {
  const { Client } = await import('undici');
  const limits = { headersTimeout: 30_000, bodyTimeout: 30_000, maxResponseSize: 64 * 1024 * 1024, ...more };
  if (!api.includes('://')) {
    if (Buffer.byteLength(api) > longestSocketPath) {
      throw new LsrError(
        'USAGE',
        `--api ${api} is too long for a socket: ${longestSocketPath} bytes at most`,
      );
    }
    return new Client('http://localhost', { ...limits, connect: { socketPath: api, timeout: 5000 } });
  }
  const url = URL.canParse(api) ? new URL(api) : null;
  if (url?.protocol !== 'http:' || url.pathname !== '/' || url.search !== '') {
    throw new LsrError(
      'USAGE',
      `--api ${api} is neither the path of a socket nor a URL like http://127.0.0.1:7913`,
    );
  }
  return new Client(url.origin, { ...limits, connect: { timeout: 5000 } });
}

function formatQuery(query: Record<string, string | number | undefined>): string {
  const given = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value !== undefined) given.append(key, String(value));
  }
  return given.size === 0 ? '' : `?${given}`;
}

function readAnswer(api: string, status: number, text: string): unknown {
  const answer = parseObject(text);
  if (status < 300 && answer) return answer;
  throw refuseAnswer(api, status, text);
}

/** The problem that an answer tells of; or that it is none of this API. */
function refuseAnswer(api: string, status: number, text: string): LsrError {
  const answer = parseObject(text);
  const { code, detail, problems } = answer ?? {};
  if (status >= 400 && typeof code === 'string' && code in errorTable) {
    return new LsrError(code as ErrorCode, typeof detail === 'string' ? detail : code, { status, problems });
  }
  const excerpt = JSON.stringify(text.slice(0, 80));
  return new LsrError(
    'AGENT_UNREACHABLE',
    `${api} answers with status ${status} and ${excerpt}: this is no lsr-agent`,
  );
}

function parseObject(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}

function explainFailure(api: string, error: NodeJS.ErrnoException): LsrError {
  const start =
    'start it with "lsr-agent daemon --config /etc/lsr-agent/agent.yaml", or name its socket with --api';
  switch (error.code) {
    case 'ENOENT':
    case 'ENOTDIR':
    case 'ECONNREFUSED':
      return new LsrError('AGENT_UNREACHABLE', `no agent answers at ${api}: is lsr-agent running? ${start}`);
    case 'EACCES':
    case 'EPERM':
      return new LsrError(
        'PRIVILEGES',
        `no right to open ${api}: run as root or as a member of the socket's group`,
      );
    case 'UND_ERR_CONNECT_TIMEOUT':
    case 'UND_ERR_HEADERS_TIMEOUT':
    case 'UND_ERR_BODY_TIMEOUT':
      return new LsrError(
        'AGENT_UNREACHABLE',
        `the agent at ${api} did not answer in time; its log may say why`,
      );
    default:
      return new LsrError(
        'AGENT_UNREACHABLE',
        `the agent at ${api} cannot be asked: ${error.message || error.code}`,
      );
  }
}
