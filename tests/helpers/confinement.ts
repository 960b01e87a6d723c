import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { mountBpffs } from './bpffs.js';
import { readUnit } from './service-unit.js';

/** nobody and nogroup on Debian: an account that owns nothing. */
export const nobody = { uid: 65534, gid: 65534 };

/**
 * A place where programs run as the shipped unit runs them, on a machine without systemd: bpffs as systemd
 * mounts it (for root alone), prepared by the unit's own ExecStartPre; another user; capabilities as asked.
 */
export interface Confinement {
  /** Where a file of the checkout, which may be in root's home, is seen. */
  locate(path: string): string;
  /** The command that runs `words` confined; put it behind nsenter or alone. */
  confine(capabilities: readonly string[], words: readonly string[]): string[];
  /** Runs as root in the same place, as ExecStartPre=+ does. */
  asRoot(words: readonly string[]): string[];
  remove(): void;
}

const checkout = fileURLToPath(new URL('../..', import.meta.url));

export async function makeConfinement(): Promise<Confinement> {
  const folder = mkdtempSync(join(tmpdir(), 'lsr-confined-'));
  const bpffs = mountBpffs();
  const [program, node] = [join(folder, 'program'), join(folder, 'node')];
  mkdirSync(program);
  writeFileSync(node, '');
  await execa('chmod', ['0755', folder]);
  await execa('chmod', ['0700', bpffs.folder]);
  const mounts = [
    [bpffs.folder, '/sys/fs/bpf'],
    [checkout, program],
    [process.execPath, node],
  ].map(([from, to]) => `mount --bind '${from}' '${to}'`);
  const script = [...mounts, 'exec "$@"'].join('\n');
  const asRoot = (words: readonly string[]): string[] => [
    ...['unshare', '--mount', 'sh', '-ec', script, 'sh'],
    ...words,
  ];
  for (const line of readUnit('ExecStartPre')) await prepare(asRoot, line);
  return {
    locate: (path) => join(program, path),
    asRoot,
    confine: (capabilities, words) => asRoot([...drop(capabilities), node, ...words]),
    remove() {
      bpffs.remove();
      rmSync(folder, { recursive: true });
    },
  };
}

/** A line of the unit, for the account that stands in for the service's. */
async function prepare(asRoot: Confinement['asRoot'], line: string): Promise<void> {
  if (!line.startsWith('+')) throw new Error(`ExecStartPre=${line} does not run as root`);
  const words = line
    .slice(1)
    .replace('--owner=lsr-agent', `--owner=${nobody.uid}`)
    .replace('--group=lsr-agent', `--group=${nobody.gid}`)
    .split(' ');
  const [command = '', ...rest] = asRoot(words);
  await execa(command, rest);
}

/** What User=, NoNewPrivileges=, SecureBits=, AmbientCapabilities= and CapabilityBoundingSet= do. */
function drop(capabilities: readonly string[]): string[] {
  const set = ['-all', ...capabilities.map((name) => `+${name}`)].join(',');
  return [
    ...['setpriv', `--reuid=${nobody.uid}`, `--regid=${nobody.gid}`, '--clear-groups', '--no-new-privs'],
    ...['--securebits=+noroot,+noroot_locked'],
    ...[`--inh-caps=${set}`, `--ambient-caps=${set}`, `--bounding-set=${set}`],
  ];
}
