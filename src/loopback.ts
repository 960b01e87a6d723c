import { isIP } from 'node:net';
import { LsrError } from './errors.js';

export interface ListenAddress {
  host: string;
  port: number;
}

/** "127.0.0.1:7913" or "[::1]:7913"; an address that others can reach is refused, because the API asks nobody who he is. */
export function parseListen(text: string): ListenAddress {
  const match = /^(localhost|127(?:\.\d{1,3}){3}|\[::1\]):(\d{1,5})$/.exec(text);
  const host = (match?.[1] ?? '').replace('localhost', '127.0.0.1').replace(/[[\]]/g, '');
  const port = Number(match?.[2]);
  if (isIP(host) === 0 || port > 65535) throw new LsrError('CONFIG_INVALID', describeListen(text));
  return { host, port };
}

/**
 * Whether a Host header names this listener as a browser on this host would. A web page whose name was bound anew to
 * 127.0.0.1 (DNS rebinding) sends its own name.
 */
export function isOwnHost(header: string | undefined, port: number): boolean {
  const match = /^(localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::(\d{1,5}))?$/i.exec(header ?? '');
  return match !== null && Number(match[2] ?? 80) === port;
}

function describeListen(text: string): string {
  const reachable = /^(0\.0\.0\.0|\[::\]|\*)?:\d+$/.test(text)
    ? ', and this one is open to every network: the API asks nobody who he is'
    : '';
  return `listen is ${JSON.stringify(text)}; it must be a loopback address and port like 127.0.0.1:7913${reachable}`;
}
