/** Every option there is, or few that stand for all. */
import { makeBase, optionTypes, repair } from './base.js';

export interface Reduction {
  types: readonly number[];
  /** Lengths to try where so many bytes are left. */
  lengths: (room: number) => readonly number[];
  pointers: readonly number[];
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** Everything. */
export const whole: Reduction = { types: range(256), lengths: () => range(256), pointers: range(256) };

/**
 * A few lengths stand for all that are longer than the room, and a few pointers for all beyond the longest
 * list; of the types, those with a meaning of their own, what is one bit away from them, and the extremes.
 */
export const reduced: Reduction = {
  types: [
    ...new Set([...optionTypes, ...optionTypes.flatMap((type) => [type ^ 1, type ^ 128]), 2, 158, 255]),
  ],
  lengths: (room) => [...range(room + 3), 127, 128, 131, 255],
  pointers: [...range(45), 127, 128, 132, 252, 255],
};

/** Those whose pointer is looked at. */
const pointed = [7, 131, 137];

/** How many packets there are of it. */
export function countOptions({ types, lengths, pointers }: Reduction): number {
  const lists = types.filter((type) => pointed.includes(type)).length;
  const headsOfLength = lists * pointers.length + types.length - lists;
  return makePlaces().reduce(
    (sum, { field, at }) => sum + lengths(field.length - at).length * headsOfLength,
    0,
  );
}

/**
 * One option of each type, length and pointer: behind any number of NOPs, behind a source route of each
 * length, and alone in a header of each length. Zeros follow. The pointer of a type
 * without is always 4. Yields one buffer again and again: copy what you keep.
 */
export function* exhaust(reduction: Reduction): Generator<Buffer> {
  const base = makeBase();
  for (const { field, at } of makePlaces()) {
    const packet = Buffer.concat([base, field, Buffer.alloc(8)]);
    packet[0] = 0x40 + 5 + field.length / 4;
    packet.writeUInt16BE(packet.length, 2);
    for (const type of reduction.types) {
      const pointers = pointed.includes(type) ? reduction.pointers : [4];
      for (const length of reduction.lengths(field.length - at)) {
        for (const pointer of pointers) {
          field.forEach((byte, i) => {
            packet[20 + i] = byte;
          });
          for (const [i, byte] of [type, length, pointer].entries()) {
            if (at + i < field.length) packet[20 + at + i] = byte;
          }
          yield repair(packet);
        }
      }
    }
  }
}

function makePlaces(): { field: Buffer; at: number }[] {
  const places = range(40).map((at) => ({ field: Buffer.alloc(40).fill(1, 0, at), at }));
  for (const words of range(10)) {
    places.push({ field: Buffer.alloc(4 * (words + 1)), at: 0 });
  }
  for (const entries of range(9)) {
    const length = 3 + 4 * (entries + 1);
    const field = Buffer.alloc(40);
    field.set([131, length, 4]);
    for (let i = 0; i <= entries; i++) field.set([10, 0, 0, 3 + i], 3 + 4 * i);
    places.push({ field, at: length });
    const least = Buffer.from(field.subarray(0, Math.min(40, length + 9)));
    places.push(
      { field: least, at: length },
      { field: Buffer.from(field.subarray(0, length + 1)), at: length },
    );
  }
  return places;
}
