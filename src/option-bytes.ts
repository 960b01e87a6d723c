import { ADDRESS_BYTES, ROUTE_HEAD_BYTES, TAG_BYTES } from './limits.js';

/** Bytes of options for a path, padding included. */
export function countOptionBytes(hops: number, record: number, tagged = false): number {
  const bytes = (tagged ? TAG_BYTES : 0) + ROUTE_HEAD_BYTES + ADDRESS_BYTES * hops + countRecordBytes(record);
  return Math.ceil(bytes / 4) * 4; // IHL counts words of 4 bytes
}

export const countRecordBytes = (slots: number): number =>
  slots > 0 ? ROUTE_HEAD_BYTES + ADDRESS_BYTES * slots : 0;
