import type { DropReason, NoteReason, OutcomeReason } from '../../src/reasons.js';

/** Those that only functions.test.ts, replicas.test.ts, probes.test.ts and traffic.test.ts of tests/bpf meet. */
export const functionReasons: readonly (DropReason | NoteReason | OutcomeReason)[] = [
  'copied',
  'copy_failed',
  'to_stack',
  'to_device',
  'tapped',
  'segment',
  'unavailable',
  'probed',
  'traffic_lost',
  'unwell',
  'no_function',
  'wrong_function',
  'tap_input',
];
