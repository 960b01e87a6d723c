import type { Address } from './address.js';
import type { HeaderTable, Prediction, RouteKey } from './header-table.js';
import { isMartian, judgeLayout, listOptions, type Option, type OptionList } from './ipv4-header.js';
import { enums } from './layout.js';
import { BASE_HEADER_BYTES, TAG_BYTES } from './limits.js';
import type { DropReason } from './reasons.js';
import type { RenderedChain } from './render.js';

/** What a hop makes of a header with a source route, as far as it does not depend on what changes from packet to packet. */
export interface RouteCheck {
  /** Where the packet's destination is the hop, as on a wire. */
  hop: Address;
  final: Address;
  /** As on a wire. */
  options: Buffer;
  /** Record Route as far as it is used. */
  record: readonly Address[];
  prediction: Prediction | null;
  chain: RenderedChain | null;
  /** A well-formed route that is not as predicted: agents do not only count it, they record it. */
  isDeviation: boolean;
  /** Known before the checksum is looked at; then before the tag is; then behind both. Each is for lack of the one before. */
  faults: { options: DropReason | null; route: DropReason | null; end: DropReason | null };
}

/**
 * walk_route() and visit_hop() of bpf/hop.h, at the node that the packet is addressed to. Null where there is neither source
 * route nor tag, so that it is no business of a chain. `header`: as captured, whole.
 */
export function checkRoute(table: HeaderTable, header: Buffer): RouteCheck | null {
  const unmasked = unmask(header);
  const found = unmasked && checkPlain(table, unmasked);
  // Masked it may be at a function's device only, so at a hop with a function.
  if (found?.prediction?.path.hops[found.prediction.position - 1]?.function) return found;
  return checkPlain(table, header);
}

const { LSR_OPTION_INTEGRITY, LSR_OPTION_LOOSE, LSR_OPTION_STRICT } = enums.lsr_option;
const { LSR_OPTION_MASKED_RECORD, LSR_OPTION_MASKED_ROUTE, LSR_OPTION_RECORD_ROUTE } = enums.lsr_option;
const ofChains: readonly number[] = [
  LSR_OPTION_INTEGRITY,
  LSR_OPTION_LOOSE,
  LSR_OPTION_STRICT,
  LSR_OPTION_MASKED_ROUTE,
];

function checkPlain(table: HeaderTable, header: Buffer): RouteCheck | null {
  const options = header.subarray(BASE_HEADER_BYTES);
  const list = listOptions(options);
  const isOfChain = list.options.some(({ type }) => ofChains.includes(type));
  if (!isOfChain && !(list.fault && ofChains.includes(options[list.end] ?? 0))) return null;
  const fragment = header.readUInt16BE(6);
  const layout = list.fault ? { fault: null, blank: 0 } : judgeLayout(options, list, fragment);
  const hop = header.readUInt32BE(16);
  const route = list.options.find(({ kind }) => kind === 'route');
  const entries = route ? readEntries(options, route) : [];
  const base = {
    hop,
    final: entries.at(-1) ?? hop,
    options,
    record: readRecord(options, list),
    prediction: null,
    chain: null,
    isDeviation: false,
  };
  const refuse = (stage: 'options' | 'route', reason: DropReason): RouteCheck => ({
    ...base,
    faults: { options: null, route: null, end: null, [stage]: reason },
  });
  if (list.fault) return refuse('options', list.fault);
  const isTagged = list.options.some(({ kind }) => kind === 'tag');
  if (!route) return refuse('options', isTagged ? 'layout' : 'forbidden_option'); // masked, where it must not be
  if (layout.fault) return refuse('route', layout.fault);
  const record = layout.blank || (list.options.find(({ kind }) => kind === 'record')?.length ?? 0);
  const { type, length, pointer } = route;
  const key: RouteKey = { type, length, pointer, record, tag: route.at, hop, entries: entries.slice(0, -1) };
  const { reason, prediction } = visitHop(table, key, header.readUInt32BE(12), base.final);
  if (reason) return { ...refuse('route', reason), prediction, isDeviation: !unrecorded.includes(reason) };
  return { ...base, prediction, ...findEnd(table, prediction as Prediction, header, base.final) };
}

