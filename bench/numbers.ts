import { InvalidArgumentError } from 'commander';

/** For commander: a number from 1 to 9999. */
export function parseCount(text: string): number {
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new InvalidArgumentError('It must be a number from 1 to 9999.');
  return Number(text);
}
