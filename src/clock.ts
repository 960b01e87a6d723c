import { readFileSync } from 'node:fs';

/** One moment on both clocks: the kernel side stamps with CLOCK_BOOTTIME, people read wall time. */
export interface Clock {
  bootNs: bigint;
  wallMs: number;
}

/** /proc/uptime counts CLOCK_BOOTTIME, to 10 ms (fs/proc/uptime.c). */
export function readClock(): Clock {
  const [seconds = '0'] = readFileSync('/proc/uptime', 'latin1').split(' ');
  return { bootNs: BigInt(Math.round(Number(seconds) * 1000)) * 1_000_000n, wallMs: Date.now() };
}

export function toWallTime(clock: Clock, ns: bigint): string {
  return new Date(clock.wallMs - Number((clock.bootNs - ns) / 1_000_000n)).toISOString();
}

/** Names this boot of the machine: another one after each reboot. */
export const readBoot = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();

/** So much difference is no drift, and none of /proc/uptime's 10 ms. */
const stepMs = 1000;

/** Tells when somebody has set the clock. */
export class ClockWatch {
  #last = readClock();

  /** By how many ms it was set since the last call; negative where back, 0 where it was not. */
  follow(): number {
    const now = readClock();
    const passed = Number((now.bootNs - this.#last.bootNs) / 1_000_000n);
    const by = now.wallMs - this.#last.wallMs - passed;
    this.#last = now;
    return Math.abs(by) < stepMs ? 0 : by;
  }
}
