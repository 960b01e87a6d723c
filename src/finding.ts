import { NAME_LENGTH_MAX } from './limits.js';

/** One thing that is wrong in a value; its line is known once the text is (document.ts). */
export interface Finding {
  /** RFC 6901. */
  pointer: string;
  code: string;
  message: string;
  /** Whether the position is that of the key or of the value at the pointer; default the value. */
  part?: 'key' | 'value';
}

/** An RFC 6901 pointer. */
export function makePointer(...segments: (string | number)[]): string {
  return segments
    .map((segment) => `/${String(segment).replaceAll('~', '~0').replaceAll('/', '~1')}`)
    .join('');
}

export function splitPointer(pointer: string): string[] {
  return pointer
    .split('/')
    .slice(1)
    .map((segment) => segment.replaceAll('~1', '/').replaceAll('~0', '~'));
}

/** A value for a message, on one line and not longer than one. */
export function quote(value: unknown): string {
  if (typeof value === 'string' && value.length > 60) return JSON.stringify(`${value.slice(0, 57)}…`);
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 400 ? `${text.slice(0, 57)}…` : text;
}

/** `; did you mean "web"?`, or nothing. */
export function suggestNearest(word: string, names: readonly string[]): string {
  const nearest = findNearest(word, names);
  return nearest === null ? '' : `; did you mean ${quote(nearest)}?`;
}

/** As suggestNearest, or else the names there are. */
export function suggest(word: string, names: readonly string[]): string {
  const nearest = suggestNearest(word, names);
  if (nearest !== '') return nearest;
  if (names.length === 0) return '; there are none';
  const shown = names.slice(0, 8).join(', ');
  return `; there ${names.length === 1 ? 'is' : 'are'} ${shown}${names.length > 8 ? ', …' : ''}`;
}

/** The name that is one letter or at most a third of the letters away; null when none is. */
function findNearest(word: string, names: readonly string[]): string | null {
  let nearest: string | null = null;
  let best = word.length < 2 ? 0 : Math.max(1, Math.floor(Math.min(word.length, NAME_LENGTH_MAX) / 3)) + 1;
  for (const name of names) {
    if (Math.abs(name.length - word.length) >= best) continue;
    const distance = countEdits(word.toLowerCase(), name.toLowerCase());
    if (distance < best) [nearest, best] = [name, distance];
  }
  return nearest;
}

/** Insertions, removals, replacements and swaps of neighbours (optimal string alignment). */
function countEdits(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      const edits = [(row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (same ? 0 : 1)];
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        edits.push((before[j - 2] ?? 0) + 1);
      next.push(Math.min(...edits));
    }
    [before, row] = [row, next];
  }
  return row[b.length] ?? 0;
}