/** What is refused before the route is looked up. */
const unrecorded: readonly DropReason[] = ['source_martian', 'not_my_hop', 'source_self'];

/** Up to the lookup: why there is no such packet at this hop, and the path that it is like. */
function visitHop(
  table: HeaderTable,
  key: RouteKey,
  source: Address,
  final: Address,
): { reason: DropReason | null; prediction: Prediction | null } {
  const node = table.findNode(key.hop);
  const refuse = (reason: DropReason) => ({ reason, prediction: null });
  if (isMartian(source)) return refuse('source_martian');
  if (node === undefined) return refuse('not_my_hop');
  if (table.owns(node, source)) return refuse('source_self');
  if (key.pointer > key.length) return refuse('exhausted');
  const prediction = table.findWhole(key);
  if (prediction) return { reason: null, prediction };
  const elsewhere = table.findPart(key, 'route');
  if (elsewhere) return { reason: 'position', prediction: elsewhere };
  return refuse(explainMismatch(table, key, source, final));
}

/** explain_mismatch() of bpf/hop.h. */
function explainMismatch(table: HeaderTable, key: RouteKey, source: Address, final: Address): DropReason {
  const { hop, entries } = key;
  if (entries.some(isMartian)) return 'bad_hop';
  if (entries.includes(source)) return 'reflect';
  if (new Set([hop, ...entries]).size <= entries.length) return 'loop';
  if (isMartian(final)) return 'bad_hop';
  if (final === source) return 'reflect';
  const other = { ...key, tag: key.tag > 0 ? 0 : TAG_BYTES };
  if (table.findPart(other, 'route')) return key.tag > 0 ? 'unknown_option' : 'tag_missing';
  if (table.findPart(key, 'ahead')) return 'record_mismatch';
  return table.findPart(key, 'recorded') ? 'route_mismatch' : 'unknown_path';
}

/** What the last hop says of the destination is said at each hop: the packet cannot end otherwise. */
function findEnd(table: HeaderTable, { path, position }: Prediction, header: Buffer, final: Address) {
  const source = header.readUInt32BE(12);
  const number = path.binding === 'none' ? 0 : header.readUInt16BE(22) & enums.lsr_limits.LSR_CHAIN_MAX;
  const chain = table.findChain(path, number, final) ?? null;
  const goesBack = path.hops[position]?.address === source || final === source;
  const isAllowed = chain !== null && !isMartian(final);
  const end: DropReason | null = goesBack ? 'reflect' : isAllowed ? null : 'destination';
  return { chain, faults: { options: null, route: null, end } };
}

const readEntries = (options: Buffer, { at, length }: Option): Address[] =>
  Array.from({ length: (length - 3) / 4 }, (_, index) => options.readUInt32BE(at + 3 + 4 * index));

function readRecord(options: Buffer, list: OptionList): Address[] {
  const record = list.options.find(({ kind }) => kind === 'record');
  return record ? readEntries(options, record).slice(0, record.pointer / 4 - 1) : [];
}

/** unmask_route() of bpf/function.h; null where it is not masked. */
function unmask(header: Buffer): Buffer | null {
  const at = BASE_HEADER_BYTES + (header[BASE_HEADER_BYTES] === LSR_OPTION_INTEGRITY ? TAG_BYTES : 0);
  const [type = 0, length = 0, pointer = 0] = header.subarray(at);
  const end = at + length;
  if (type !== LSR_OPTION_MASKED_ROUTE || length < 7 || length % 4 !== 3 || end > header.length) return null;
  const plain = Buffer.from(header);
  header.copy(plain, 16, end - 4, end);
  header.copy(plain, end - 4, 16, 20);
  // The lowest bit of the pointer says that the route was strict.
  plain.set([pointer & 1 ? LSR_OPTION_STRICT : LSR_OPTION_LOOSE, length, pointer & ~1], at);
  if (plain[end] === LSR_OPTION_MASKED_RECORD) plain[end] = LSR_OPTION_RECORD_ROUTE;
  return plain;
}
