import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Mounts a bpffs of its own; what is pinned there goes with `remove`. */
export function mountBpffs(): { folder: string; remove(): void } {
  const folder = mkdtempSync(join(tmpdir(), 'lsr-bpffs-'));
  execFileSync('mount', ['-t', 'bpf', 'bpf', folder]);
  return {
    folder,
    remove() {
      execFileSync('umount', ['--lazy', folder]);
      rmdirSync(folder);
    },
  };
}
