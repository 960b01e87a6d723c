import type { Static, TSchema } from 'typebox';
import { checkMeaning } from './check.js';
import type { Finding } from './finding.js';
import { enums } from './layout.js';
import { NAME_LENGTH_MAX, PROBLEMS_MAX } from './limits.js';
import { cgroupPattern, type Mesh, MeshSchema, namePattern, planned, portRangePattern } from './mesh.js';
import { checkSchema, type Wording } from './schema-check.js';
import { readYaml, type YamlSource } from './yaml-source.js';

/** A finding with its place in the text. */
export interface Problem {
  file: string;
  line: number;
  column: number;
  code: string;
  message: string;
  /** RFC 6901; empty for what is wrong in the text itself. */
  pointer: string;
}

export interface ReadDocument<T> {
  /** null where there is a problem. */
  value: T | null;
  /** Sorted by position. */
  problems: Problem[];
  /** Line and column, from 1, of what a pointer names. */
  locate: YamlSource['locate'];
}

const meshWording: Wording = {
  planned,
  patterns: {
    [namePattern]: `a name of lower-case letters, digits, ".", "_" and "-", at most ${NAME_LENGTH_MAX} characters, first a letter or digit`,
    [portRangePattern]: 'a range like "8000-8999"',
    [cgroupPattern]: `a path below the root of cgroup2 like "system.slice/nginx.service", at most ${enums.lsr_limits.LSR_CGROUP_LEVELS} levels, without a slash at either end`,
  },
};

/** Reads a mesh document (YAML, JSON included) and tells all that is wrong in it. */
export function readMesh(text: string, file: string): { mesh: Mesh | null; problems: Problem[] } {
  const { value, problems, locate } = readDocument(text, file, MeshSchema, meshWording);
  if (!value) return { mesh: null, problems };
  const found = placeFindings(checkMeaning(value), file, locate);
  return found.length === 0 ? { mesh: value, problems: [] } : { mesh: null, problems: found };
}

/** The same checks for data that came without a text. */
export function checkMesh(mesh: unknown): Finding[] {
  const findings = checkSchema(MeshSchema, mesh, meshWording);
  return findings.length > 0 ? findings : checkMeaning(mesh as Mesh);
}

/** Reads any YAML document by its schema. */
export function readDocument<S extends TSchema>(
  text: string,
  file: string,
  schema: S,
  wording?: Wording,
): ReadDocument<Static<S>> {
  const source = readYaml(text);
  const { locate } = source;
  if (source.flaws.length > 0) {
    const flaws = source.flaws.map(({ offset, ...flaw }) => ({
      file,
      pointer: '',
      ...flaw,
      ...source.place(offset),
    }));
    return { value: null, problems: sortProblems(flaws), locate };
  }
  const problems = placeFindings(checkSchema(schema, source.value, wording), file, locate);
  return { value: problems.length === 0 ? (source.value as Static<S>) : null, problems, locate };
}

/** `file:line:column: message`, as compilers do. */
export function formatProblem({ file, line, column, message }: Problem): string {
  return `${file}:${line}:${column}: ${message}`;
}

function placeFindings(findings: readonly Finding[], file: string, locate: YamlSource['locate']): Problem[] {
  return sortProblems(
    findings.map(({ pointer, code, message, part }) => ({
      file,
      ...locate(pointer, part),
      code,
      message,
      pointer,
    })),
  );
}

/** By position; of very many only the first, and how many there are. */
function sortProblems(problems: Problem[]): Problem[] {
  const sorted = problems.sort((a, b) => a.line - b.line || a.column - b.column);
  const next = sorted[PROBLEMS_MAX];
  if (!next) return sorted;
  const message = `${sorted.length - PROBLEMS_MAX} more problems from here on`;
  return [...sorted.slice(0, PROBLEMS_MAX), { ...next, code: 'MORE_PROBLEMS', message, pointer: '' }];
}
