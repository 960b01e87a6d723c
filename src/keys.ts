import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { type Static, Type } from 'typebox';
import { readDocument } from './document.js';
import { LsrError } from './errors.js';
import { enums } from './layout.js';

const slots = enums.lsr_limits.LSR_KEYS;
const Slot = Type.Integer({ minimum: 0, maximum: slots - 1 });

/** The integrity keys of a mesh, the same on all its hosts; as a file of mode 0600 or over the API. */
export const KeysSchema = Type.Object(
  {
    sending: Slot,
    keys: Type.Array(
      Type.Object(
        {
          slot: Slot,
          key: Type.String({
            description: '128 bits as 32 hexadecimal digits; openssl rand -hex 16 makes one',
          }),
          until: Type.Optional(
            Type.String({ description: 'when it runs out, like 2027-01-31T12:00:00Z; default never' }),
          ),
        },
        { additionalProperties: false },
      ),
      { maxItems: slots },
    ),
  },
  { additionalProperties: false, title: 'keys' },
);

export interface Key {
  low: bigint;
  high: bigint;
  /** CLOCK_REALTIME, ns. */
  until: bigint;
}

export interface Keys {
  /** The slot that an edge signs with. */
  sending: number;
  /** By slot; null where it is empty. */
  slots: (Key | null)[];
}

/** Longer than any key lives, and small enough for a signed 64-bit number. */
const never = 2n ** 63n - 1n;

/** Reads keys from YAML or JSON. What is wrong is told by its place and never by its text: it may be a key. */
export function readKeys(text: string, from: string): Keys {
  const { value, problems, locate } = readDocument(text, from, KeysSchema);
  const refuse = ({ line, column }: { line: number; column: number }, message: string): never => {
    throw new LsrError('KEYS_INVALID', `${from}:${line}:${column}: ${message}`);
  };
  const [first] = problems;
  if (!value) {
    return refuse(
      first ?? { line: 1, column: 1 },
      'keys are written as { sending: SLOT, keys: [{ slot: 0 to 3, key: 32 hexadecimal digits, until: TIME }] }',
    );
  }
  const keys: Keys = { sending: value.sending, slots: Array.from({ length: slots }, () => null) };
  value.keys.forEach((entry, index) => {
    const at = (name: string) => locate(`/keys/${index}/${name}`);
    if (keys.slots[entry.slot]) refuse(at('slot'), `slot ${entry.slot} has a key already`);
    if (!/^[0-9a-f]{32}$/i.test(entry.key)) refuse(at('key'), 'a key is 32 hexadecimal digits');
    if (/^0+$/.test(entry.key)) refuse(at('key'), 'a key of zeros is none');
    const until = entry.until === undefined ? null : Date.parse(entry.until);
    if (until !== null && !(until > 0)) refuse(at('until'), 'write a time like 2027-01-31T12:00:00Z');
    const bytes = Buffer.from(entry.key, 'hex');
    keys.slots[entry.slot] = {
      low: bytes.readBigUInt64LE(0),
      high: bytes.readBigUInt64LE(8),
      until: until === null ? never : BigInt(until) * 1_000_000n,
    };
  });
  if (!keys.slots[keys.sending])
    refuse(locate('/sending'), `slot ${keys.sending} is to be sent with, and is empty`);
  return keys;
}

/** Reads a file that nobody else may read. */
export function loadKeys(file: string): Keys {
  let text: string;
  try {
    const { mode, uid } = statSync(file);
    const own = process.geteuid?.();
    if ((mode & 0o077) !== 0)
      throw new Error(`its mode is 0${(mode & 0o777).toString(8)}; others must not read keys: chmod 600`);
    if (uid !== 0 && uid !== own) throw new Error(`it belongs to user ${uid}, and this agent runs as ${own}`);
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new LsrError('KEYS_INVALID', `the keys in ${file} are not taken: ${(error as Error).message}`);
  }
  return readKeys(text, file);
}

/** Tells two keys apart without telling either: the first 4 bytes of SHA-256. */
export function fingerprint({ low, high }: Pick<Key, 'low' | 'high'>): string {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64LE(low, 0);
  bytes.writeBigUInt64LE(high, 8);
  return createHash('sha256').update('lsr-agent key').update(bytes).digest('hex').slice(0, 8);
}

export const KeysViewSchema = Type.Object(
  {
    sending: Type.Union([Slot, Type.Null()], { description: 'null: nothing can be signed' }),
    slots: Type.Array(
      Type.Object(
        {
          slot: Slot,
          state: Type.Unsafe<'empty' | 'valid' | 'expired'>({
            type: 'string',
            enum: ['empty', 'valid', 'expired'],
          }),
          until: Type.Union([Type.String({ format: 'date-time' }), Type.Null()], {
            description: 'null: never, or empty',
          }),
          fingerprint: Type.Union([Type.String(), Type.Null()], {
            description: 'the same on two hosts with the same key; the key cannot be had from it',
          }),
        },
        { additionalProperties: false },
      ),
    ),
  },
  { additionalProperties: false },
);
export type KeysView = Static<typeof KeysViewSchema>;

/** Without the keys themselves. */
export function describeKeys(keys: Omit<Keys, 'sending'> & { sending: number | null }): KeysView {
  const now = BigInt(Date.now()) * 1_000_000n;
  return {
    sending: keys.sending,
    slots: keys.slots.map((key, slot) => ({
      slot,
      state: key === null ? 'empty' : key.until > now ? 'valid' : 'expired',
      until:
        key === null || key.until === never ? null : new Date(Number(key.until / 1_000_000n)).toISOString(),
      fingerprint: key && fingerprint(key),
    })),
  };
}
