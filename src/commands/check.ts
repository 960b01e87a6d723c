import type { Command } from 'commander';
import { printAnswer } from '../output.js';

/** `lsr-agent check`: says what is wrong in a mesh document, all of it, without an agent. */
export function addCheckCommand(program: Command): void {
  program
    .command('check')
    .description('check a mesh document; problems as file:line:column: message, exit code 2')
    .argument('<mesh>', 'the mesh document, YAML or JSON; - for standard input')
    .addHelpText('after', '\nExample:\n  $ lsr-agent check mesh.yaml')
    .action(checkMeshFile);
}

async function checkMeshFile(file: string, _options: unknown, command: Command): Promise<void> {
  const { loadMesh } = await import('../mesh-file.js');
  const { mesh } = loadMesh(file);
  const counts = {
    nodes: Object.keys(mesh.nodes).length,
    chains: Object.keys(mesh.chains).length,
    rules: mesh.rules.length,
  };
  const { json = false } = command.optsWithGlobals<{ json?: boolean }>();
  printAnswer(json, { valid: true, file, ...counts }, () => {
    return `${file} is valid: nodes ${counts.nodes}, chains ${counts.chains}, rules ${counts.rules}`;
  });
}
