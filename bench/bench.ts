// Runs a benchmark by its name, or all. Usage: npm run bench [-- [NAME] [--short] [OPTION …]]; NAME is one of those below.
// --short: as little as shows that it works, and that its own checks hold. Its figures are worth nothing.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { commandEnvironment } from '../src/command-environment.js';

interface Bench {
  file: string;
  measures: string;
  /** Runs before node. */
  wrapper: string[];
  /** Its options for --short. */
  short: string[];
}

const benches = new Map<string, Bench>([
  [
    'hop',
    {
      file: 'hop.ts',
      measures: 'what each step of the data path costs, in ns a packet',
      wrapper: ['unshare', '--net', '--'],
      short: ['--runs', '200'],
    },
  ],
  [
    'forward',
    {
      file: 'forward.ts',
      measures: 'packets a second over four hosts, against the kernel, SRv6, and the least that is possible',
      wrapper: [],
      short: ['--rounds', '1', '--size', '64'],
    },
  ],
  [
    'rules',
    {
      file: 'rules.ts',
      measures: 'what 1 to 100,000 rules and chains cost: a packet, an apply, a change',
      wrapper: ['unshare', '--net', '--mount', '--'],
      short: ['--short'],
    },
  ],
  [
    'change',
    {
      file: 'change.ts',
      measures: 'packets lost while meshes are changed and daemons are restarted, at full load',
      wrapper: [],
      short: ['--applies', '5', '--restarts', '1'],
    },
  ],
  [
    'audit',
    {
      file: 'audit.ts',
      measures: 'very many flows: in the kernel, into the store, and out of it; --flows N',
      wrapper: ['unshare', '--net', '--mount', '--'],
      short: ['--flows', '20000'],
    },
  ],
  [
    'mtu',
    {
      file: 'mtu.ts',
      measures: 'TCP through a chain against plain forwarding, by MTU layout; --help tells its options',
      wrapper: [],
      short: ['--layout', 'even', '--pairs', '1'],
    },
  ],
]);

const words = process.argv.slice(2);
// An option without a name before it is for all.
const name = words[0]?.startsWith('-') ? undefined : words.shift();
const isShort = words.includes('--short');
const options = words.filter((word) => word !== '--short');
const chosen = [...benches].filter(([candidate]) => name === undefined || candidate === name);

if (chosen.length === 0) {
  const known = [...benches].map(([name, { measures }]) => `\n  ${name}  ${measures}`).join('');
  console.error(`"${name}" is no benchmark; there are:${known}`);
  process.exitCode = 2;
}
for (const [name, bench] of chosen) {
  if (chosen.length > 1) console.log(`\n${name}: ${bench.measures}`);
  process.exitCode = await runBench(bench, [...(isShort ? bench.short : []), ...options]);
  if (process.exitCode !== 0) break;
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
