import { decode } from './codec.js';
import type { BpfMap } from './native.js';
import { reasons } from './reasons.js';

/** What became of packets on this host: so many took a path, for a chain, and had this outcome, or were dropped for it. */
export interface Traffic {
  /** 0 where none could be chosen. */
  path: number;
  /** 0 on hops in between, which know paths alone. */
  chain: number;
  /** Name of an outcome or a drop. */
  reason: string;
  packets: number;
  bytes: number;
}

/** All that was counted since the tables were made, summed over the CPUs. */
export function readTraffic(map: BpfMap): Traffic[] {
  const { keys, values, count } = map.entries();
  const { keySize } = map.info;
  const size = values.length / count;
  return Array.from({ length: count }, (_, i) => {
    const { path, chain, reason } = decode('lsr_traffic_key', keys, i * keySize);
    const sums = sumCpus(map, values.subarray(i * size, (i + 1) * size));
    return { path, chain, reason: reasons[reason]?.name ?? String(reason), ...sums };
  });
}

/** Entries of paths that no mesh has any more make room for others. */
export function forgetTraffic(map: BpfMap, isKnown: (path: number, chain: number) => boolean): void {
  const { keys, count } = map.entries();
  const { keySize } = map.info;
  for (let at = 0; at < count * keySize; at += keySize) {
    const { path, chain } = decode('lsr_traffic_key', keys, at);
    if (!isKnown(path, chain)) map.delete(keys.subarray(at, at + keySize));
  }
}

function sumCpus(map: BpfMap, values: Buffer): { packets: number; bytes: number } {
  const stride = Math.ceil(map.info.valueSize / 8) * 8;
  const sums = { packets: 0, bytes: 0 };
  for (let at = 0; at + stride <= values.length; at += stride) {
    const { packets, bytes } = decode('lsr_traffic', values, at);
    sums.packets += Number(packets);
    sums.bytes += Number(bytes);
  }
  return sums;
}
