import { type DestinationStream, type Logger, pino } from 'pino';
import pretty from 'pino-pretty';
import type { LogLevel } from './log-levels.js';

export type { Logger } from 'pino';

/** The daemon's log: JSON lines on stderr, readable lines when stderr is a terminal. Synchronous, so the last line of a crash is kept. */
export function createLogger(level: LogLevel = 'info'): Logger {
  const destination: DestinationStream = process.stderr.isTTY
    ? pretty({ destination: 2, sync: true, ignore: 'pid,hostname' })
    : pino.destination({ dest: 2, sync: true });
  return pino({ level, timestamp: pino.stdTimeFunctions.isoTime }, destination);
}

/** One child a component; its lines carry `component`. */
export function componentLogger(logger: Logger, component: string): Logger {
  return logger.child({ component });
}
