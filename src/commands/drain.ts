import type { Command } from 'commander';
import { callApi } from '../client.js';
import type { Drains } from '../drains.js';
import { LsrError } from '../errors.js';
import { printAnswer } from '../output.js';
import { formatTable } from '../table.js';

/** `lsr-agent drain`, at an edge. */
export function addDrainCommand(program: Command): void {
  program
    .command('drain')
    .description(
      'at an edge: send flows past a node, new ones at once and the others after a time; or list such nodes',
    )
    .argument('[node]', 'the node to leave')
    .option('--deadline <seconds>', 'when the flows that are there move too', '60')
    .option('--undo', 'use the node again')
    .addHelpText('after', '\nExample:\n  # lsr-agent drain ids1 --deadline 300')
    .action(drainNode);
}

async function drainNode(
  node: string | undefined,
  { deadline, undo = false }: { deadline: string; undo?: boolean },
  command: Command,
): Promise<void> {
  const { api, json = false } = command.optsWithGlobals<{ api: string; json?: boolean }>();
  const seconds = Number(deadline);
  if (!Number.isFinite(seconds) || seconds < 0)
    throw new LsrError('USAGE', `--deadline is "${deadline}"; write seconds, such as 60`);
  const path = '/v1/drains';
  let answer = await callApi<{ drains: Drains }>(api, { path });
  if (node !== undefined) {
    const others = answer.drains.filter((drain) => drain.node !== node);
    const until = new Date(Date.now() + seconds * 1000).toISOString();
    const drains = undo ? others : [...others, { node, until }];
    const body = JSON.stringify({ drains });
    answer = await callApi(api, { path, method: 'PUT', body, contentType: 'application/json' });
  }
  printAnswer(json, answer, () => formatDrains(answer.drains));
}

function formatDrains(drains: Drains): string {
  if (drains.length === 0) return 'no node is drained';
  const rows = drains.map(({ node, until }) => [
    node,
    Date.parse(until) > Date.now() ? `new flows; all at ${until}` : 'all flows',
  ]);
  return formatTable(['node', 'sent past it'], rows);
}
