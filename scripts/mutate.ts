// Takes each condition of the validator away, or turns it round, and sees whether a test fails.
// Usage: npm run mutate [-- --only TEXT] [--jobs N] [--list]. What is known from an earlier run of the same code and
// tests is not run again; it is in build/mutate/. Prints the mutants that no test noticed, and the score. Root.
import { type ExecFileOptions, execFile, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { type Mutant, makeMutants } from './mutate-conditions.js';

type Outcome = 'unnoticed' | 'test failed' | 'refused by the verifier' | 'does not compile' | 'took too long';

const files = ['parse.h', 'hop.h', 'function.h', 'resume.h', 'route.h', 'tag.h', 'lsr.bpf.c'].map(
  (name) => `bpf/${name}`,
);
const copied = ['bpf', 'src', 'tests', 'package.json', 'tsconfig.json', 'build/Release/addon.node'];
const tests = ['packets', 'differential', 'integrity', 'functions', 'probes'].map(nameTest);
/** Where another test than the first notices most. */
const bestTests: Record<string, string> = {
  'bpf/function.h': nameTest('functions'),
  'bpf/resume.h': nameTest('functions'),
  'bpf/tag.h': nameTest('integrity'),
};
const TIMEOUT_MS = 300_000;

const stop = new AbortController();
/** Also killed when this process is told to end; `unshare` takes its children along. */
const run = (command: string, words: string[], options: ExecFileOptions = {}) =>
  promisify(execFile)(command, words, { ...options, signal: stop.signal });
const root = fileURLToPath(new URL('..', import.meta.url));
const { values } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    jobs: { type: 'string', default: '2' },
    list: { type: 'boolean', default: false },
  },
});

process.chdir(root);
const mutants = files
  .flatMap((file) => makeMutants(file, readFileSync(file, 'utf8')))
  .filter((mutant) => describe(mutant).includes(values.only));
if (values.list) for (const mutant of mutants) console.log(describe(mutant));
else process.exitCode = await runAll();

async function runAll(): Promise<number> {
  const base = hashInputs();
  const known = readResults();
  const queue = mutants.filter((mutant) => !known.has(keyOf(base, mutant)));
  console.log(`${mutants.length} mutants, ${mutants.length - queue.length} known from an earlier run`);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => stop.abort());
  const folders = Array.from({ length: Math.min(Number(values.jobs), queue.length) }, makeFolder);
  try {
    await Promise.all(folders.slice(0, 1).map(requireThatTestsPass));
    await Promise.all(
      folders.map(async (folder) => {
        for (let mutant = queue.shift(); mutant; mutant = queue.shift()) {
          const outcome = await tryMutant(folder, mutant);
          if (stop.signal.aborted) return;
          known.set(keyOf(base, mutant), outcome);
          appendFileSync(resultFile(), `${JSON.stringify({ key: keyOf(base, mutant), outcome })}\n`);
          console.log(`${outcome}: ${describe(mutant)}`);
        }
      }),
    );
  } finally {
    for (const folder of folders) rmSync(folder, { recursive: true });
  }
  if (stop.signal.aborted) return 130;
  return report(mutants.map((mutant) => [mutant, known.get(keyOf(base, mutant)) ?? 'unnoticed']));
}

function nameTest(name: string): string {
  return `tests/bpf/${name}.test.ts`;
}

function report(results: [Mutant, Outcome][]): number {
  const counts = new Map<Outcome, number>();
  for (const [, outcome] of results) counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
  const compiled = results.length - (counts.get('does not compile') ?? 0);
  const unnoticed = results.filter(([, outcome]) => outcome === 'unnoticed');
  console.log(['', 'unnoticed:', ...unnoticed.map(([mutant]) => `  ${describe(mutant)}`)].join('\n'));
  console.log([...counts].map(([outcome, count]) => `${count} ${outcome}`).join(', '));
  console.log(`score: ${compiled - unnoticed.length} of ${compiled}`);
  return unnoticed.length > 0 ? 1 : 0;
}

