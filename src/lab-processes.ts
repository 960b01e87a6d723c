import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { commandEnvironment } from './command-environment.js';
import { LsrError } from './errors.js';
import { enterNamespace, listProcesses } from './lab-topology.js';

/** A process of the lab that outlives the command that started it. */
export interface LabProcess {
  namespace: string;
  /** Holds `pid` and `log`; appears on the process's command line, which is how it is known again. */
  folder: string;
  command: string[];
}

/** Starts it in its namespace and waits until it is ready; throws LAB with the end of its log when it ends or takes too long. */
export async function startProcess(
  process_: LabProcess,
  isReady: () => Promise<boolean>,
  signal?: AbortSignal,
): Promise<number> {
  const log = openSync(`${process_.folder}/log`, 'a');
  const child = spawn('nsenter', enterNamespace(process_.namespace, process_.command), {
    detached: true,
    env: { ...process.env, ...commandEnvironment },
    stdio: ['ignore', log, log],
  });
  closeSync(log);
  let ended: string | null = null;
  child.on('error', (error) => (ended = error.message));
  child.on('exit', (code, name) => (ended = `it ended with ${name ?? `code ${code}`}`));
  child.unref();
  if (child.pid !== undefined) writeFileSync(`${process_.folder}/pid`, `${child.pid}\n`);
  const deadline = Date.now() + startLimitMs;
  while (!(await isReady())) {
    signal?.throwIfAborted();
    if (ended === null && Date.now() > deadline) ended = `it was not ready after ${startLimitMs / 1000} s`;
    if (ended !== null) throw new LsrError('LAB', describeFailure(process_, ended));
    await sleep(30);
  }
  return child.pid ?? 0;
}

/** Ends what runs on behalf of this folder, by pid file or by namespace; returns the process ids. */
export async function stopProcesses(namespace: string, folder: string): Promise<number[]> {
  const candidates = new Set([...readPid(folder), ...(await listProcesses(namespace))]);
  const own = [...candidates].filter((pid) => isOurs(pid, folder));
  for (const pid of own) sendSignal(pid, 'SIGTERM');
  const deadline = Date.now() + stopLimitMs;
  while (own.some((pid) => isOurs(pid, folder)) && Date.now() < deadline) await sleep(20);
  for (const pid of own.filter((left) => isOurs(left, folder))) sendSignal(pid, 'SIGKILL');
  while (own.some((pid) => isOurs(pid, folder))) await sleep(20);
  return own;
}

const startLimitMs = 15_000;
const stopLimitMs = 5_000;

function readPid(folder: string): number[] {
  const file = `${folder}/pid`;
  const pid = existsSync(file) ? Number(readFileSync(file, 'utf8')) : Number.NaN;
  return Number.isInteger(pid) && pid > 1 ? [pid] : [];
}

/** A process id may have been given to somebody else: the command line decides. A zombie has none. */
function isOurs(pid: number, folder: string): boolean {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    return pid !== process.pid && words.some((word) => word.startsWith(`${folder}/`));
  } catch {
    return false;
  }
}

function sendSignal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It ended in the meantime.
  }
}

function describeFailure({ namespace, folder, command }: LabProcess, reason: string): string {
  const tail = readFileSync(`${folder}/log`, 'utf8').trimEnd().split('\n').slice(-15);
  const lines = tail.map((line) => `  ${line}`).join('\n');
  return `"${command.join(' ')}" did not start in ${namespace}: ${reason}. The end of ${folder}/log:\n${lines}`;
}
