import { execFileSync } from 'node:child_process';
import { release } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { ProgramInfo } from '../../src/native.js';

/** What a program costs the verifier. */
export type Cost = Record<'loaded' | 'verified' | 'peakStates', number>;

/** bpf/budgets.json. Another kernel has another verifier, and other figures. */
export interface Budgets {
  kernel: string;
  /** With all capabilities, and with exactly those that are promised, where the verifier follows more ways. */
  root: Record<string, Cost>;
  promised: Record<string, Cost>;
}

export const budgetsFile = fileURLToPath(new URL('../../bpf/budgets.json', import.meta.url));
const loader = fileURLToPath(new URL('load-object.ts', import.meta.url));

/** Loads the programs as root in name, for the files' sake, with these capabilities; what load-object.ts has printed. */
export function loadWith(capabilities: readonly string[], ...options: string[]): string {
  const set = ['-all', ...capabilities.map((name) => `+${name}`)].join(',');
  const rights = [`--inh-caps=${set}`, `--bounding-set=${set}`];
  return execFileSync('setpriv', [...rights, process.execPath, ...load(options)], { encoding: 'utf8' });
}

const load = (options: readonly string[]): string[] => ['--import', 'tsx', loader, ...options];

export function measureBudgets(): Budgets {
  return {
    kernel: release().split('.').slice(0, 2).join('.'),
    root: readCosts(execFileSync(process.execPath, load(['--measured']), { encoding: 'utf8' })),
    promised: readCosts(loadWith(['bpf', 'net_admin'], '--measured')),
  };
}

/** Lines about figures that are more than a tenth away from the budget. */
export function compareCosts(
  who: string,
  budgeted: Record<string, Cost>,
  measured: Record<string, Cost>,
): string[] {
  return Object.entries(measured).flatMap(([program, cost]) =>
    (Object.keys(cost) as (keyof Cost)[]).flatMap((name) => {
      const budget = budgeted[program]?.[name] ?? 0;
      if (Math.abs(cost[name] - budget) <= budget / 10) return [];
      return `${program} (${who}): ${name} is ${cost[name]}, in the budget ${budget}`;
    }),
  );
}

function readCosts(printed: string): Record<string, Cost> {
  const { programs, statistics, error } = JSON.parse(printed);
  if (error) throw new Error(error);
  return Object.fromEntries(
    programs.map(({ name, translatedBytes, verifiedInstructions }: ProgramInfo) => [
      name,
      {
        loaded: translatedBytes / 8,
        verified: verifiedInstructions,
        peakStates: Number(/ peak_states (\d+)/.exec(statistics[name])?.[1]),
      },
    ]),
  );
}
