import { spawn } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { LsrError } from './errors.js';
import { demonstrateAudit } from './lab-audit.js';
import { demonstrateChain, type Print } from './lab-demo.js';
import { drawLab, listCommandsToTry } from './lab-drawing.js';
import { demonstrateFunctions } from './lab-functions.js';
import { lockLab } from './lab-lock.js';
import { describeLab, type Lab, program, raiseLab, razeLab } from './lab-standing.js';
import { auditTopology, functionsTopology } from './lab-topology.js';

/** `lsr-agent lab up`: builds the lab, leaves it standing, prints what to try. */
export async function labUp(): Promise<void> {
  await holdLab(async (lab, signal) => {
    try {
      await raiseLab(lab, { signal });
    } catch (error) {
      await razeLab(lab);
      throw error;
    }
    print(`${drawLab()}\n\n${listCommandsToTry(lab)}`);
  });
}

/** `lsr-agent lab down`: removes the labs, also what is left of broken ones. */
export async function labDown(): Promise<void> {
  await holdLab(async () => {
    const removed: string[] = [];
    for (const { describe } of Object.values(demonstrations)) removed.push(...(await razeLab(describe())));
    print(removed.length === 0 ? 'There is no lab.' : removed.map((what) => `removed ${what}`).join('\n'));
  });
}

interface Demonstration {
  describe(): Lab;
  run(lab: Lab, print: Print, signal: AbortSignal): Promise<void>;
}

const demonstrations = {
  chain: { describe: () => describeLab(), run: demonstrateChain },
  functions: { describe: () => describeLab('functions', functionsTopology), run: demonstrateFunctions },
  audit: { describe: () => describeLab('audit', auditTopology), run: demonstrateAudit },
} satisfies Record<string, Demonstration>;

/** `lsr-agent lab run`: builds a lab, shows what it is for, step by step, and removes it. */
export async function labRun(what: keyof typeof demonstrations): Promise<void> {
  const { describe, run } = demonstrations[what];
  await holdLab(async (_standing, signal) => {
    const lab = describe();
    // A reader that goes away (`| head`) ends this process at once; then another one must clean up.
    const leaveCleaning = (): void => {
      spawn(process.execPath, [program, 'lab', 'down'], { detached: true, stdio: 'ignore' }).unref();
    };
    process.once('exit', leaveCleaning);
    try {
      await run(lab, print, signal);
    } finally {
      await razeLab(lab);
      process.off('exit', leaveCleaning);
      print('The lab is removed.');
    }
  });
}

/** Exit codes of a program that a signal ended: 128 + its number. */
const signals = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

/** Runs work on the lab that nobody else may touch meanwhile. A signal makes the work stop and clean up first. */
async function holdLab(work: (lab: Lab, signal: AbortSignal) => Promise<void>): Promise<void> {
  if (process.getuid?.() !== 0) {
    throw new LsrError(
      'PRIVILEGES',
      'the lab makes network namespaces: run it as root, for example with sudo',
    );
  }
  const lab = describeLab();
  const owner = '/run/lsr-agent/lab.pid';
  const lock = await lockLab(lab.name, owner);
  mkdirSync('/run/lsr-agent', { recursive: true });
  writeFileSync(owner, `${process.pid}\n`);
  const interruption = new AbortController();
  for (const [name, code] of Object.entries(signals)) {
    process.on(name, () => {
      print('Interrupted; the lab is being cleaned up.');
      process.exitCode = code;
      interruption.abort();
    });
  }
  try {
    await work(lab, interruption.signal);
  } catch (error) {
    if (!interruption.signal.aborted) throw error;
  } finally {
    rmSync(owner, { force: true });
    lock.release();
  }
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}
