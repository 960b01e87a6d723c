import { ExecaError, execa } from 'execa';
import { LsrError } from './errors.js';

export interface CommandOptions {
  /** Text for its standard input. */
  input?: string;
  /** Ends the command. */
  signal?: AbortSignal | undefined;
}

/**
 * What other programs need in their environment. Root by plain `su` lacks the sbin folders; and npm puts the programs of
 * its packages before the host's, one of which is called nft.
 */
export const commandEnvironment = {
  PATH: [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin']
    .filter((folder) => !folder.endsWith('node_modules/.bin'))
    .join(':'),
};

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
