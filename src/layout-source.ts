import { createHash } from 'node:crypto';
import type { BtfType } from './native.js';

/** Turns the BTF of the compiled object into the text of src/layout.ts. */
export function describeLayout(types: readonly BtfType[]): { text: string; digest: string } {
  const structs = types.filter((type) => type.kind === 'struct' && isOurs(type.name));
  const enums = types.filter((type) => type.kind === 'enum' && isOurs(type.name));
  const body = [
    'export const structs = {',
    ...structs.sort(byName).flatMap((type) => describeStruct(types, type)),
    '} as const;',
    '',
    'export const enums = {',
    ...enums.sort(byName).flatMap((type) => describeEnum(type)),
    '} as const;',
  ];
  const digest = createHash('sha256').update(body.join('\n')).digest('hex');
  const text = [
    '// Generated from the BTF of bpf/lsr.bpf.c by `npm run layout`. Do not edit.',
    '',
    `export const digest = '${digest}';`,
    '',
    ...body,
    '',
  ].join('\n');
  return { text, digest };
}

/** Structs that stay inside the kernel side: they hold pointers, or are never in a map. */
const isOurs = (name: string): boolean => name.startsWith('lsr_') && !kernelSide.has(name);
const kernelSide = new Set([
  'lsr_allowance',
  'lsr_covered',
  'lsr_error',
  'lsr_exit',
  'lsr_header',
  'lsr_instance',
  'lsr_icmp_header',
  'lsr_mss_search',
  'lsr_option_head',
  'lsr_options',
  'lsr_packet',
  'lsr_trial',
  'lsr_quote',
  'lsr_quoted',
  'lsr_quoted_base',
  'lsr_route',
  'lsr_search',
  'lsr_sip',
  'lsr_slices',
  'lsr_tag',
  'lsr_walk',
]);
const byName = (a: BtfType, b: BtfType): number => (a.name < b.name ? -1 : 1);

function describeStruct(types: readonly BtfType[], type: BtfType): string[] {
  const fields = (type.members ?? []).map((member) => {
    const kind = describeField(types, member.type, `${type.name}.${member.name}`);
    return `      ${toCamel(member.name)}: { offset: ${member.bitOffset / 8}, ${kind} },`;
  });
  return [`  ${type.name}: {`, `    size: ${type.size},`, '    fields: {', ...fields, '    },', '  },'];
}

function describeField(types: readonly BtfType[], id: number, where: string): string {
  const type = types[id];
  if (!type) throw new Error(`${where} has no type`);
  if (type.kind === 'array') {
    const element = describeField(types, type.elementType ?? 0, where);
    if (element === "kind: 'u8'") return `kind: 'bytes', count: ${type.length}`;
    if (element === "kind: 'char'") return `kind: 'text', count: ${type.length}`;
    return `${element}, count: ${type.length}`;
  }
  if (type.kind === 'struct') return `kind: '${type.name}'`;
  if (type.kind === 'int' && type.name === 'char') return "kind: 'char'";
  if (type.kind === 'typedef') {
    const scalar = /^__(u8|u16|u32|u64|be16|be32)$/.exec(type.name);
    if (scalar) return `kind: '${scalar[1]}'`;
    return describeField(types, type.type ?? 0, where);
  }
  throw new Error(`${where} is a ${type.kind}; use __u8 … __u64, __be16, __be32, char[] or a struct`);
}

function describeEnum(type: BtfType): string[] {
  const values = (type.values ?? []).map(({ name, value }) => `    ${name}: ${value},`);
  return [`  ${type.name}: {`, ...values, '  },'];
}

const toCamel = (name: string): string =>
  name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
