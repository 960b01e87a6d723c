import type { DropReason, NoteReason, OutcomeReason } from '../../src/reasons.js';

/** Those that only tests/bpf/functions.test.ts meets, and replicas.test.ts. */
export const functionReasons: readonly (DropReason | NoteReason | OutcomeReason)[] = [
  'copied',
  'copy_failed',
  'to_stack',
  'to_device',
  'tapped',
  'segment',
  'unavailable',
  'probed',
  'unwell',
  'no_function',
  'wrong_function',
  'tap_input',
];
