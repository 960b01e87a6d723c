/** What the C harness writes about a packet, and the same bytes as TypeScript would have written them. */
import { endianness } from 'node:os';
import { isMartian, judgeLayout, listOptions, type OptionList, readHeader } from '../../src/ipv4-header.js';
import { reasons } from '../../src/reasons.js';

/** struct lsr_decision in decide.h. */
export const DECISION_BYTES = 48;

/** A decision without what nobody but the comparison of bytes looks at. */
export interface Decision {
  /** The reason that the parser drops the packet for by its base header, its options, or their layout. */
  headerFault: string | null;
  optionFault: string | null;
  layoutFault: string | null;
  checksumRight: boolean;
  martianSource: boolean;
  hasRoute: boolean;
  hasTag: boolean;
  headerLength: number;
  /** Bit n: enum lsr_option_class n was seen before the first fault. */
  classes: number;
}

const little = endianness() === 'LE';
const indexes = new Map<string, number>(reasons.map(({ name, index }) => [name, index]));

/** LSR_SEEN_… in bpf/parse.h. */
const seen = {
  route: 1,
  record: 2,
  nop: 4,
  forbidden: 8,
  unknown: 16,
  disorder: 32,
  end: 64,
  tag: 128,
} as const;

/** Writes TypeScript's opinion of `packet` at `at`, which must be zero before. */
export function writeOpinion(output: DataView, at: number, packet: Uint8Array, segmented: boolean): void {
  const header = readHeader(packet, segmented);
  if (typeof header === 'string') {
    output.setUint8(at, indexOf(header));
    return;
  }
  const field = packet.subarray(20, header.headerLength);
  const list = listOptions(field);
  const hasRoute = list.options.some(({ kind }) => kind === 'route');
  output.setUint8(at + 1, list.fault ? indexOf(list.fault) : 0);
  output.setUint8(at + 3, Number(header.checksumRight));
  output.setUint32(at + 4, header.source);
  output.setUint32(at + 8, header.destination);
  output.setUint32(at + 12, header.length, little);
  output.setUint16(at + 16, header.fragment, little);
  output.setUint8(at + 18, header.headerLength);
  output.setUint8(at + 19, header.ttl);
  output.setUint8(at + 20, header.protocol);
  output.setUint8(at + 21, header.dscp);
  output.setUint8(at + 22, Number(isMartian(header.source)));
  output.setUint8(at + 23, Number(hasRoute));
  writeOptions(output, at + 24, list, 0);
  if (list.fault || !hasRoute) return;
  const layout = judgeLayout(field, list, header.fragment);
  output.setUint8(at + 2, layout.fault ? indexOf(layout.fault) : 0);
  if (!layout.fault) writeOptions(output, at + 36, list, layout.blank);
}

/** The decision about the packet with this index. */
export function readDecision(bytes: Buffer, packet: number): Decision {
  const at = packet * DECISION_BYTES;
  const nameAt = (offset: number): string | null => {
    const index = bytes.readUInt8(at + offset);
    return index === 0 ? null : (reasons[index]?.name ?? String(index));
  };
  return {
    headerFault: nameAt(0),
    optionFault: nameAt(1),
    layoutFault: nameAt(2),
    checksumRight: bytes.readUInt8(at + 3) === 1,
    martianSource: bytes.readUInt8(at + 22) === 1,
    hasRoute: bytes.readUInt8(at + 23) === 1,
    hasTag: bytes.readUInt8(at + 34) > 0,
    headerLength: bytes.readUInt8(at + 18),
    classes: bytes.readUInt8(at + 32),
  };
}

/** struct lsr_options. `blank`: bytes of NOPs that stand for Record Route. */
function writeOptions(output: DataView, at: number, list: OptionList, blank: number): void {
  const route = list.options.find(({ kind }) => kind === 'route');
  const record = list.options.find(({ kind }) => kind === 'record');
  let flags: number = list.ended ? seen.end : 0;
  for (const { kind } of list.options) flags |= seen[kind];
  if (isDisordered(list)) flags |= seen.disorder;
  if (blank > 0) flags &= ~seen.nop;
  output.setUint8(at, flags);
  output.setUint8(at + 1, route?.type ?? 0);
  output.setUint8(at + 2, route?.length ?? 0);
  output.setUint8(at + 3, route?.pointer ?? 0);
  output.setUint8(at + 4, record?.at ?? 0);
  output.setUint8(at + 5, record?.length ?? blank);
  output.setUint8(at + 6, record?.pointer ?? 0);
  output.setUint8(at + 7, list.end);
  output.setUint8(
    at + 8,
    list.options.reduce((classes, { type }) => classes | classOf(type), 0),
  );
  output.setUint8(at + 9, route?.at ?? 0);
  output.setUint8(at + 10, list.options.find(({ kind }) => kind === 'tag')?.length ?? 0);
}

/** enum lsr_option_class, as a bit; 0 for NOP. */
function classOf(type: number): number {
  if (type === 1) return 0;
  const place = classTypes.findIndex((types) => types.includes(type));
  return 1 << (place < 0 ? classTypes.length : place);
}

/** Source routes, Record Route, timestamp, Router Alert, labels, stream id; all else is behind them. */
const classTypes = [[131, 137, 222], [7], [68], [148], [130, 133, 134], [136]];

/** Something that does not follow what it follows in a chain packet: integrity option, source route, Record Route. */
function isDisordered({ options }: OptionList): boolean {
  return options.some(({ kind, at }, i) => {
    const before = (wanted: string): (typeof options)[number] | undefined =>
      options.slice(0, i).find((other) => other.kind === wanted);
    if (kind === 'tag') return at > 0;
    if (kind === 'route') return at !== (before('tag')?.length ?? 0);
    if (kind !== 'record') return false;
    const route = before('route');
    return at !== (route ? route.at + route.length : 0);
  });
}

function indexOf(reason: string): number {
  const index = indexes.get(reason);
  if (index === undefined) throw new Error(`bpf/lsr.h knows no reason ${reason}`);
  return index;
}
