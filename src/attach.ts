import { existsSync, readdirSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { Link } from './interfaces.js';
import { type BpfProgram, loadNative } from './native.js';

export const directions = ['ingress', 'egress'] as const;
export type Direction = (typeof directions)[number];
export type AttachedAs = 'tcx' | 'clsact';

/** With an explicit handle and priority a second `add` replaces; without, the packet is processed twice. */
const filter = { handle: 1, priority: 0x15c } as const;

/**
 * Puts a program on an interface, in place of our older one and without a gap. A tcx link is pinned,
 * so it outlives the daemon; where the kernel has no tcx (before 6.6) a clsact filter does so anyway.
 */
export function attachPort(
  folder: string,
  program: BpfProgram,
  link: Link,
  direction: Direction,
): AttachedAs {
  const native = loadNative();
  if (native.queryTcx(link.index, direction) === null) {
    native.attachFilter(program, link.index, direction, filter);
    return 'clsact';
  }
  const pin = join(folder, pinName(link.name, direction));
  if (existsSync(pin) && updateLink(pin, program, link)) return 'tcx';
  const fresh = native.attachTcx(program, link.index, direction);
  fresh.pin(pin);
  fresh.close();
  return 'tcx';
}

/** Takes the programs off all interfaces that are not in `wanted`, and returns the pins that went. */
export function detachStale(folder: string, wanted: ReadonlySet<string>): string[] {
  if (!existsSync(folder)) return [];
  const stale = readdirSync(folder).filter((pin) => !wanted.has(interfaceOf(pin)));
  for (const pin of stale) detachLink(join(folder, pin));
  return stale.map((pin) => join(folder, pin));
}

/** Takes the clsact filters off an interface; pinned links go with their pins. */
export function detachPort(link: Link): void {
  const native = loadNative();
  for (const direction of directions) {
    if (native.queryTcx(link.index, direction) === null) native.detachFilter(link.index, direction, filter);
  }
}

/** A link whose last pin goes is detached some time later; this one is off when we return. */
function detachLink(pin: string): void {
  const link = loadNative().openPinnedLink(pin);
  if (link.info.ifindex !== 0) link.detach();
  link.close();
  unlinkSync(pin);
}

const pinName = (name: string, direction: Direction): string => `${name}@${direction}`;
const interfaceOf = (pin: string): string => pin.slice(0, pin.lastIndexOf('@'));

/** False, with the pin gone, where the link belongs to an interface that is gone or was made anew. */
function updateLink(pin: string, program: BpfProgram, link: Link): boolean {
  const old = loadNative().openPinnedLink(pin);
  try {
    if (old.info.ifindex !== link.index) {
      unlinkSync(pin);
      return false;
    }
    old.update(program);
    return true;
  } finally {
    old.close();
  }
}