/** A copy of what the tests need, so that a change in the checkout meanwhile does no harm. */
function makeFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'lsr-mutate-'));
  for (const path of copied) cpSync(path, join(folder, path), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  mkdirSync(join(folder, 'build/bpf'));
  return folder;
}

/** Otherwise every mutant would seem to be noticed. */
async function requireThatTestsPass(folder: string): Promise<void> {
  if (!(await compile(folder))) throw new Error('bpf/lsr.bpf.c does not compile as it is');
  for (const test of tests) {
    const outcome = await runTest(folder, test);
    if (outcome !== 'unnoticed') throw new Error(`${test}: ${outcome}, without any change`);
  }
}

async function tryMutant(folder: string, mutant: Mutant): Promise<Outcome> {
  const original = readFileSync(join(folder, mutant.file));
  writeFileSync(join(folder, mutant.file), mutant.text);
  try {
    if (!(await compile(folder))) return 'does not compile';
    const best = bestTests[mutant.file] ?? tests[0];
    for (const test of tests.toSorted((a, b) => Number(b === best) - Number(a === best))) {
      const outcome = await runTest(folder, test);
      if (outcome !== 'unnoticed') return outcome;
    }
    return 'unnoticed';
  } finally {
    writeFileSync(join(folder, mutant.file), original);
  }
}

/** With the flags of the Makefile but for -Werror: an unused variable is no reason to reject a mutant. */
async function compile(folder: string): Promise<boolean> {
  const machine = execFileSync('gcc', ['-print-multiarch'], { encoding: 'utf8' }).trim();
  const target = { x64: 'x86', arm64: 'arm64' }[process.arch as string] ?? process.arch;
  const output = join(folder, 'build/bpf/lsr.bpf.o');
  const flags = ['-g', '-O2', '-target', 'bpf', '-mcpu=v3', `-D__TARGET_ARCH_${target}`, '-w'];
  try {
    await run('clang', [
      ...flags,
      `-I/usr/include/${machine}`,
      '-c',
      join(folder, 'bpf/lsr.bpf.c'),
      '-o',
      output,
    ]);
    await run('llvm-strip', ['--strip-debug', output]);
    return true;
  } catch {
    return false;
  }
}

/** A mount namespace of its own takes the test's bpffs with it when it is killed. */
async function runTest(folder: string, test: string): Promise<Outcome> {
  const ava = ['node_modules/.bin/ava', '--fail-fast', '--tap', test];
  const words = ['--net', '--mount', '--kill-child', '--fork', '--pid', '--mount-proc', '--', ...ava];
  try {
    await run('unshare', words, { cwd: folder, timeout: TIMEOUT_MS, maxBuffer: 1 << 28 });
    return 'unnoticed';
  } catch (error) {
    const { killed, stdout } = error as { killed?: boolean; stdout?: string };
    if (killed) return 'took too long';
    return stdout?.includes('the kernel refused the programs') ? 'refused by the verifier' : 'test failed';
  }
}

function resultFile(): string {
  mkdirSync('build/mutate', { recursive: true });
  return 'build/mutate/results.jsonl';
}

function readResults(): Map<string, Outcome> {
  if (!existsSync(resultFile())) return new Map();
  const lines = readFileSync(resultFile(), 'utf8').split('\n').filter(Boolean);
  return new Map(
    lines.map((line) => {
      const { key, outcome } = JSON.parse(line) as { key: string; outcome: Outcome };
      return [key, outcome];
    }),
  );
}

/** Of all that a result may depend on. */
function hashInputs(): string {
  const hash = createHash('sha256');
  const list = (folder: string): string[] => readdirSync(folder).map((name) => join(folder, name));
  const helpers = ['header', 'packet', 'tag', 'testbed', 'function-reasons'].map(
    (name) => `tests/helpers/${name}.ts`,
  );
  const files = [...list('bpf'), ...list('tests/parser'), ...helpers, ...tests];
  for (const file of files.sort()) hash.update(file).update(readFileSync(file));
  return hash.digest('hex');
}

function keyOf(base: string, { file, text }: Mutant): string {
  return createHash('sha256').update(base).update(file).update(text).digest('hex');
}

function describe({ file, line, change }: Mutant): string {
  return `${file}:${line} ${change}`;
}
