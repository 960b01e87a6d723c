import { endianness } from 'node:os';

const little = endianness() === 'LE';
const HEAD_BYTES = 4;

/** Packets, one behind the other, as the C harness reads them. */
export class PacketBatch {
  #buffer: Buffer;
  #view: DataView;
  #starts: number[] = [];
  #end = 0;

  constructor(capacity = 1 << 20) {
    this.#buffer = Buffer.alloc(capacity);
    this.#view = new DataView(this.#buffer.buffer, this.#buffer.byteOffset, capacity);
  }

  get count(): number {
    return this.#starts.length;
  }

  /** `segmented`: to be read as a GSO packet. */
  add(packet: Uint8Array, segmented = false): void {
    const start = this.#end + HEAD_BYTES;
    if (start + packet.length > this.#buffer.length) this.#grow(start + packet.length);
    this.#view.setUint16(this.#end, packet.length, little);
    this.#view.setUint16(this.#end + 2, Number(segmented), little);
    this.#buffer.set(packet, start);
    this.#starts.push(start);
    this.#end = start + packet.length;
  }

  packet(index: number): Uint8Array {
    const start = this.#starts[index] ?? 0;
    return this.#buffer.subarray(start, start + this.#view.getUint16(start - HEAD_BYTES, little));
  }

  isSegmented(index: number): boolean {
    return this.#view.getUint16((this.#starts[index] ?? 0) - 2, little) === 1;
  }

  bytes(): Uint8Array {
    return this.#buffer.subarray(0, this.#end);
  }

  clear(): void {
    this.#starts = [];
    this.#end = 0;
  }

  #grow(least: number): void {
    const buffer = Buffer.alloc(Math.max(least, 2 * this.#buffer.length));
    buffer.set(this.bytes());
    this.#buffer = buffer;
    this.#view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
  }
}
