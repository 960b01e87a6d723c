// Runs the tests and ends with the line `N passed, N failed`, with `, N skipped` if any was.
// Usage: npm test [-- GROUP or FILE …], where a group is unit, bpf, package, bench or netns.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { relative, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { colors } from '../src/colors.js';
import { commandEnvironment } from '../src/command-environment.js';
import { removeAbandonedLabs } from '../tests/helpers/namespaces.js';

interface Group {
  name: string;
  /** What the group does that only root may do. */
  rootFor?: string;
  /** Runs before ava's own words. */
  wrapper: string[];
  options: string[];
}

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

const groups: Group[] = [
  { name: 'unit', wrapper: [], options: [] },
  {
    name: 'bpf',
    rootFor: 'loads BPF programs',
    wrapper: ['unshare', '--net', '--'],
    options: ['--concurrency', '1'],
  },
  {
    name: 'package',
    rootFor: 'installs the package in a chroot',
    wrapper: [],
    // The first time it unpacks a Debian.
    options: ['--timeout', '10m'],
  },
  { name: 'bench', rootFor: 'loads BPF programs', wrapper: [], options: ['--timeout', '5m'] },
  { name: 'netns', rootFor: 'makes network namespaces', wrapper: [], options: ['--serial'] },
];

const root = fileURLToPath(new URL('..', import.meta.url));
/** The lines of failed tests, told again at the end: by then they are thousands of lines back. */
const failures: string[] = [];
let isFailureBeingRead = false;
let interrupted: NodeJS.Signals | null = null;

process.chdir(root);
process.exitCode = await runTests(process.argv.slice(2));

/** Returns the exit code: a failure, nothing executed, or in CI a skip, is 1. */
async function runTests(words: string[]): Promise<number> {
  const total: Counts = { passed: 0, failed: 0, skipped: 0 };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => (interrupted = signal));
  for (const word of words.filter((word) => selectFiles([word]).length === 0)) {
    total.failed++;
    say(`"${word}" is neither a group (${groups.map(({ name }) => name).join(', ')}) nor a test file`);
  }
  for (const group of groups) {
    const files = selectFiles(words).filter((file) => file.startsWith(`tests/${group.name}/`));
    if (files.length === 0 || interrupted) continue;
    const counts = await runGroup(group, files);
    for (const key of ['passed', 'failed', 'skipped'] as const) total[key] += counts[key];
  }
  const executed = total.passed + total.failed > 0;
  if (!executed) say('no test was executed');
  if (total.skipped > 0 && process.env.CI === 'true') say('in CI a skipped test is a failure');
  if (failures.length > 0) console.log([colors.bold('\nfailed tests:'), ...failures].join('\n'));
  console.log(formatCounts(total));
  if (interrupted) return 130;
  return executed && total.failed === 0 && !(total.skipped > 0 && process.env.CI === 'true') ? 0 : 1;
}

function selectFiles(words: string[]): string[] {
  const all = readdirSync('tests', { recursive: true, encoding: 'utf8' })
    .map((path) => `tests/${path}`)
    .filter((path) => path.endsWith('.test.ts'))
    .sort();
  const isWanted = (file: string, word: string): boolean =>
    file.startsWith(`tests/${word}/`) || file === relative(root, resolve(word));
  return words.length === 0 ? all : all.filter((file) => words.some((word) => isWanted(file, word)));
}

async function runGroup(group: Group, files: string[]): Promise<Counts> {
  const counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  const start = performance.now();
  console.log(colors.bold(`\n${group.name}: ${files.length} ${files.length === 1 ? 'file' : 'files'}`));
  if (group.rootFor !== undefined && process.getuid?.() !== 0) {
    say(
      `skipped: the group ${group.name} ${group.rootFor} and must run as root; each file counts as one skip`,
    );
    return { ...counts, skipped: files.length };
  }
  if (group.name === 'netns') await removeAbandonedLabs();
  try {
    await runAva(group, files, counts);
  } finally {
    if (group.name === 'netns') await removeAbandonedLabs();
  }
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${group.name}: ${formatCounts(counts)} in ${seconds} s`);
  return counts;
}

/** Counts and prints while ava runs. Its own exit code may know of a failure that no test is blamed for. */
async function runAva(group: Group, files: string[], counts: Counts): Promise<void> {
  const [command = '', ...words] = [
    ...group.wrapper,
    'node_modules/.bin/ava',
    '--tap',
    ...group.options,
    ...files,
  ];
  const child = spawn(command, words, {
    env: { ...process.env, ...commandEnvironment },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
  const forward = (signal: NodeJS.Signals): boolean => child.kill(signal);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, forward);
  for await (const line of createInterface(child.stdout)) readTapLine(line, counts);
  const [code, signal] = await ended;
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(name, forward);
  const executed = counts.passed + counts.failed;
  if (interrupted || (code === 0 && executed + counts.skipped > 0) || counts.failed > 0) return;
  counts.failed++;
  say(executed > 0 ? `ava ended with ${signal ?? `code ${code}`}` : 'ava executed no test');
}

/** A line of the Test Anything Protocol, version 13: what follows a point explains it. */
function readTapLine(line: string, counts: Counts): void {
  const point = /^(not )?ok \d+(?: - )?(.*?)(?: # (SKIP|TODO)\b.*)?$/.exec(line);
  if (point) {
    const [, not, title = '', directive] = point;
    const outcome = directive ? 'skipped' : not ? 'failed' : 'passed';
    counts[outcome]++;
    const paint = { passed: colors.green, failed: colors.red, skipped: colors.yellow }[outcome];
    isFailureBeingRead = outcome === 'failed';
    tell(`  ${paint(outcome)}  ${title.replaceAll('\\#', '#')}`);
  } else if (
    !/^(TAP version|1\.\.\d+|# (tests|pass|skip|fail|crash)\w* \d+| {2}(---|\.\.\.)$|$)/.test(line)
  ) {
    tell(`        ${line}`);
  }
}

function tell(line: string): void {
  console.log(line);
  if (isFailureBeingRead) failures.push(line);
}

function formatCounts({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}

function say(text: string): void {
  console.log(colors.yellow(text));
}
