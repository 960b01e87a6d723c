import type { Address } from './address.js';
import { enums } from './layout.js';

/** One end of a flow. */
export interface FlowEnd {
  address: Address;
  /** 0 for fragments, and for protocols without ports. */
  port: number;
}

const { LSR_SLOTS } = enums.lsr_limits;

/** The slot, from 0, that a flow falls into where its chain has several paths: the same for both directions. Mirrors bpf/flow.h. */
export function chooseSlot(one: FlowEnd, other: FlowEnd, protocol: number): number {
  const ends = [one, other].map(({ address, port }) => (BigInt(address) << 16n) | BigInt(port));
  const [low = 0n, high = 0n] = ends.sort((a, b) => (a < b ? -1 : 1));
  const hash = mix(mix(low | (BigInt(protocol) << 48n)) ^ high);
  return Number((hash * BigInt(LSR_SLOTS)) >> 64n);
}

/** The finalizer of MurmurHash3. */
function mix(value: bigint): bigint {
  const first = BigInt.asUintN(64, (value ^ (value >> 33n)) * 0xff51afd7ed558ccdn);
  const second = BigInt.asUintN(64, (first ^ (first >> 33n)) * 0xc4ceb9fe1a85ec53n);
  return second ^ (second >> 33n);
}
