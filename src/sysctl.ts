import { readFileSync } from 'node:fs';

/** A value under /proc/sys; null where there is none. */
export function readSysctl(path: string): string | null {
  try {
    return readFileSync(`/proc/sys/${path}`, 'utf8').trim();
  } catch {
    return null;
  }
}
