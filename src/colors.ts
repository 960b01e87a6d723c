import picocolors from 'picocolors';

/** For a person at a terminal. A CI job's log is none, whatever picocolors thinks of it. */
export const colors = picocolors.createColors(process.stdout.isTTY === true && picocolors.isColorSupported);
