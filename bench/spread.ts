export interface Spread {
  median: number;
  min: number;
  max: number;
}

/** To three decimals. */
export function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (index: number): number => round(sorted[index] ?? Number.NaN);
  const middle = (sorted.length - 1) / 2;
  const median = ((sorted[Math.floor(middle)] ?? 0) + (sorted[Math.ceil(middle)] ?? 0)) / 2;
  return { median: round(median), min: at(0), max: at(sorted.length - 1) };
}

const round = (value: number): number => Math.round(value * 1000) / 1000;
