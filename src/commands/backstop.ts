import type { Command } from 'commander';
import { printAnswer } from '../output.js';

/** `lsr-agent backstop`: what the daemon does first, for the time before it. */
export function addBackstopCommand(program: Command): void {
  program
    .command('backstop')
    .description('have nftables drop what chains with `onMissing: drop` must not lose, before a daemon runs')
    .requiredOption('--config <file>', 'the agent configuration, agent.yaml')
    .addHelpText('after', '\nExample:\n  # lsr-agent backstop --config /etc/lsr-agent/agent.yaml')
    .action(standIn);
}

async function standIn(options: { config: string }, command: Command): Promise<void> {
  const [{ readAgentConfig }, { claimHost }, { raiseBackstop }] = await Promise.all([
    import('../agent-config.js'),
    import('../claim.js'),
    import('../backstop-boot.js'),
  ]);
  const config = readAgentConfig(options.config);
  const claim = await claimHost(config); // a running daemon keeps its own
  const { chains, ports } = await raiseBackstop(config);
  claim.close();
  const { json = false } = command.optsWithGlobals<{ json?: boolean }>();
  printAnswer(json, { node: config.node, chains, ports }, () => {
    if (chains.length === 0) return `no chain of ${config.node} has \`onMissing: drop\`; nothing is guarded`;
    const but =
      ports.length === 0 ? 'no port has programs yet' : `programs are in force on ${ports.join(', ')}`;
    return `packets of ${chains.join(', ')} are dropped rather than sent on un-chained; ${but}`;
  });
}
