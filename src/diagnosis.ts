/** What `doctor` says of one thing that it has looked at. */
export interface Finding {
  check: string;
  status: 'ok' | 'warning' | 'error';
  found: string;
  /** What to do; empty where nothing is to be done. */
  advice: string;
}

export const ok = (check: string, found: string): Finding => ({ check, status: 'ok', found, advice: '' });

export const warning = (check: string, found: string, advice: string): Finding => ({
  check,
  status: 'warning',
  found,
  advice,
});

export const error = (check: string, found: string, advice: string): Finding => ({
  check,
  status: 'error',
  found,
  advice,
});
