import { randomInt } from 'node:crypto';
import { decode, encode, type Struct } from './codec.js';
import { enums } from './layout.js';

const { LSR_PROBE_MAGIC } = enums.lsr_probe_magic;
const size = encode('lsr_probe', {}).length;

export type ProbeFields = Omit<Struct<'lsr_probe'>, 'magic'>;

/** By what an agent knows its own probes again. */
export const makeNonce = (): number[] => [randomInt(2 ** 32), randomInt(2 ** 32)];

/** The payload of a probe; without `turn` it goes to the end of its path. */
export const encodeProbe = (fields: Partial<ProbeFields>): Buffer =>
  encode('lsr_probe', { magic: LSR_PROBE_MAGIC, ...fields });

/** What came back; null where it is no probe with this nonce. */
export function decodeProbe(message: Buffer, nonce: readonly number[]): ProbeFields | null {
  if (message.length < size) return null;
  const { magic, ...fields } = decode('lsr_probe', message);
  return magic === LSR_PROBE_MAGIC && String(fields.nonce) === String(nonce) ? fields : null;
}
