import type { Command } from 'commander';
import { printAnswer } from '../output.js';

/** `lsr-agent unload`: what a daemon leaves behind on purpose, removed. */
export function addUnloadCommand(program: Command): void {
  program
    .command('unload')
    .description('remove the programs and pins of an agent from this host; chains end at once')
    .requiredOption('--config <file>', 'the agent configuration, agent.yaml')
    .addHelpText('after', '\nExample:\n  # lsr-agent unload --config /etc/lsr-agent/agent.yaml')
    .action(unloadAgent);
}

async function unloadAgent(options: { config: string }, command: Command): Promise<void> {
  const [{ readAgentConfig }, { claimHost }, { unload }] = await Promise.all([
    import('../agent-config.js'),
    import('../claim.js'),
    import('../unload.js'),
  ]);
  const config = readAgentConfig(options.config);
  const claim = await claimHost(config); // a running daemon would go on as if its tables were there
  const removed = await unload(config);
  claim.close();
  const { json = false } = command.optsWithGlobals<{ json?: boolean }>();
  printAnswer(json, { node: config.node, removed }, () => {
    return removed.length === 0
      ? `nothing of ${config.node} was there`
      : `removed:\n  ${removed.join('\n  ')}`;
  });
}
