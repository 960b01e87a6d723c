import type { Command } from 'commander';
import type { ChainView } from '../api-schemas.js';
import { callApi } from '../client.js';
import { printAnswer } from '../output.js';
import { formatTable } from '../table.js';

/** `lsr-agent chains`. */
export function addChainsCommand(program: Command): void {
  program
    .command('chains')
    .description('the chains of the mesh in force, with the packets that took them here')
    .addHelpText('after', '\nExample:\n  $ lsr-agent chains --json')
    .action(listChains);
}

async function listChains(_options: unknown, command: Command): Promise<void> {
  const { api, json = false } = command.optsWithGlobals<{ api: string; json?: boolean }>();
  const answer = await callApi<{ chains: ChainView[] }>(api, { path: '/v1/chains' });
  printAnswer(json, answer, () => formatChains(answer.chains));
}

function formatChains(chains: ChainView[]): string {
  if (chains.length === 0) return 'no chain is in force; "lsr-agent apply MESH" brings some';
  const rows = chains.map((chain) => [
    chain.name,
    chain.mode,
    chain.hops.map(({ name, nodes }) => describeHop(name, nodes)).join(' → '),
    describePaths(chain.paths),
    chain.rules.join(', '),
    chain.destinations.join(', '),
    chain.overhead,
    chain.packets,
  ]);
  const head = ['chain', 'mode', 'hops', 'paths', 'rules', 'destinations', 'option bytes', 'packets'];
  return formatTable(head, rows);
}

function describeHop(name: string, nodes: readonly { node: string }[]): string {
  const [only] = nodes;
  if (nodes.length === 1 && only) return only.node;
  return `${name} (${nodes.map(({ node }) => node).join(' | ')})`;
}

function describePaths(paths: ChainView['paths']): string {
  const down = paths.filter(({ state }) => state === 'down').map(({ nodes }) => nodes.join(' → '));
  return down.length === 0 ? String(paths.length) : `${paths.length}, down: ${down.join('; ')}`;
}
