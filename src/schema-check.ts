import type { TSchema } from 'typebox';
import { Check } from 'typebox/value';
import { type Finding, makePointer, quote, splitPointer, suggestNearest } from './finding.js';

/** What a schema cannot say about its own words. */
export interface Wording {
  /** Words that are planned and not supported yet: values by the key that takes them, and keys. */
  planned?: { values: Readonly<Record<string, readonly string[]>>; keys: readonly string[] };
  /** What a pattern asks for, in words. */
  patterns?: Readonly<Record<string, string>>;
}

/** The keywords that our schemas use (JSON Schema 2020-12). */
interface Schema {
  type?: string;
  title?: string;
  const?: unknown;
  enum?: readonly unknown[];
  anyOf?: readonly Schema[];
  properties?: Readonly<Record<string, Schema>>;
  patternProperties?: Readonly<Record<string, Schema>>;
  required?: readonly string[];
  additionalProperties?: unknown;
  minProperties?: number;
  items?: Schema;
  minItems?: number;
  maxItems?: number;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  pattern?: string;
}

/** Says what in a value is not as the schema has it: one finding for each place, none for a value that is right. */
export function checkSchema(schema: TSchema, value: unknown, wording: Wording = {}): Finding[] {
  if (Check(schema, value)) return [];
  const findings = explain(schema as Schema, value, '', wording);
  if (findings.length > 0) return findings;
  return [{ pointer: '', code: 'SCHEMA_VALUE', message: `${quote(value)} is not valid here` }];
}

function explain(schema: Schema, value: unknown, pointer: string, wording: Wording): Finding[] {
  if (schema.anyOf) return explainUnion(schema, schema.anyOf, value, pointer, wording);
  if (schema.type !== undefined && !hasType(schema.type, value))
    return [explainType(schema, value, pointer, wording)];
  if (isMap(value)) return explainMap(schema, value, pointer, wording);
  if (Array.isArray(value)) return explainList(schema, value, pointer, wording);
  return isAllowed(schema, value) ? [] : [explainValue(schema, value, pointer, wording)];
}

/** A map or list is explained by the one branch that takes such; for anything else the whole choice is told, once. */
function explainUnion(
  schema: Schema,
  branches: readonly Schema[],
  value: unknown,
  pointer: string,
  wording: Wording,
): Finding[] {
  if (branches.some((branch) => explain(branch, value, pointer, wording).length === 0)) return [];
  const fitting = branches.filter(
    ({ type }) => (type === 'object' || type === 'array') && hasType(type, value),
  );
  if (fitting[0] && fitting.length === 1) return explain(fitting[0], value, pointer, wording);
  return [explainValue(schema, value, pointer, wording)];
}

function explainMap(
  schema: Schema,
  value: Record<string, unknown>,
  pointer: string,
  wording: Wording,
): Finding[] {
  const { properties = {}, patternProperties = {}, required = [] } = schema;
  const patterns = Object.entries(patternProperties);
  const missing = required
    .filter((key) => !Object.hasOwn(value, key))
    .map((key) => explainMissing(schema, key, properties[key] ?? {}, pointer, wording));
  const present = Object.entries(value).flatMap(([key, member]) => {
    const at = pointer + makePointer(key);
    const known = Object.hasOwn(properties, key) ? properties[key] : undefined;
    const inner = known ?? patterns.find(([pattern]) => new RegExp(pattern, 'u').test(key))?.[1];
    if (inner) return explain(inner, member, at, wording);
    return schema.additionalProperties === false ? [explainKey(schema, key, at, wording)] : [];
  });
  const count = Object.keys(value).length;
  if (count >= (schema.minProperties ?? 0)) return [...missing, ...present];
  const few = `${label(pointer, 'the document')} needs ${schema.minProperties} or more entries, here are ${count}`;
  return [...missing, ...present, { pointer, code: 'SCHEMA_VALUE', message: few }];
}

function explainList(
  schema: Schema,
  value: readonly unknown[],
  pointer: string,
  wording: Wording,
): Finding[] {
  const { items, minItems = 0, maxItems = Number.POSITIVE_INFINITY } = schema;
  if (value.length < minItems || value.length > maxItems) {
    const right = value.length < minItems ? `at least ${minItems}` : `at most ${maxItems}`;
    const message = `${label(pointer, 'the document')} has ${value.length} entries; it needs ${right}`;
    return [{ pointer, code: 'SCHEMA_VALUE', message }];
  }
  if (!items) return [];
  return value.flatMap((item, index) => explain(items, item, pointer + makePointer(index), wording));
}

function explainMissing(
  schema: Schema,
  key: string,
  inner: Schema,
  pointer: string,
  wording: Wording,
): Finding {
  const where = label(pointer, `the ${schema.title ?? 'document'}`);
  const message = `${where} lacks the key ${quote(key)}, which is ${describe(inner, wording)}`;
  return { pointer, code: 'SCHEMA_MISSING_KEY', message, part: 'key' };
}

function explainKey(schema: Schema, key: string, pointer: string, { planned, patterns }: Wording): Finding {
  const at = { pointer, part: 'key' } as const;
  const pattern = Object.keys(schema.patternProperties ?? {})[0];
  if (pattern !== undefined) {
    const message = `${quote(key)} is no name; write ${patterns?.[pattern] ?? `text that matches ${pattern}`}`;
    return { ...at, code: 'SCHEMA_NAME', message };
  }
  if (planned?.keys.includes(key))
    return { ...at, code: 'NOT_SUPPORTED', message: `${quote(key)} is not supported yet` };
  const owner = schema.title === undefined ? 'here' : `of a ${schema.title}`;
  const keys = Object.keys(schema.properties ?? {});
  const message = `${quote(key)} is no key ${owner}; the keys are ${keys.join(', ')}${suggestNearest(key, keys)}`;
  return { ...at, code: 'SCHEMA_UNKNOWN_KEY', message };
}

