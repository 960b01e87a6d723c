import type { Command } from 'commander';
import type { ApplyResult } from '../api-schemas.js';
import { callApi } from '../client.js';
import { printAnswer } from '../output.js';

/** `lsr-agent apply`: checks a mesh document here, then has the agent put it in force. */
export function addApplyCommand(program: Command): void {
  program
    .command('apply')
    .description('put a mesh document in force on this host, whole or not at all')
    .argument('<mesh>', 'the mesh document, YAML or JSON; - for standard input')
    .addHelpText('after', '\nExample:\n  # lsr-agent apply mesh.yaml')
    .action(applyMeshFile);
}

async function applyMeshFile(file: string, _options: unknown, command: Command): Promise<void> {
  const { api, json = false } = command.optsWithGlobals<{ api: string; json?: boolean }>();
  const { loadMesh } = await import('../mesh-file.js');
  const { text } = loadMesh(file);
  const result = await callApi<ApplyResult>(api, {
    method: 'PUT',
    path: '/v1/mesh',
    body: text,
    contentType: 'application/yaml',
  });
  printAnswer(json, result, () => formatResult(result));
}

function formatResult({ generation, changed, durationMs }: ApplyResult): string {
  const lines = Object.entries(changed)
    .filter(([, { added, removed, updated }]) => added + removed + updated > 0)
    .map(
      ([map, { added, removed, updated }]) =>
        `  ${map}: ${added} added, ${removed} removed, ${updated} updated`,
    );
  const summary = lines.length === 0 ? 'nothing had to change' : 'changed';
  return [
    `generation ${generation} is in force after ${Math.round(durationMs)} ms; ${summary}`,
    ...lines,
  ].join('\n');
}
