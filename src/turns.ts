import { encodeIndex } from './codec.js';
import type { BpfMap } from './native.js';

/** Two tables of a kind that take turns: the programs write one, while the other is read and emptied. */
export class Turns {
  readonly #recording: BpfMap;
  readonly #key: Buffer;
  readonly #tables: readonly [BpfMap, BpfMap];

  /** `kind`: enum lsr_recording. */
  constructor(recording: BpfMap, kind: number, tables: readonly [BpfMap, BpfMap]) {
    this.#recording = recording;
    this.#key = encodeIndex(kind);
    this.#tables = tables;
  }

  get tables(): readonly BpfMap[] {
    return this.#tables;
  }

  /** The one that no program writes. */
  get resting(): BpfMap {
    return this.#tables[0] === this.#active ? this.#tables[1] : this.#tables[0];
  }

  /** Whether there is anything to swap for. */
  get hasNews(): boolean {
    return this.#active.some(1).count > 0;
  }

  /** Returns when no program writes the table that was written before: the kernel waits for them. */
  swap(): void {
    this.#recording.putMap(this.#key, this.resting);
  }

  get #active(): BpfMap {
    const id = this.#recording.get(this.#key)?.readUInt32LE();
    return this.#tables[1].info.id === id ? this.#tables[1] : this.#tables[0];
  }
}
