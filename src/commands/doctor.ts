import type { Command } from 'commander';
import { colors } from '../colors.js';
import type { Finding } from '../diagnosis.js';
import { printAnswer } from '../output.js';

/** `lsr-agent doctor`: exit code 1 when a finding is an error. */
export function addDoctorCommand(program: Command): void {
  program
    .command('doctor')
    .description('probe what this host lets an agent do, and say what to change')
    .option('--config <file>', 'look at the interfaces, files and addresses of this agent.yaml too')
    .addHelpText('after', '\nExample:\n  # lsr-agent doctor --config /etc/lsr-agent/agent.yaml')
    .action(examineHost);
}

async function examineHost(options: { config?: string }, command: Command): Promise<void> {
  const [{ readAgentConfig }, { diagnose }] = await Promise.all([
    import('../agent-config.js'),
    import('../doctor.js'),
  ]);
  const findings = await diagnose(options.config === undefined ? null : readAgentConfig(options.config));
  const { json = false } = command.optsWithGlobals<{ json?: boolean }>();
  printAnswer(json, { findings }, () => formatFindings(findings));
  if (findings.some(({ status }) => status === 'error')) process.exitCode = 1;
}

function formatFindings(findings: Finding[]): string {
  const lines = findings.map(({ check, status, found, advice }) => {
    const line = `${marks[status]} ${check}: ${found}`;
    return status === 'ok' || !advice ? line : `${line}\n          ${advice}`;
  });
  const errors = findings.filter(({ status }) => status === 'error').length;
  const warnings = findings.filter(({ status }) => status === 'warning').length;
  return [...lines, `${findings.length} checks, ${errors} errors, ${warnings} warnings`].join('\n');
}

const marks = {
  ok: colors.green('ok       '),
  warning: colors.yellow('warning  '),
  error: colors.red('error    '),
};
