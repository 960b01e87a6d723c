import type { Command } from 'commander';
import { printAnswer } from '../output.js';

/** `lsr-agent unload`: what a daemon leaves behind on purpose, removed. */
export function addUnloadCommand(program: Command): void {
  program
    .command('unload')
    .description('remove the programs and pins of an agent from this host; chains end at once')
    .requiredOption('--config <file>', 'the agent configuration, agent.yaml')
    .option('--bypass', 'let packets of chains with `onMissing: drop` go un-chained; else they are dropped')
    .addHelpText('after', '\nExample:\n  # lsr-agent unload --config /etc/lsr-agent/agent.yaml')
    .action(unloadAgent);
}

async function unloadAgent(options: { config: string; bypass?: boolean }, command: Command): Promise<void> {
  const [{ readAgentConfig }, { claimHost }, { unload }] = await Promise.all([
    import('../agent-config.js'),
    import('../claim.js'),
    import('../unload.js'),
  ]);
  const config = readAgentConfig(options.config);
  const claim = await claimHost(config); // a running daemon would go on as if its tables were there
  const { removed, dropped } = await unload(config, { bypass: options.bypass ?? false });
  claim.close();
  const { json = false } = command.optsWithGlobals<{ json?: boolean }>();
  printAnswer(json, { node: config.node, removed, dropped }, () => {
    const lines =
      removed.length === 0
        ? [`nothing of ${config.node} was there`]
        : ['removed:', ...removed.map((pin) => `  ${pin}`)];
    const kept = `the backstop stays: packets of ${dropped.join(', ')} are dropped; \`lsr-agent unload --bypass\` lets them go un-chained`;
    return (dropped.length === 0 ? lines : [...lines, kept]).join('\n');
  });
}
