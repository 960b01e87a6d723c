import { readdirSync, readFileSync } from 'node:fs';
import test from 'ava';
import { Type } from 'typebox';
import { checkMesh, formatProblem, readDocument, readMesh } from '../../src/document.js';
import { DOCUMENT_BYTES_MAX, PROBLEMS_MAX } from '../../src/limits.js';

const folder = new URL('../fixtures/mesh/', import.meta.url);
const fixtures = readdirSync(folder).map((name) => ({
  name,
  text: readFileSync(new URL(name, folder), 'utf8'),
}));

/** `# expect: line:column: CODE: substring of the message`, a line for each problem, first in the file. */
function readExpectations(text: string): string[] {
  const lines = text.split('\n');
  const end = lines.findIndex((line) => !line.startsWith('# expect: '));
  return lines.slice(0, end).map((line) => line.slice('# expect: '.length));
}

for (const { name, text } of fixtures) {
  const expected = readExpectations(text);
  test(`${name} ${expected.length === 0 ? 'is a good mesh document' : `has the problem ${expected[0]?.slice(0, 60)}`}`, (t) => {
    const { mesh, problems } = readMesh(text, name);
    t.is(mesh === null, expected.length > 0, problems.map(formatProblem).join('\n'));
    t.is(problems.length, expected.length, problems.map(formatProblem).join('\n'));
    problems.forEach((problem, index) => {
      const [line, column, code, ...message] = expected[index]?.split(':') ?? [];
      t.is(`${problem.line}:${problem.column}: ${problem.code}`, `${line}:${column}:${code}`);
      t.true(problem.message.includes(message.join(':').trim()), problem.message);
      t.is(problem.file, name);
      t.notRegex(problem.message, /\n|undefined|\[object/);
      t.true(problem.message.length < 400, problem.message);
    });
  });
}

test('data without a text has the same problems', (t) => {
  const findings = checkMesh({
    version: 1,
    nodes: { a: { address: '10.0.0.1' }, b: { address: '10.0.0.1' } },
    chains: { web: { hops: ['nobody'] } },
    rules: [],
  });
  t.deepEqual(
    findings.map(({ pointer, code }) => [pointer, code]),
    [
      ['/nodes/b/address', 'ADDRESS_TAKEN'],
      ['/chains/web/hops/0', 'HOP_UNKNOWN'],
    ],
  );
  t.deepEqual(checkMesh(readMesh(labText(), 'lab.yaml').mesh), []);
  for (const nothing of [null, undefined, [], 'mesh', 7, new Date(0)]) t.true(checkMesh(nothing).length > 0);
});

test('a document of more than 1 MiB is refused by its size, before it is parsed', (t) => {
  const comment = (bytes: number): string => `${'#'.repeat(bytes - 1)}\n`;
  const { problems } = readMesh(comment(DOCUMENT_BYTES_MAX + 1), 'large.yaml');
  t.like(problems, { length: 1, 0: { code: 'DOCUMENT_TOO_LARGE', line: 1, column: 1 } });
  t.regex(problems[0]?.message ?? '', /1048577 bytes; it may have 1048576/);
  t.is(readMesh(comment(DOCUMENT_BYTES_MAX), 'large.yaml').problems[0]?.code, 'YAML_EMPTY');
});

test('the size counts bytes and not characters', (t) => {
  const text = `# ${'é'.repeat(DOCUMENT_BYTES_MAX / 2)}`;
  t.true(text.length < DOCUMENT_BYTES_MAX);
  t.is(readMesh(text, 'large.yaml').problems[0]?.code, 'DOCUMENT_TOO_LARGE');
});

const hostile: [string, string, string][] = [
  ['brackets', '['.repeat(500_000), 'DOCUMENT_TOO_DEEP'],
  ['dashes', '- '.repeat(500_000), 'DOCUMENT_TOO_DEEP'],
  ['question marks', '? '.repeat(500_000), 'DOCUMENT_TOO_DEEP'],
  ['nested aliases', nestAliases(60), 'DOCUMENT_TOO_DEEP'],
  ['closing brackets', '}'.repeat(20_000), 'YAML_SYNTAX'],
  ['a NUL character', 'version: \0', 'SCHEMA_TYPE'],
];
for (const [what, text, code] of hostile) {
  test(`a document of ${what} is refused and breaks nothing`, (t) => {
    const { mesh, problems } = readMesh(text, 'hostile.yaml');
    t.is(mesh, null);
    t.true(
      problems.some((problem) => problem.code === code),
      problems.map(formatProblem).join('\n').slice(0, 400),
    );
  });
}

test('of very many problems the first are told, and how many there are', (t) => {
  const keys = Array.from({ length: 5000 }, (_, index) => `x${index}: 1\n`);
  const { problems } = readMesh(
    `version: 1\nnodes: {}\nchains: {}\nrules: []\n${keys.join('')}`,
    'many.yaml',
  );
  t.is(problems.length, PROBLEMS_MAX + 1);
  t.like(problems.at(-1), { code: 'MORE_PROBLEMS', message: '4900 more problems from here on', line: 105 });
});

test('a byte order mark and CRLF line ends change nothing', (t) => {
  const { mesh } = readMesh(labText(), 'lab.yaml');
  const windows = `\ufeff${labText().replaceAll('\n', '\r\n')}`;
  t.deepEqual(readMesh(windows, 'lab.yaml').mesh, mesh);
  t.like(readMesh(windows.replace('hops: [firewall', 'hops: [frewall'), 'lab.yaml').problems, {
    0: { line: 15, column: 30, code: 'HOP_UNKNOWN' },
  });
});

test('a mesh written as JSON is the same mesh', (t) => {
  const { mesh } = readMesh(labText(), 'lab.yaml');
  t.deepEqual(readMesh(JSON.stringify(mesh, null, '\t'), 'lab.json').mesh, mesh);
});

test('any other document is read by its own schema, and its pointers are located', (t) => {
  const schema = Type.Object(
    { name: Type.String(), port: Type.Union([Type.Integer(), Type.Object({ number: Type.Integer() })]) },
    { additionalProperties: false },
  );
  const good = readDocument('name: x\nport:\n  number: 7\n', 'agent.yaml', schema);
  t.deepEqual(good.value, { name: 'x', port: { number: 7 } });
  t.deepEqual(good.locate('/port/number'), { line: 3, column: 11 });
  t.deepEqual(good.locate('/port/number', 'key'), { line: 3, column: 3 });
  t.deepEqual(good.locate('/port/absent'), { line: 3, column: 3 });
  t.deepEqual(good.locate(''), { line: 1, column: 1 });

  const bad = readDocument('name: x\nport: { number: seven }\n', 'agent.yaml', schema);
  t.is(bad.value, null);
  t.deepEqual(bad.problems.map(formatProblem), [
    'agent.yaml:2:17: port.number is "seven"; it must be a whole number',
  ]);
  const neither = readDocument('name: x\nport: seven\n', 'agent.yaml', schema);
  t.deepEqual(neither.problems.map(formatProblem), [
    'agent.yaml:2:7: port is "seven"; it must be a whole number, or a map of "key: value"',
  ]);
});

function labText(): string {
  return readFileSync(new URL('lab.yaml', folder), 'utf8');
}

/** Each list holds the one before by an alias, so that the text is flat and the data is deep. */
function nestAliases(count: number): string {
  const lists = Array.from({ length: count }, (_, index) => `- &a${index + 1} [*a${index}]\n`);
  return `- &a0 [x]\n${lists.join('')}`;
}
