import { dataTypes, enterprise, type Field, fields, ports, type Value } from './ipfix-fields.js';
import type { PathRecord } from './record.js';

export interface Message {
  bytes: Buffer;
  /** Records of flows in it. */
  records: number;
}

export interface EncoderOptions {
  /** Of a message. */
  maxBytes: number;
  /** Templates are sent again after so many messages: over UDP they may be lost (RFC 7011 §8.4). */
  templateEvery: number;
  /** ms since 1970 */
  now: () => number;
}

/** IPFIX messages (RFC 7011) about path records. No message holds templates and flows both. */
export async function* encodeMessages(
  records: AsyncIterable<PathRecord>,
  { maxBytes, templateEvery, now }: EncoderOptions,
): AsyncGenerator<Message> {
  let sequence = 0;
  let messages = 0;
  const finish = (entries: readonly Entry[]): Message => {
    const bytes = formatMessage(entries, sequence, now());
    const counted = entries.filter(({ set }) => set >= firstTemplate);
    sequence = (sequence + counted.length) >>> 0;
    return { bytes, records: counted.filter(({ set }) => set !== descriptions.template).length };
  };
  const templates = describeTemplates();
  yield finish([...templates, ...describeElements()]);
  let pending: Entry[] = [];
  let size = messageHeadBytes;
  for await (const record of records) {
    const entry = encodeRecord(record);
    const added = entry.bytes.length + (pending.at(-1)?.set === entry.set ? 0 : setHeadBytes);
    if (size + added > maxBytes) {
      yield finish(pending);
      messages += 1;
      if (messages % templateEvery === 0) yield finish(templates);
      pending = [];
      size = messageHeadBytes;
    }
    size += entry.bytes.length + (pending.at(-1)?.set === entry.set ? 0 : setHeadBytes);
    pending.push(entry);
  }
  if (pending.length > 0) yield finish(pending);
}

/** A record of a set: of templates, or of the template whose number is the set's. */
interface Entry {
  set: number;
  bytes: Buffer;
}

const firstTemplate = 256;
const withPorts = { template: 256, fields: [...fields, ...ports] };
const withoutPorts = { template: 257, fields };

/** What RFC 5610 §3.9 tells of each element of our own; the first two are the scope. */
const descriptions = {
  template: 258,
  fields: [
    { id: 346, type: 'unsigned32', read: () => enterprise },
    { id: 303, type: 'unsigned16', read: ({ id }: Field) => id },
    { id: 339, type: 'unsigned8', read: ({ type }: Field) => dataTypes[type].code },
    { id: 341, type: 'string', read: ({ name }: Field) => name },
    { id: 340, type: 'string', read: ({ own }: Field) => own ?? '' },
  ],
} as const;

function describeTemplates(): readonly Entry[] {
  return [
    { set: 2, bytes: Buffer.concat([withPorts, withoutPorts].map(encodeTemplate)) },
    { set: 3, bytes: encodeOptionsTemplate() },
  ];
}

/** Once is enough: collectors that do without miss nothing else, and some count these records as a loss of others. */
function describeElements(): readonly Entry[] {
  return fields
    .filter((field) => field.own !== undefined)
    .map((field) => ({
      set: descriptions.template,
      bytes: Buffer.concat(descriptions.fields.map(({ type, read }) => encodeValue(type, read(field)))),
    }));
}

function encodeTemplate({ template, fields }: { template: number; fields: readonly Field[] }): Buffer {
  return Buffer.concat([packWords(template, fields.length), ...fields.map(encodeSpecifier)]);
}

function encodeOptionsTemplate(): Buffer {
  const { template, fields } = descriptions;
  return Buffer.concat([packWords(template, fields.length, 2), ...fields.map(encodeSpecifier)]);
}

/** RFC 7011 §3.2. */
function encodeSpecifier({ id, type, own }: Pick<Field, 'id' | 'type' | 'own'>): Buffer {
  const { bytes } = dataTypes[type];
  return own === undefined
    ? packWords(id, bytes)
    : packWords(0x8000 | id, bytes, enterprise >>> 16, enterprise & 0xffff);
}

function encodeRecord(record: PathRecord): Entry {
  const { template, fields } = record.flow.sourcePort === null ? withoutPorts : withPorts;
  return {
    set: template,
    bytes: Buffer.concat(fields.map(({ type, read }) => encodeValue(type, read(record)))),
  };
}

function encodeValue(type: Field['type'], value: Value): Buffer {
  if (typeof value === 'string') return encodeText(value);
  const { bytes } = dataTypes[type];
  const whole = Buffer.alloc(8);
  whole.writeBigUInt64BE(BigInt(value));
  return whole.subarray(8 - bytes);
}

/** The longest text whose length is one octet (RFC 7011 §7); so a record always fits a UDP message. */
const longestText = 254;

/** Longer text is cut, and ends with "…" then. Names and addresses are ASCII. */
function encodeText(text: string): Buffer {
  const cut = text.length > longestText ? `${text.slice(0, longestText - 3)}…` : text;
  return Buffer.concat([Buffer.from([Buffer.byteLength(cut)]), Buffer.from(cut)]);
}

const messageHeadBytes = 16;
const setHeadBytes = 4;

/** RFC 7011 §3.1; neighbours of one set share its header. The observation domain is 0: the whole host. */
function formatMessage(entries: readonly Entry[], sequence: number, now: number): Buffer {
  const sets: Entry[] = [];
  for (const { set, bytes } of entries) {
    const last = sets.at(-1);
    if (last?.set === set) last.bytes = Buffer.concat([last.bytes, bytes]);
    else sets.push({ set, bytes });
  }
  const body = sets.flatMap(({ set, bytes }) => [packWords(set, bytes.length + setHeadBytes), bytes]);
  const length = body.reduce((sum, { length }) => sum + length, messageHeadBytes);
  const head = Buffer.alloc(messageHeadBytes);
  head.writeUInt16BE(10, 0);
  head.writeUInt16BE(length, 2);
  head.writeUInt32BE(Math.floor(now / 1000) >>> 0, 4);
  head.writeUInt32BE(sequence, 8);
  return Buffer.concat([head, ...body]);
}

function packWords(...words: number[]): Buffer {
  const bytes = Buffer.alloc(2 * words.length);
  for (const [index, word] of words.entries()) bytes.writeUInt16BE(word, 2 * index);
  return bytes;
}
