import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { API_LIMITS } from './limits.js';

/** What one connection has asked. */
export interface Dialogue {
  /** Requests that are not answered yet, oldest first. */
  pending: Exchange[];
  /** The newest request; its body may still arrive after it was answered. */
  newest: IncomingMessage | null;
}

export interface Exchange {
  request: IncomingMessage;
  response: ServerResponse;
}

/** A route emits this on a response that lasts, when the client has taken enough of it to get `answerMs` again. */
export const progress = Symbol('progress');

/** The clients of one listener; oldest silence first, since a Map keeps the order of insertion. */
export type Connections = ReadonlyMap<Duplex, Dialogue>;

/**
 * Keeps a listener open for the next client: where too many are connected, the one that has been silent for
 * longest goes. So whoever holds connections without asking anything (slow-loris) only displaces himself.
 */
export function watchConnections(server: Server, refuse: (socket: Socket) => void): Connections {
  const clients = new Map<Socket, Dialogue>();

  server.on('connection', (socket: Socket) => {
    if (clients.size >= API_LIMITS.connections && !dropSilent(clients)) return refuse(socket);
    clients.set(socket, { pending: [], newest: null });
    socket.once('close', () => clients.delete(socket));
  });
  server.prependListener('request', (request: IncomingMessage, response: ServerResponse) => {
    const { socket } = request;
    const dialogue = clients.get(socket);
    if (!dialogue) return;
    const exchange = { request, response };
    dialogue.newest = request;
    dialogue.pending.push(exchange);
    const overdue = setTimeout(() => socket.destroy(), API_LIMITS.answerMs).unref();
    response.on(progress, () => overdue.refresh());
    response.once('close', () => {
      clearTimeout(overdue);
      dialogue.pending = dialogue.pending.filter((other) => other !== exchange);
      // The silence begins now.
      if (clients.delete(socket)) clients.set(socket, dialogue);
    });
  });
  return clients;
}

function dropSilent(clients: Map<Socket, Dialogue>): boolean {
  for (const [socket, { pending }] of clients) {
    if (pending.length > 0) continue;
    clients.delete(socket);
    socket.destroy();
    return true;
  }
  return false;
}
