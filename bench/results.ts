import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';
import { type Bar, plotBars } from './plot.js';

/** Where and when something was measured. */
interface Machine {
  date: string;
  commit: string;
  processor: string;
  processors: number;
  memoryGigabytes: number;
  kernel: string;
  node: string;
}

/** Keeps what a benchmark found in bench/results: as data, as the table that was printed, and as a plot. */
export function saveResults(
  name: string,
  rows: unknown,
  table: string,
  plot: { title: string; bars: Bar[] },
): void {
  const folder = fileURLToPath(new URL('results/', import.meta.url));
  mkdirSync(folder, { recursive: true });
  const machine = describeMachine();
  const about = Object.entries(machine).map(([key, value]) => `${key}: ${value}`);
  writeFileSync(`${folder}${name}.json`, `${JSON.stringify({ machine, rows }, null, 2)}\n`);
  writeFileSync(`${folder}${name}.txt`, `${table}\n\n${about.join('\n')}\n`);
  writeFileSync(`${folder}${name}.svg`, plotBars(plot.title, plot.bars, about.slice(0, 4).join(' · ')));
}

function describeMachine(): Machine {
  const git = (...words: string[]): string => execFileSync('git', words, { encoding: 'utf8' }).trim();
  const changed = git('status', '--porcelain', '--untracked-files=no') === '' ? '' : ', changed';
  return {
    date: new Date().toISOString().slice(0, 10),
    commit: git('rev-parse', '--short', 'HEAD') + changed,
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    processors: cpus().length,
    memoryGigabytes: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
  };
}
