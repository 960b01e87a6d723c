import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { callApi } from '../client.js';
import { LsrError } from '../errors.js';
import type { KeysView } from '../keys.js';
import { printAnswer } from '../output.js';
import { formatTable } from '../table.js';

/** `lsr-agent keys`: a key is given in a file or on standard input, and never on a command line. */
export function addKeysCommand(program: Command): void {
  program
    .command('keys')
    .description('the integrity keys of this host, without the keys themselves; or put others in force')
    .argument('[file]', 'the keys to put in force, YAML or JSON; - for standard input')
    .addHelpText('after', '\nExample:\n  # lsr-agent keys keys.yaml')
    .action(handleKeys);
}

async function handleKeys(file: string | undefined, _options: unknown, command: Command): Promise<void> {
  const { api, json = false } = command.optsWithGlobals<{ api: string; json?: boolean }>();
  const keys = await callApi<KeysView>(api, {
    path: '/v1/keys',
    ...(file !== undefined && { method: 'PUT', body: readText(file), contentType: 'application/yaml' }),
  });
  printAnswer(json, keys, () => formatKeys(keys));
}

function readText(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (error) {
    throw new LsrError('USAGE', `${file} cannot be read: ${(error as Error).message}`);
  }
}

function formatKeys({ sending, slots }: KeysView): string {
  const rows = slots.map(({ slot, state, until, fingerprint }) => [
    slot,
    state,
    fingerprint,
    state === 'empty' ? '' : (until ?? 'never'),
    slot === sending ? 'signs' : '',
  ]);
  return formatTable(['slot', 'state', 'fingerprint', 'runs out', ''], rows);
}