function explainType(schema: Schema, value: unknown, pointer: string, wording: Wording): Finding {
  const message = `${label(pointer, 'the document')} ${nameValue(value)}; it must be ${describe(schema, wording)}`;
  return { pointer, code: 'SCHEMA_TYPE', message: message + hint(schema, value) };
}

function explainValue(schema: Schema, value: unknown, pointer: string, wording: Wording): Finding {
  const name = splitPointer(pointer).findLast((segment) => !/^\d+$/.test(segment)) ?? '';
  const word = typeof value === 'string' ? value : null;
  const plannedWords =
    wording.planned && Object.hasOwn(wording.planned.values, name) ? wording.planned.values[name] : [];
  const right = `it must be ${describe(schema, wording)}`;
  if (word !== null && plannedWords?.includes(word)) {
    const message = `${label(pointer, '')} ${quote(word)} is not supported yet; ${right}`;
    return { pointer, code: 'NOT_SUPPORTED', message };
  }
  const nearest = word === null ? '' : suggestNearest(word, listWords(schema));
  const found = typeof value === 'number' ? `is ${value}` : nameValue(value);
  const message = `${label(pointer, 'the document')} ${found}; ${right}`;
  return { pointer, code: 'SCHEMA_VALUE', message: message + (nearest || hint(schema, value)) };
}

function isAllowed(schema: Schema, value: unknown): boolean {
  if (schema.const !== undefined && value !== schema.const) return false;
  if (schema.enum && !schema.enum.includes(value)) return false;
  if (typeof value === 'number')
    return value >= (schema.minimum ?? -Infinity) && value <= (schema.maximum ?? Infinity);
  if (typeof value !== 'string') return true;
  if (value.length < (schema.minLength ?? 0) || value.length > (schema.maxLength ?? Infinity)) return false;
  return schema.pattern === undefined || new RegExp(schema.pattern, 'u').test(value);
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function hasType(type: string, value: unknown): boolean {
  if (type === 'object') return isMap(value);
  if (type === 'array') return Array.isArray(value);
  if (type === 'integer') return Number.isInteger(value);
  if (type === 'null') return value === null;
  return typeof value === type;
}

/** What a schema takes, in words. */
function describe(schema: Schema, wording: Wording): string {
  if (schema.anyOf) return schema.anyOf.map((branch) => describe(branch, wording)).join(', or ');
  if (schema.const !== undefined) return quote(schema.const);
  if (schema.enum)
    return schema.enum.length === 1 ? String(schema.enum[0]) : `one of ${schema.enum.join(', ')}`;
  switch (schema.type) {
    case 'object':
      return 'a map of "key: value"';
    case 'array':
      return schema.items?.type === 'object' ? 'a list of maps' : 'a list like [a, b]';
    case 'integer':
    case 'number':
      return `a ${schema.type === 'integer' ? 'whole ' : ''}number${describeRange(schema)}`;
    case 'boolean':
      return 'true or false';
    case 'string':
      return describeText(schema, wording);
    default:
      return schema.type ?? 'a value';
  }
}

function describeRange({ minimum, maximum }: Schema): string {
  if (minimum !== undefined && maximum !== undefined) return ` from ${minimum} to ${maximum}`;
  if (minimum !== undefined) return ` of at least ${minimum}`;
  return maximum === undefined ? '' : ` of at most ${maximum}`;
}

function describeText({ pattern, minLength = 0, maxLength }: Schema, { patterns }: Wording): string {
  if (pattern !== undefined) return patterns?.[pattern] ?? `text that matches ${pattern}`;
  if (maxLength !== undefined) return `text of ${minLength} to ${maxLength} characters`;
  return minLength > 0 ? 'text that is not empty' : 'text';
}

function listWords({ anyOf = [], enum: words = [] }: Schema): string[] {
  return [...words, ...anyOf.flatMap(listWords)].filter((word) => typeof word === 'string');
}

/** How to write a value of nearly the right type. */
function hint(schema: Schema, value: unknown): string {
  const takes = (type: string): boolean =>
    [schema, ...(schema.anyOf ?? [])].some((branch) => branch.type === type);
  const plain = typeof value === 'number' || typeof value === 'boolean';
  if (takes('array') && schema.items?.type !== 'object' && (plain || typeof value === 'string')) {
    return `; write [${String(value).slice(0, 40)}]`;
  }
  if (plain && takes('string') && !takes('integer') && !schema.enum) return '; put it in quotes';
  const number = takes('integer') && typeof value === 'string' && /^\d{1,10}$/.test(value);
  return number ? '; write it without quotes' : '';
}

function nameValue(value: unknown): string {
  if (value === null) return 'is empty';
  if (Array.isArray(value)) return 'is a list';
  if (isMap(value)) return 'is a map';
  return typeof value === 'string' ? `is ${quote(value)}` : `is the ${typeof value} ${String(value)}`;
}

/** `/chains/web/hops/1` as `chains.web.hops[1]`. */
function label(pointer: string, root: string): string {
  const text = splitPointer(pointer)
    .map((segment) => (/^\d+$/.test(segment) ? `[${segment}]` : `.${segment}`))
    .join('')
    .replace(/^\./, '');
  return text === '' ? root : text.length > 80 ? `…${text.slice(-79)}` : text;
}
