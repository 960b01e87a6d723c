import { existsSync, readdirSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { Link } from './interfaces.js';
import { type BpfLink, type BpfProgram, loadNative } from './native.js';

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
  try {
    fresh.pin(pin);
  } finally {
    fresh.close();
  }
  return 'tcx';
}

/** How our programs hang on an interface, as the kernel has it; null where one of the two does not. */
export function readAttached(folder: string, link: Link): AttachedAs | null {
  const [ingress = null, egress = null] = directions.map((direction) => readPlace(folder, link, direction));
  return ingress === egress ? ingress : null;
}

/** Takes the programs off all interfaces that are not in `wanted`, and returns the pins that went. */
export function detachStale(folder: string, wanted: ReadonlySet<string>): string[] {
  if (!existsSync(folder)) return [];
  const pins = new Set([...wanted].flatMap((name) => directions.map((side) => pinName(name, side))));
  const stale = readdirSync(folder).filter((pin) => !pins.has(pin));
  for (const pin of stale) useLink(join(folder, pin), removeLink);
  return stale.map((pin) => join(folder, pin));
}

/** Takes the clsact filters off an interface; pinned links go with their pins. */
export function detachPort(link: Link): void {
  const native = loadNative();
  for (const direction of directions) {
    if (native.queryTcx(link.index, direction) === null) native.detachFilter(link.index, direction, filter);
  }
}

/** bpffs refuses dots, which names of VLANs have (kernel/bpf/inode.c, bpf_lookup). */
const pinName = (name: string, direction: Direction): string =>
  `${name.replaceAll('%', '%25').replaceAll('.', '%2E')}@${direction}`;

/** False, with the pin gone, where the link belongs to an interface that is gone or was made anew. */
function updateLink(pin: string, program: BpfProgram, link: Link): boolean {
  return useLink(pin, (old) => {
    const holds = old.info.ifindex === link.index;
    if (holds) old.update(program);
    else removeLink(old, pin);
    return holds;
  });
}

/** A link whose last pin goes is detached some time later; this one is off when we return. */
function removeLink(link: BpfLink, pin: string): void {
  if (link.info.ifindex !== 0) link.detach();
  unlinkSync(pin);
}

/** Null also where the interface is gone meanwhile: then nothing hangs there. */
function readPlace(folder: string, link: Link, direction: Direction): AttachedAs | null {
  const native = loadNative();
  const pin = join(folder, pinName(link.name, direction));
  try {
    if (native.queryTcx(link.index, direction) === null) {
      return native.queryFilter(link.index, direction, filter) === null ? null : 'clsact';
    }
    return existsSync(pin) && useLink(pin, ({ info }) => info.ifindex) === link.index ? 'tcx' : null;
  } catch {
    return null;
  }
}

function useLink<Result>(pin: string, use: (link: BpfLink, pin: string) => Result): Result {
  const link = loadNative().openPinnedLink(pin);
  try {
    return use(link, pin);
  } finally {
    link.close();
  }
}
