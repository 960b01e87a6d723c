// Runs a benchmark by its name. Usage: npm run bench [-- NAME [OPTION …]], where NAME is one of those below; default hop.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { commandEnvironment } from '../src/command-environment.js';

interface Bench {
  file: string;
  measures: string;
  /** Runs before node. */
  wrapper: string[];
}

const benches = new Map<string, Bench>([
  [
    'hop',
    {
      file: 'hop.ts',
      measures: 'what each step of the data path costs, in ns a packet',
      wrapper: ['unshare', '--net', '--'],
    },
  ],
  [
    'forward',
    {
      file: 'forward.ts',
      measures: 'packets a second over four hosts, against the kernel, SRv6, and the least that is possible',
      wrapper: [],
    },
  ],
  [
    'audit',
    {
      file: 'audit.ts',
      measures: 'very many flows: in the kernel, into the store, and out of it; --flows N',
      wrapper: ['unshare', '--net', '--mount', '--'],
    },
  ],
  [
    'mtu',
    {
      file: 'mtu.ts',
      measures: 'TCP through a chain against plain forwarding, by MTU layout; --help tells its options',
      wrapper: [],
    },
  ],
]);

const [word, ...options] = process.argv.slice(2);
// An option without a name before it is the default's.
const isName = word !== undefined && !word.startsWith('-');
const name = isName ? word : 'hop';
const bench = benches.get(name);

if (bench) process.exitCode = await runBench(bench, isName ? options : process.argv.slice(2));
else {
  const known = [...benches].map(([name, { measures }]) => `\n  ${name}  ${measures}`).join('');
  console.error(`"${name}" is no benchmark; there are:${known}`);
  process.exitCode = 2;
}

async function runBench({ file, wrapper }: Bench, words: string[]): Promise<number> {
  const script = fileURLToPath(new URL(file, import.meta.url));
  const [command = '', ...args] = [...wrapper, process.execPath, '--import', 'tsx', script, ...words];
  const child = spawn(command, args, {
    env: { ...process.env, ...commandEnvironment },
    stdio: 'inherit',
  });
  // It may have something to clean up: it decides when it ends.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  const [code] = (await once(child, 'close')) as [number | null];
  return code ?? 1;
}
