import type { Key, Keys } from './keys.js';
import { enums } from './layout.js';
import { hasPorts } from './match.js';
import type { RenderedPath } from './path.js';
import type { DropReason } from './reasons.js';
import { siphash } from './siphash.js';

const { LSR_EPOCH_NS, LSR_LAG_NS } = enums.lsr_limits;
const epochMs = LSR_EPOCH_NS / 1_000_000;
const lagMs = LSR_LAG_NS / 1_000_000;
/** How far back a tag is told to be old and not just wrong: LSR_EPOCHS_EXPLAINED in bpf/tag.h. */
const epochsExplained = 4;
const dontFragment = 0x4000;

/** `null`: right; `unchecked`: nobody can tell from what was captured. */
export type TagAnswer = DropReason | 'unchecked' | null;

/** verify_tag() of bpf/tag.h with the time of the capture: `packet` begins with its IPv4 header, as on the wire. */
export function makeTagCheck(
  keys: Keys,
): (packet: Buffer, path: RenderedPath, time: number | null) => TagAnswer {
  const slots = keys.slots.map(
    (key) => key && { bytes: toBytes(key), until: Number(key.until / 1_000_000n) },
  );
  return (packet, path, time) => {
    const key = slots[(packet[22] ?? 0) >> 6];
    if (!key) return 'key_unknown';
    if (time === null) return 'unchecked';
    if (time >= key.until) return 'key_expired';
    const covered = cover(packet, path);
    if (!covered) return 'unchecked';
    const tag = packet.subarray(24, 32);
    const isOf = (epoch: number): boolean => {
      covered.writeBigUInt64BE(BigInt(Math.max(epoch, 0)), 24);
      return siphash(key.bytes, covered).equals(tag);
    };
    const epoch = Math.floor(time / epochMs);
    const first = Math.floor((time - lagMs) / epochMs); // what an edge signs with at this time
    if (isOf(first) || isOf(2 * epoch - 1 - first)) return null;
    const others = [epoch + 1, ...Array.from({ length: epochsExplained }, (_, index) => epoch - 2 - index)];
    return others.some(isOf) ? 'tag_age' : 'tag_wrong';
  };
}

/** struct lsr_covered without its epoch; null where the ports that it covers were not captured. */
function cover(packet: Buffer, path: RenderedPath): Buffer | null {
  const header = ((packet[0] ?? 0) & 15) * 4;
  const routeEnd = 32 + (packet[33] ?? 0);
  const protocol = packet[9] ?? 0;
  const covered = Buffer.alloc(32);
  packet.copy(covered, 0, 20, 24);
  covered.writeUInt32BE(path.id, 4);
  packet.copy(covered, 8, 12, 16);
  packet.copy(covered, 12, routeEnd - 4, routeEnd);
  covered[20] = protocol;
  // Only what cannot be fragmented on the way is covered with its ports.
  if (path.binding !== 'ports' || packet.readUInt16BE(6) !== dontFragment || !hasPorts(protocol))
    return covered;
  if (packet.length < header + 4) return null;
  packet.copy(covered, 16, header, header + 4);
  return covered;
}

function toBytes({ low, high }: Key): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64LE(low, 0);
  bytes.writeBigUInt64LE(high, 8);
  return bytes;
}
