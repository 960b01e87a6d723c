import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, type Pair } from 'yaml';
import { splitPointer } from './finding.js';
import { ALIAS_VALUES_MAX, DOCUMENT_DEPTH_MAX } from './limits.js';
import { composeDocument, type Flaw, refuseTag, tooDeep } from './yaml-document.js';

/** A YAML text as plain data, with the way back from data to text. */
export interface YamlSource {
  /** undefined where there are flaws. */
  value: unknown;
  flaws: Flaw[];
  /** Where the key or the value at a pointer begins; of what is not there, where its next parent is. */
  locate(pointer: string, part?: 'key' | 'value'): { line: number; column: number };
  /** Line and column, both from 1. */
  place(offset: number): { line: number; column: number };
}

/** What one YAML node is: its data, how many values that is and how deep it goes. */
interface Reading {
  value: unknown;
  size: number;
  depth: number;
}

type Entries = Map<string, Pair<Node, Node | null>>;

interface Reader {
  flaws: Flaw[];
  anchors: Map<string, Node>;
  /** Where an alias leads; unset while what it leads to is being read. */
  targets: Map<Node, Node>;
  readings: Map<Node, Reading>;
  entries: Map<Node, Entries>;
  /** Values that aliases have added. */
  added: number;
  place: YamlSource['place'];
}

const nothing: Reading = { value: null, size: 1, depth: 0 };

/** Reads one YAML document of maps with text keys, lists and plain values; JSON is such a document too. */
export function readYaml(text: string): YamlSource {
  const lines = new LineCounter();
  const place = (offset: number): { line: number; column: number } => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  };
  const reader: Reader = {
    flaws: [],
    anchors: new Map(),
    targets: new Map(),
    readings: new Map(),
    entries: new Map(),
    added: 0,
    place,
  };
  const document = composeDocument(text, lines, reader.flaws);
  const root = document?.contents as Node | null | undefined;
  if (document && reader.flaws.length === 0 && isEmpty(root)) {
    reader.flaws.push({
      offset: root ? startOf(root) : 0,
      code: 'YAML_EMPTY',
      message: 'the document is empty',
    });
  }
  const reading = root && reader.flaws.length === 0 ? readNode(reader, root, 1) : nothing;
  return {
    value: reader.flaws.length === 0 ? reading.value : undefined,
    flaws: reader.flaws,
    place,
    locate: (pointer, part = 'value') => place(findOffset(reader, root ?? null, splitPointer(pointer), part)),
  };
}

const isEmpty = (root: Node | null | undefined): boolean => !root || (isScalar(root) && root.value === null);

function readNode(reader: Reader, node: Node, depth: number): Reading {
  if (depth > DOCUMENT_DEPTH_MAX + 1) {
    reader.flaws.push(tooDeep(startOf(node)));
    return nothing;
  }
  if (isAlias(node)) return readAlias(reader, node, depth);
  if (node.anchor) reader.anchors.set(node.anchor, node);
  if (node.tag) reader.flaws.push(refuseTag(startOf(node)));
  const reading = readPlain(reader, node, depth);
  reader.readings.set(node, reading);
  return reading;
}

function readPlain(reader: Reader, node: Node, depth: number): Reading {
  if (isScalar(node)) return { value: node.value, size: 1, depth: 0 };
  if (isMap<Node, Node | null>(node)) return readMap(reader, node, node.items, depth);
  if (!isSeq<Node>(node)) return nothing;
  const items = node.items.map((item) => readNode(reader, item, depth + 1));
  return { value: items.map(({ value }) => value), ...measure(items) };
}

function readMap(reader: Reader, map: Node, pairs: Pair<Node, Node | null>[], depth: number): Reading {
  const entries: Entries = new Map();
  reader.entries.set(map, entries);
  const members = pairs.map((pair): [string, Reading] => {
    const key = readKey(reader, pair.key, entries);
    if (key !== null) entries.set(key, pair);
    return [key ?? '', pair.value ? readNode(reader, pair.value, depth + 1) : nothing];
  });
  // fromEntries makes "__proto__" a key like any other.
  const value = Object.fromEntries(members.map(([key, reading]) => [key, reading.value]));
  return { value, ...measure(members.map(([, reading]) => reading)) };
}

function readKey(reader: Reader, key: Node, entries: Entries): string | null {
  const offset = startOf(key);
  if (!isScalar(key) || typeof key.value !== 'string') {
    const right =
      isScalar(key) && key.value !== null ? `put it in quotes, "${String(key.value)}"` : 'write a name';
    reader.flaws.push({ offset, code: 'YAML_KEY', message: `a key must be text; ${right}` });
    return null;
  }
  if (key.tag) reader.flaws.push(refuseTag(offset));
  if (key.anchor) reader.anchors.set(key.anchor, key);
  const before = entries.get(key.value);
  if (before) {
    const message = `the key ${JSON.stringify(key.value)} stands twice, first on line ${reader.place(startOf(before.key)).line}`;
    reader.flaws.push({ offset, code: 'YAML_DUPLICATE_KEY', message });
  }
  return key.value;
}

/** The data of what an alias names is shared, not copied; it is counted as if it were copied, since whoever walks it walks it again. */
function readAlias(reader: Reader, alias: Node & { source: string }, depth: number): Reading {
  const target = reader.anchors.get(alias.source);
  const reading = target && reader.readings.get(target);
  const refuse = (message: string): Reading => {
    reader.flaws.push({ offset: startOf(alias), code: 'YAML_ALIAS', message });
    return nothing;
  };
  if (!target) return refuse(`there is no anchor "&${alias.source}" before this alias`);
  if (!reading) return refuse(`the alias "*${alias.source}" stands inside what it repeats`);
  reader.targets.set(alias, target);
  reader.added += reading.size;
  if (reader.added > ALIAS_VALUES_MAX) {
    const message = `with "*${alias.source}" aliases add more than ${ALIAS_VALUES_MAX} values; write them out or use fewer`;
    // One flaw is enough for all aliases that follow.
    return reader.added - reading.size > ALIAS_VALUES_MAX ? nothing : refuse(message);
  }
  if (depth + reading.depth > DOCUMENT_DEPTH_MAX + 1) {
    reader.flaws.push(tooDeep(startOf(alias)));
    return nothing;
  }
  return reading;
}

function measure(parts: readonly Reading[]): { size: number; depth: number } {
  let size = 1;
  let depth = 0;
  for (const part of parts) {
    size += part.size;
    depth = Math.max(depth, part.depth);
  }
  return { size, depth: depth + 1 };
}

const startOf = (node: Node): number => node.range?.[0] ?? 0;

function findOffset(
  reader: Reader,
  root: Node | null,
  segments: readonly string[],
  part: 'key' | 'value',
): number {
  if (!root) return 0;
  let node = root;
  let key: Node | null = null;
  for (const segment of segments) {
    const parent = reader.targets.get(node) ?? node;
    const pair = reader.entries.get(parent)?.get(segment);
    const next = pair ? pair.value : isSeq<Node>(parent) ? parent.items[Number(segment)] : undefined;
    if (!pair && !next) break;
    key = pair ? pair.key : null;
    if (pair && isMissing(pair.value)) return startOf(pair.key);
    node = next as Node;
  }
  return startOf(part === 'key' && key ? key : node);
}

/** `key:` with nothing behind it has no place of its own. */
function isMissing(value: Node | null): boolean {
  return (
    !value || (isScalar(value) && value.value === null && (value.range?.[0] ?? 0) === (value.range?.[1] ?? 0))
  );
}
