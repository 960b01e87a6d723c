import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { LsrError } from './errors.js';

type Direction = 'ingress' | 'egress';

/** What the addon throws when the kernel or libbpf refuses; wrong arguments are a TypeError instead. */
export interface NativeError extends Error {
  /** Positive, as in `os.constants.errno`. */
  errno: number;
  /** Its name, such as 'EPERM'. */
  code: string;
  /** The addon's function that failed. */
  operation: string;
  /** All that libbpf warned about meanwhile. */
  details?: string;
  /** Only of `load()`: the verifier's log, empty where the verifier was never reached. */
  log?: string;
}

export interface MapInfo {
  id: number;
  /** The first 15 characters: the kernel keeps no more. */
  name: string;
  /** `enum bpf_map_type`. */
  type: number;
  keySize: number;
  /** Of one value; a per-CPU map hands out one for each possible CPU. */
  valueSize: number;
  maxEntries: number;
  flags: number;
}

/**
 * A map in the kernel, by its own descriptor. The value of a per-CPU map is that of all possible
 * CPUs in a row, each rounded up to 8 bytes. Bytes of a wrong length are a TypeError.
 */
export interface BpfMap {
  readonly info: MapInfo;
  get(key: Uint8Array): Buffer | null;
  put(key: Uint8Array, value: Uint8Array, mode?: 'any' | 'noexist' | 'exist'): void;
  /** False where the key was not there. */
  delete(key: Uint8Array): boolean;
  /** Reads and removes in one step; not every type of map can (an LPM trie cannot). */
  take(key: Uint8Array): Buffer | null;
  /** All entries, no key twice. What is written meanwhile may be missing. `batch`: entries a system call. */
  entries(batch?: number): { keys: Buffer; values: Buffer; count: number };
  /** Up to `count` entries of a hash map, whichever come first; more where one bucket holds more. */
  some(count: number): { keys: Buffer; values: Buffer; count: number };
  /** Puts `map` into this array of maps. Returns when no program can hold the map that was there before. */
  putMap(key: Uint8Array, map: BpfMap): void;
  /** Writes keys and values that stand one behind the other, in their order, and ends at the first refusal. */
  putBatch(keys: Uint8Array, values: Uint8Array): void;
  /** Returns how many there were. */
  deleteBatch(keys: Uint8Array): number;
  /** Keeps it alive under a path on bpffs. */
  pin(path: string): void;
  close(): void;
}

export interface ProgramInfo {
  id: number;
  /** The first 15 characters: the kernel keeps no more. */
  name: string;
  /** `enum bpf_prog_type`. */
  type: number;
  /** Hash of the instructions, in hex. */
  tag: string;
  translatedBytes: number;
  jitedBytes: number;
  /** Instructions that the verifier walked through. */
  verifiedInstructions: number;
}

export interface TestRun {
  /** The packet, from its Ethernet header on. */
  data: Uint8Array;
  /** The program's context, for tc a `struct __sk_buff`. */
  context?: Uint8Array;
  repeat?: number;
  /** Room for the packet afterwards; by default 512 bytes more than `data`. */
  outputSize?: number;
}

/** A program in the kernel, by its own descriptor. */
export interface BpfProgram {
  readonly info: ProgramInfo;
  /** `durationNs` is the average of the repetitions; `context` is null where none was given. */
  testRun(run: TestRun): { returnValue: number; data: Buffer; context: Buffer | null; durationNs: number };
  pin(path: string): void;
  close(): void;
}

/** A program's place on an interface. Unless pinned, closing the last descriptor takes it off. */
export interface BpfLink {
  /** `ifindex` is 0 where the interface is gone; `type` is `enum bpf_link_type`. */
  readonly info: { id: number; programId: number; ifindex: number; type: number };
  /** Puts another program in this place, without a gap. */
  update(program: BpfProgram): void;
  pin(path: string): void;
  /** Takes the program off also where pins remain. */
  detach(): void;
  close(): void;
}

/** The stream of records of a ring buffer; it keeps the process alive until `close` or `unref`. */
export interface RingBuffer {
  /** Hands over at once what is there, and returns how many; an exception of `onRecord` comes out here. */
  consume(): number;
  close(): void;
  ref(): void;
  unref(): void;
}

/** Hears of changed links and IPv4 addresses; it keeps the process alive until `close` or `unref`. */
export interface LinkWatch {
  close(): void;
  ref(): void;
  unref(): void;
}

