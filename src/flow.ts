import { protocolName } from './match.js';
import type { Flow, RouteEntry } from './record.js';

/** "tcp 10.1.0.10:41234 → 10.9.0.10:80". */
export function formatFlow(flow: Flow): string {
  const source = formatEnd(flow.source, flow.sourcePort);
  return `${protocolName(flow.protocol)} ${source} → ${formatEnd(flow.destination, flow.destinationPort)}`;
}

/** "fw → ids → gw"; an address stands where it belongs to nobody. */
export function formatRoute(route: RouteEntry[]): string {
  return route.length === 0 ? '–' : route.map(({ node, address }) => node ?? address).join(' → ');
}

function formatEnd(address: string, port: number | null): string {
  return port === null ? address : `${address}:${port}`;
}
