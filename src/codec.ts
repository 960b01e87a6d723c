import { endianness } from 'node:os';
import { structs } from './layout.js';

type Structs = typeof structs;
export type StructName = keyof Structs;

interface Field {
  readonly offset: number;
  readonly kind: string;
  readonly count?: number;
}

type Value<F> = F extends { kind: 'bytes' }
  ? Uint8Array
  : F extends { kind: 'text' }
    ? string
    : F extends { kind: infer N extends StructName }
      ? Struct<N>
      : F extends { kind: 'u64'; count: number }
        ? bigint[]
        : F extends { kind: 'u64' }
          ? bigint
          : F extends { count: number }
            ? number[]
            : number;

/** A struct of bpf/lsr.h. __be fields are host-order numbers here; 64-bit ones are bigint. */
export type Struct<N extends StructName> = {
  -readonly [K in keyof Structs[N]['fields']]: Value<Structs[N]['fields'][K]>;
};

/** The bytes of a struct; what is not given is zero. */
export function encode<N extends StructName>(name: N, values: Partial<Struct<N>>): Buffer {
  const buffer = Buffer.alloc(structs[name].size);
  writeStruct(buffer, 0, name, values as Record<string, unknown>);
  return buffer;
}

/** The struct that begins at `from`. */
export function decode<N extends StructName>(name: N, buffer: Buffer, from = 0): Struct<N> {
  const { size } = structs[name];
  if (buffer.length < from + size) {
    throw new RangeError(`${name} takes ${size} bytes, ${buffer.length - from} are there`);
  }
  return readStruct(buffer, from, name) as Struct<N>;
}

/** Where a field lies in its struct, bytes. */
export function offsetOf<N extends StructName>(name: N, field: keyof Structs[N]['fields'] & string): number {
  return (structs[name].fields as Record<string, Field>)[field]?.offset ?? 0;
}

/** Key of an `__u32` indexed map. */
export function encodeIndex(index: number): Buffer {
  const buffer = Buffer.alloc(4);
  scalars.u32.write(buffer, 0, index);
  return buffer;
}

export const decodeIndex = (buffer: Buffer, from = 0): number => Number(scalars.u32.read(buffer, from));

interface Scalar {
  readonly size: number;
  read(buffer: Buffer, at: number): number | bigint;
  write(buffer: Buffer, at: number, value: number | bigint): void;
}

const little = endianness() === 'LE';

const scalars = {
  u8: {
    size: 1,
    read: (buffer, at) => buffer.readUInt8(at),
    write: (buffer, at, value) => buffer.writeUInt8(Number(value), at),
  },
  u16: {
    size: 2,
    read: (buffer, at) => (little ? buffer.readUInt16LE(at) : buffer.readUInt16BE(at)),
    write: (buffer, at, value) =>
      little ? buffer.writeUInt16LE(Number(value), at) : buffer.writeUInt16BE(Number(value), at),
  },
  u32: {
    size: 4,
    read: (buffer, at) => (little ? buffer.readUInt32LE(at) : buffer.readUInt32BE(at)),
    write: (buffer, at, value) =>
      little ? buffer.writeUInt32LE(Number(value), at) : buffer.writeUInt32BE(Number(value), at),
  },
  u64: {
    size: 8,
    read: (buffer, at) => (little ? buffer.readBigUInt64LE(at) : buffer.readBigUInt64BE(at)),
    write: (buffer, at, value) =>
      little ? buffer.writeBigUInt64LE(BigInt(value), at) : buffer.writeBigUInt64BE(BigInt(value), at),
  },
  be16: {
    size: 2,
    read: (buffer, at) => buffer.readUInt16BE(at),
    write: (buffer, at, value) => buffer.writeUInt16BE(Number(value), at),
  },
  be32: {
    size: 4,
    read: (buffer, at) => buffer.readUInt32BE(at),
    write: (buffer, at, value) => buffer.writeUInt32BE(Number(value), at),
  },
} satisfies Record<string, Scalar>;

const fieldsOf = (name: StructName): [string, Field][] => Object.entries(structs[name].fields);
const isScalar = (kind: string): kind is keyof typeof scalars => kind in scalars;
const isStruct = (kind: string): kind is StructName => kind in structs;

function writeStruct(buffer: Buffer, from: number, name: StructName, values: Record<string, unknown>): void {
  for (const [key, field] of fieldsOf(name)) {
    const value = values[key];
    if (value !== undefined) writeField(buffer, from + field.offset, field, value);
  }
}

function writeField(buffer: Buffer, at: number, field: Field, value: unknown): void {
  if (isStruct(field.kind)) {
    writeStruct(buffer, at, field.kind, value as Record<string, unknown>);
  } else if (field.kind === 'bytes') {
    buffer.set((value as Uint8Array).subarray(0, field.count), at);
  } else if (field.kind === 'text') {
    buffer.write(value as string, at, (field.count ?? 1) - 1, 'latin1');
  } else if (isScalar(field.kind)) {
    const scalar = scalars[field.kind];
    const items = field.count === undefined ? [value] : (value as unknown[]);
    items.slice(0, field.count ?? 1).forEach((item, i) => {
      scalar.write(buffer, at + i * scalar.size, item as number | bigint);
    });
  }
}

function readStruct(buffer: Buffer, from: number, name: StructName): Record<string, unknown> {
  return Object.fromEntries(
    fieldsOf(name).map(([key, field]) => [key, readField(buffer, from + field.offset, field)]),
  );
}

function readField(buffer: Buffer, at: number, field: Field): unknown {
  if (isStruct(field.kind)) return readStruct(buffer, at, field.kind);
  const count = field.count ?? 1;
  if (field.kind === 'bytes') return Buffer.from(buffer.subarray(at, at + count));
  if (field.kind === 'text') {
    const text = buffer.subarray(at, at + count);
    const end = text.indexOf(0);
    return text.toString('latin1', 0, end < 0 ? count : end);
  }
  if (!isScalar(field.kind)) throw new TypeError(`a field of kind ${field.kind} cannot be read`);
  const scalar = scalars[field.kind];
  if (field.count === undefined) return scalar.read(buffer, at);
  return Array.from({ length: count }, (_, i) => scalar.read(buffer, at + i * scalar.size));
}
