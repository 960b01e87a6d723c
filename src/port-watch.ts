import { setTimeout as sleep } from 'node:timers/promises';
import { loadNative } from './native.js';

/** A change seldom comes alone: an interface is made, moved, given an address, set up. */
const burstMs = 20;
const retryMs = 1000;

/**
 * Calls `refresh` now, and again when links or addresses of this host have changed: once for a burst,
 * and never twice at a time. Where it returns false it is called again after a while all the same.
 */
export function watchPorts(refresh: () => Promise<boolean>): { close(): Promise<void> } {
  let running: Promise<unknown> = Promise.resolve();
  let retry: NodeJS.Timeout | undefined;
  let isDue = false;
  let isOpen = true;

  const run = async (): Promise<void> => {
    isDue = false;
    if (!isOpen || (await refresh()) || !isOpen) return;
    clearTimeout(retry);
    retry = setTimeout(plan, retryMs).unref();
  };
  const plan = (): void => {
    if (isDue) return;
    isDue = true;
    running = Promise.all([running, sleep(burstMs)]).then(run);
  };
  const watch = loadNative().watchLinks(plan);
  plan();
  return {
    async close() {
      isOpen = false;
      watch.close();
      clearTimeout(retry);
      await running;
    },
  };
}
