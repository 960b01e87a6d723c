import type { Command } from 'commander';
import type { Status } from '../api-schemas.js';
import { callApi } from '../client.js';
import { printAnswer } from '../output.js';
import { formatTable } from '../table.js';

/** `lsr-agent status`. */
export function addStatusCommand(program: Command): void {
  program
    .command('status')
    .description('how the agent of this host is: mesh document, interfaces, table sizes')
    .addHelpText('after', '\nExample:\n  $ lsr-agent status --api /run/lsr-agent/lab/fw/api.sock')
    .action(showStatus);
}

async function showStatus(_options: unknown, command: Command): Promise<void> {
  const { api, json = false } = command.optsWithGlobals<{ api: string; json?: boolean }>();
  const status = await callApi<Status>(api, { path: '/v1/status' });
  printAnswer(json, status, () => formatStatus(status));
}

function formatStatus(status: Status): string {
  const interfaces = status.interfaces.map((one) => [
    one.name,
    one.role,
    one.ifindex === null ? 'missing' : (one.attached ?? 'not attached'),
    one.address,
    one.mtu,
    one.ifindex,
  ]);
  const maps = status.maps.map(({ name, entries, capacity }) => [name, entries, capacity]);
  return [
    ...formatSummary(status),
    '',
    formatTable(['interface', 'role', 'program', 'address', 'mtu', 'ifindex'], interfaces),
    '',
    formatTable(['map', 'entries', 'capacity'], maps),
  ].join('\n');
}

function formatSummary({
  node,
  state,
  generation,
  version,
  pid,
  uptimeSeconds,
  mesh,
  keys,
  backstop,
  store,
  functions,
  interfaces,
}: Status): string[] {
  const lines = [
    `${node} is ${state}: lsr-agent ${version}, pid ${pid}, up ${formatDuration(uptimeSeconds)}`,
  ];
  lines.push(
    mesh.appliedAt === null
      ? `no mesh document is in force yet (${mesh.source}); packets pass as if there were no chains`
      : `mesh generation ${generation} from ${mesh.source}, in force since ${mesh.appliedAt}`,
  );
  if (mesh.error !== null)
    lines.push(`the newest mesh document was refused, the last good one stays: ${mesh.error}`);
  if (keys.error !== null)
    lines.push(`the newest integrity keys were refused, those in force stay: ${keys.error}`);
  if (backstop.chains.length > 0)
    lines.push(`nftables drops what would leave un-chained of: ${backstop.chains.join(', ')}`);
  if (backstop.error !== null) lines.push(`the backstop is not as it should be: ${backstop.error}`);
  if (store.error !== null)
    lines.push(`flows are not stored now, and are kept in the kernel meanwhile: ${store.error}`);
  for (const { error } of interfaces)
    if (error !== undefined) lines.push(`${error}; it is managed as soon as it can be`);
  for (const { error, advice } of functions) if (error !== undefined) lines.push(`${error}; ${advice}`);
  const bare = interfaces
    .filter(({ attached, error }) => attached === null && error === undefined)
    .map(({ name }) => name);
  if (bare.length > 0)
    lines.push(`no program is attached to ${bare.join(', ')}; "lsr-agent doctor" says why`);
  return lines;
}

function formatDuration(seconds: number): string {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${Math.floor(seconds)} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}
