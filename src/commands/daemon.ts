import { type Command, Option } from 'commander';
import { type LogLevel, logLevels } from '../log-levels.js';

/** `lsr-agent daemon`: runs until SIGTERM or SIGINT; the data path stays unless told otherwise. */
export function addDaemonCommand(program: Command): void {
  program
    .command('daemon')
    .description('run the agent of this host in the foreground')
    .requiredOption('--config <file>', 'the agent configuration, agent.yaml')
    .option('--detach-on-exit', 'remove the programs and pins when it ends; else the data path keeps running')
    .addOption(
      new Option('--log-level <level>', 'least important line to log')
        .choices([...logLevels])
        .default('info'),
    )
    .addHelpText('after', '\nExample:\n  # lsr-agent daemon --config /etc/lsr-agent/agent.yaml')
    .action(runDaemonCommand);
}

async function runDaemonCommand(options: {
  config: string;
  detachOnExit?: boolean;
  logLevel: LogLevel;
}): Promise<void> {
  const [{ readAgentConfig }, { createLogger }, { runDaemon }] = await Promise.all([
    import('../agent-config.js'),
    import('../logger.js'),
    import('../daemon.js'),
  ]);
  const config = readAgentConfig(options.config);
  await runDaemon(config, createLogger(options.logLevel), { detachOnExit: options.detachOnExit ?? false });
}
