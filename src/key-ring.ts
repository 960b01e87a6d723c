import { decode, encode, encodeIndex } from './codec.js';
import { describeKeys, type Key, type Keys, type KeysView } from './keys.js';
import { enums } from './layout.js';
import { type BpfMap, loadNative } from './native.js';

const slots = enums.lsr_limits.LSR_KEYS;
const second = 1_000_000_000n;

/** The keys in the kernel. They are pinned with the other tables, and outlive the daemon. */
export class KeyRing {
  readonly #maps: { keys: BpfMap; signing: BpfMap };

  constructor(maps: { keys: BpfMap; signing: BpfMap }) {
    this.#maps = maps;
    this.followClock();
  }

  /**
   * Puts keys in force without losing a packet, if every host has the new key before one signs with it:
   * keys that are new first, then the slot to sign with, then what is gone is erased.
   */
  write(wanted: Keys): void {
    wanted.slots.forEach((key, slot) => {
      if (key) this.#maps.keys.put(encodeIndex(slot), encode('lsr_key', key));
    });
    this.#sign(wanted.sending);
    wanted.slots.forEach((key, slot) => {
      if (!key) this.#maps.keys.put(encodeIndex(slot), encode('lsr_key', {}));
    });
  }

  /** Programs count TAI; how far that is from wall time changes with a leap second, and when NTP has set it. */
  followClock(): void {
    const { taiOffset, slot } = this.#read();
    if (taiOffset !== BigInt(loadNative().taiOffset()) * second) this.#sign(slot);
  }

  describe(): KeysView {
    const keys = Array.from({ length: slots }, (_, slot): Key | null => {
      const value = this.#maps.keys.get(encodeIndex(slot));
      const key = value ? decode('lsr_key', value) : null;
      return key && key.until > 0n ? key : null;
    });
    const { slot } = this.#read();
    return describeKeys({ slots: keys, sending: keys[slot] ? slot : null });
  }

  #read(): { taiOffset: bigint; slot: number } {
    const value = this.#maps.signing.get(encodeIndex(0));
    return value ? decode('lsr_signing', value) : { taiOffset: -1n, slot: 0 };
  }

  #sign(slot: number): void {
    const taiOffset = BigInt(loadNative().taiOffset()) * second;
    this.#maps.signing.put(encodeIndex(0), encode('lsr_signing', { taiOffset, slot }));
  }
}
