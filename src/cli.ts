#!/usr/bin/env node
import { Command, CommanderError } from 'commander';
import { defaultApi } from './client.js';
import { addApplyCommand } from './commands/apply.js';
import { addAuditCommand } from './commands/audit.js';
import { addBackstopCommand } from './commands/backstop.js';
import { addChainsCommand } from './commands/chains.js';
import { addCheckCommand } from './commands/check.js';
import { addDaemonCommand } from './commands/daemon.js';
import { addDoctorCommand } from './commands/doctor.js';
import { addDrainCommand } from './commands/drain.js';
import { addDropsCommand } from './commands/drops.js';
import { addExportCommand } from './commands/export.js';
import { addKeysCommand } from './commands/keys.js';
import { addLabCommand } from './commands/lab.js';
import { addPathsCommand } from './commands/paths.js';
import { addPlanCommand } from './commands/plan.js';
import { addStatusCommand } from './commands/status.js';
import { addSummaryCommand } from './commands/summary.js';
import { addTraceCommand } from './commands/trace.js';
import { addUnloadCommand } from './commands/unload.js';
import { addWatchCommand } from './commands/watch.js';
import { errorTable, LsrError } from './errors.js';
import { endQuietlyOnClosedPipe, printError } from './output.js';
import { readVersion } from './version.js';

const commands = [
  addDaemonCommand,
  addCheckCommand,
  addPlanCommand,
  addApplyCommand,
  addStatusCommand,
  addChainsCommand,
  addPathsCommand,
  addExportCommand,
  addDropsCommand,
  addAuditCommand,
  addSummaryCommand,
  addTraceCommand,
  addWatchCommand,
  addDrainCommand,
  addKeysCommand,
  addDoctorCommand,
  addBackstopCommand,
  addUnloadCommand,
  addLabCommand,
];

endQuietlyOnClosedPipe();
process.exitCode = await runCommand(process.argv);

/** Runs one command and returns its exit code: 0 success, 1 failed, 2 wrong usage or invalid input. */
async function runCommand(argv: string[]): Promise<number> {
  const json = argv.includes('--json');
  try {
    await buildProgram(json).parseAsync(argv);
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0;
    const helpWasPrinted = error instanceof CommanderError && error.code === 'commander.help' && !json;
    const failure = error instanceof CommanderError ? toUsageError(error) : error;
    if (!helpWasPrinted) printError(json, failure);
    return failure instanceof LsrError ? errorTable[failure.code].exit : 1;
  }
}

function buildProgram(json: boolean): Command {
  const program = new Command('lsr-agent')
    .description(
      'Service function chaining on plain IPv4: source routes, validated and audited in the kernel.',
    )
    .version(readVersion())
    .option('--api <socket or url>', 'where the agent answers', defaultApi)
    .option('--json', 'print data, and errors, as JSON')
    .configureHelp({ showGlobalOptions: true })
    // Errors are printed in one place, printError; help about a missing word goes to stderr, where --json wants JSON.
    .configureOutput({ outputError: () => {}, ...(json && { writeErr: () => {} }) })
    .exitOverride()
    .addHelpText('after', '\nExample:\n  $ lsr-agent paths --destination 10.9.0.0/24 --since 5m');
  for (const addCommand of commands) addCommand(program);
  return program;
}

function toUsageError({ code, message }: CommanderError): LsrError {
  const what =
    code === 'commander.help' ? 'a command is missing' : message.replace(/^error: /, '').replace(/\n/g, ' ');
  return new LsrError('USAGE', `${what}; see lsr-agent --help`);
}
