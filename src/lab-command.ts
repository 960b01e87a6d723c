import { ExecaError, execa } from 'execa';
import { commandEnvironment } from './command-environment.js';
import { LsrError } from './errors.js';

export interface CommandOptions {
  /** Text for its standard input. */
  input?: string;
  /** Ends the command. */
  signal?: AbortSignal | undefined;
}

/** Runs a program to its end and returns what it printed. Throws LAB with its own words when it fails. */
export async function runCommand(
  command: string,
  args: string[],
  options: CommandOptions = {},
): Promise<string> {
  try {
    const { stdout } = await execa(command, args, {
      env: commandEnvironment,
      ...(options.input === undefined ? { stdin: 'ignore' as const } : { input: options.input }),
      ...(options.signal && { cancelSignal: options.signal }),
    });
    return stdout;
  } catch (error) {
    options.signal?.throwIfAborted();
    if (!(error instanceof ExecaError)) throw error;
    throw new LsrError('LAB', describeFailure(error));
  }
}

function describeFailure(error: ExecaError): string {
  if (error.code === 'ENOENT')
    return `${error.command} needs a program that is missing; npm run setup installs it`;
  const words = String(error.stderr ?? '').trim() || error.shortMessage;
  return `"${error.command}" failed: ${words}`;
}
