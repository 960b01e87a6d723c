/** Capture files by the tools that everybody has, and what tshark reads in them. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Capture } from '../../src/capture.js';
import { makeCursor, readChunks } from '../../src/capture-bytes.js';
import { openCapture } from '../../src/capture-file.js';

export interface Folder {
  path(name: string): string;
  remove(): void;
}

export function makeFolder(): Folder {
  const folder = mkdtempSync(join(tmpdir(), 'lsr-audit-'));
  return {
    path: (name) => join(folder, name),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

export const run = (command: string, ...words: string[]): string =>
  execFileSync(command, words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 2 ** 28 });

/** Runs scapy; `script` sees what `from scapy.all import *` brings. */
export const makeWithScapy = (script: string): string =>
  run('/usr/bin/python3', '-c', `from scapy.all import *\nconf.verb=0\n${script}`);

/** Packets as pcap of Ethernet, microseconds apart. */
export function encodePcap(
  packets: readonly Uint8Array[],
  { linkType = 101, startMs = 1_700_000_000_000, snap = 262_144 } = {},
): Buffer {
  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xa1b2c3d4);
  header.set([2, 0, 4, 0], 4);
  header.writeUInt32LE(snap, 16);
  header.writeUInt32LE(linkType, 20);
  const records = packets.flatMap((packet, index) => {
    const head = Buffer.alloc(16);
    const kept = Math.min(packet.length, snap);
    head.writeUInt32LE(Math.floor(startMs / 1000));
    head.writeUInt32LE((startMs % 1000) * 1000 + index, 4);
    head.writeUInt32LE(kept, 8);
    head.writeUInt32LE(packet.length, 12);
    return [head, packet.subarray(0, kept)];
  });
  return Buffer.concat([header, ...records]);
}

export interface Seen {
  number: number;
  /** ms, as far as a number holds it. */
  time: number | null;
  kept: number;
  length: number;
  /** The IPv4 header in hexadecimal digits; null without. */
  header: string | null;
}

interface Frame {
  _source: {
    layers: {
      frame: {
        'frame.number': string;
        'frame.time_epoch'?: string;
        'frame.cap_len': string;
        'frame.len': string;
      };
      ip_raw?: [hex: string, at: number, length: number];
    };
  };
}

export function readWithTshark(file: string): Seen[] {
  const printed = run(
    'tshark',
    '-r',
    file,
    '-n',
    '-T',
    'json',
    '-x',
    '-j',
    'frame ip',
    '--no-duplicate-keys',
  );
  return (JSON.parse(printed) as Frame[]).map(({ _source: { layers } }) => ({
    number: Number(layers.frame['frame.number']),
    time: readTime(layers.frame['frame.time_epoch']),
    kept: Number(layers.frame['frame.cap_len']),
    length: Number(layers.frame['frame.len']),
    header: layers.ip_raw?.[0] ?? null,
  }));
}

/** tshark 4.0 writes seconds, later ones a date. */
function readTime(text: string | undefined): number | null {
  if (text === undefined) return null;
  return /^[\d.]+$/.test(text) ? Number(text) * 1000 : Date.parse(text);
}

export function openFile(file: string): Capture {
  return openCapture(makeCursor(readChunks(file)), file);
}

/** In pieces of `size` bytes. */
export function openBytes(bytes: Buffer, size = bytes.length): Capture {
  const chunks = Array.from({ length: Math.ceil(bytes.length / Math.max(size, 1)) }, (_, index) =>
    bytes.subarray(index * size, (index + 1) * size),
  );
  return openCapture(makeCursor(chunks), 'test');
}
