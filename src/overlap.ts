import { containsAddress, type Prefix } from './address.js';

interface Placed {
  prefix: Prefix;
}

/**
 * Each item with those before it whose prefix overlaps its own. Prefixes nest or are apart, so in the order of addresses, wide
 * before narrow, the ones that overlap form a stack.
 */
export function* findOverlaps<T extends Placed>(
  items: readonly T[],
): Generator<{ item: T; others: readonly T[] }> {
  const sorted = [...items].sort(
    (a, b) => a.prefix.address - b.prefix.address || a.prefix.length - b.prefix.length,
  );
  const open: T[] = [];
  for (const item of sorted) {
    for (let top = open.at(-1); top && !containsAddress(top.prefix, item.prefix.address); top = open.at(-1))
      open.pop();
    if (open.length > 0) yield { item, others: open };
    open.push(item);
  }
}
