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
    chain.hops.map(({ node }) => node).join(' → '),
    chain.rules.join(', '),
    chain.destinations.join(', '),
    chain.overhead,
    chain.packets,
  ]);
  return formatTable(['chain', 'mode', 'hops', 'rules', 'destinations', 'option bytes', 'packets'], rows);
}