/** An object file: opened, configured, loaded once. */
export interface BpfObject {
  maps(): { name: string; type: number; keySize: number; valueSize: number; maxEntries: number }[];
  setMaxEntries(map: string, maxEntries: number): void;
  /** Takes an existing map instead of making one; refused where type, sizes, capacity or flags differ. */
  reuseMap(name: string, map: BpfMap): void;
  reusePinned(name: string, path: string): void;
  /** Leaves a program out of `load`. */
  disableProgram(name: string): void;
  load(): void;
  /** As `load`, but returns the verifier's statistics by program, and no log where it refuses one. */
  loadMeasured(): Record<string, string>;
  map(name: string): BpfMap;
  program(name: string): BpfProgram;
  /** Maps and programs that were handed out stay open. */
  close(): void;
}

/** A type as BTF has it; which of the optional fields are there follows from `kind`. */
export interface BtfType {
  /** As in BTF_KIND_…: 'int', 'ptr', 'array', 'struct', 'union', 'enum', 'typedef', 'enum64' and others. */
  kind: string;
  name: string;
  /** In bytes, of a typedef that of its type; 0 where there is none. */
  size: number;
  /** `bitSize` is 0 for all but bit fields. */
  members?: { name: string; type: number; bitOffset: number; bitSize: number }[];
  /** bigint for 'enum64'. */
  values?: { name: string; value: number | bigint }[];
  elementType?: number;
  length?: number;
  /** The type that this one refers to. */
  type?: number;
  signed?: boolean;
}

interface Filter {
  handle: number;
  priority: number;
}

/** The addon: libbpf as JavaScript sees it. Handles are owned; `close` may be called twice, anything else after it throws. */
export interface Native {
  openObject(file: string): BpfObject;
  openPinnedMap(path: string): BpfMap;
  openPinnedProgram(path: string): BpfProgram;
  openPinnedLink(path: string): BpfLink;

  attachTcx(program: BpfProgram, ifindex: number, direction: Direction): BpfLink;
  /** The programs there in their order; null where the kernel has no tcx (before Linux 6.6). */
  queryTcx(ifindex: number, direction: Direction): { programIds: number[] } | null;

  /** On the clsact qdisc, which is made where it is missing; replaces what has this handle and priority. */
  attachFilter(
    program: BpfProgram,
    ifindex: number,
    direction: Direction,
    filter: Filter,
  ): { qdiscCreated: boolean };
  queryFilter(ifindex: number, direction: Direction, filter: Filter): { programId: number } | null;
  /** False where there was none. The qdisc stays: others may use it. */
  detachFilter(ifindex: number, direction: Direction, filter: Filter): boolean;

  /** Records come from the event loop; what `onRecord` throws there is an uncaught exception. */
  openRingBuffer(map: BpfMap, onRecord: (record: Buffer) => void): RingBuffer;

  /**
   * Calls back from the event loop, once for all that has changed until then, when a link or an IPv4
   * address of this network namespace came, went or changed. What `onChange` throws is an uncaught exception.
   */
  watchLinks(onChange: () => void): LinkWatch;

  possibleCpus(): number;
  /** CLOCK_TAI - CLOCK_REALTIME, whole seconds. */
  taiOffset(): number;
  /** PR_SET_DUMPABLE 0: what this process holds gets into no core dump, nor to another process of its user. */
  forbidCoreDumps(): void;
  /** The type table of an object file by type id; 0 is void. */
  btfTypes(file: string): BtfType[];
  /** Whether the kernel has it: `enum bpf_prog_type`, `enum bpf_map_type`, `enum bpf_func_id`. */
  probeProgramType(type: number): boolean;
  probeMapType(type: number): boolean;
  probeHelper(programType: number, helper: number): boolean;
}

const addonFile = fileURLToPath(new URL('../build/Release/addon.node', import.meta.url));

/** Loads the addon; only the first call does any work. */
export function loadNative(): Native {
  if (!existsSync(addonFile)) {
    throw new LsrError('LAYOUT_STALE', `${addonFile} is missing: run \`npm run setup\``);
  }
  try {
    return createRequire(import.meta.url)(addonFile) as Native;
  } catch (error) {
    throw new LsrError(
      'LAYOUT_STALE',
      `${addonFile} cannot be loaded: ${(error as Error).message}. ` +
        'It needs the libbpf and the processor it was built for: run `npm run setup`',
    );
  }
}
