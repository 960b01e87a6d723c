/** Finds the conditions of a C file, and what each could wrongly be. It knows the style of this project, not all of C. */
export interface Mutant {
  file: string;
  line: number;
  /** What is done, such as `never: !hop`. */
  change: string;
  /** The whole file. */
  text: string;
}

interface Span {
  from: number;
  to: number;
  /** `case`: a label and no condition. */
  kind: 'if' | 'return' | 'choice' | 'case';
}

/** Each condition never true, and inverted; without each of its operands; and with each bound moved by one. */
export function makeMutants(file: string, text: string): Mutant[] {
  const code = blankComments(text);
  return findSpans(code).flatMap((span) => {
    const line = text.slice(0, span.from).split('\n').length;
    const condition = text.slice(span.from, span.to);
    return replacements(condition, span.kind).map(([what, replacement]) => ({
      file,
      line,
      change: `${what}: ${oneLine(condition)}`,
      text: text.slice(0, span.from) + replacement + text.slice(span.to),
    }));
  });
}

/** With spaces for comments and preprocessor lines, so that places stay the same. */
function blankComments(text: string): string {
  const blank = (found: string): string => found.replace(/[^\n]/g, ' ');
  return text.replace(/\/\*[\s\S]*?\*\//g, blank).replace(/^#.*$/gm, blank);
}

function findSpans(code: string): Span[] {
  const ifs = [...code.matchAll(/\bif \(/g)].map((found): Span => {
    const from = found.index + found[0].length;
    return { from, to: closingAt(code, from), kind: 'if' };
  });
  const returns = [...code.matchAll(/\breturn ([^;?]+);/g)]
    .filter((found) => isPredicate(code, found.index) && !/^(true|false)$/.test(found[1] ?? ''))
    .map((found): Span => ({ from: found.index + 7, to: found.index + found[0].length - 1, kind: 'return' }));
  const choices = [...code.matchAll(/\s\?/g)].map(
    (found): Span => ({ from: choiceStart(code, found.index), to: found.index, kind: 'choice' }),
  );
  const cases = [...code.matchAll(/\bcase \w+:/g)].map(
    (found): Span => ({ from: found.index, to: found.index + found[0].length, kind: 'case' }),
  );
  return [...ifs, ...returns, ...choices, ...cases].sort((a, b) => a.from - b.from);
}

/** Where the bracket that is open at `from` closes. */
function closingAt(code: string, from: number): number {
  let depth = 1;
  for (let at = from; at < code.length; at++) {
    if (code[at] === '(') depth++;
    if (code[at] === ')' && --depth === 0) return at;
  }
  throw new Error('a bracket does not close');
}

/** Whether the function around `at` answers yes or no. */
function isPredicate(code: string, at: number): boolean {
  const [head = ''] = code.slice(0, at).match(/^static [^;{]*\{(?![\s\S]*^static )/m) ?? [];
  return /^[^(]*( bool |\b(is|has)_\w+$|\bequals$)/.test(head.slice(0, head.indexOf('(')));
}

/** Where the condition in front of a question mark begins: behind `return`, an assignment or an open bracket. */
function choiceStart(code: string, mark: number): number {
  let depth = 0;
  for (let at = mark - 1; at >= 0; at--) {
    if (code[at] === ')') depth++;
    if (code[at] === '(' && depth-- === 0) return at + 1;
    if (depth > 0) continue;
    if (code.startsWith('return ', at)) return at + 7;
    if (code.startsWith(' = ', at)) return at + 3;
  }
  throw new Error('a question mark without a condition');
}

function replacements(condition: string, kind: Span['kind']): [what: string, replacement: string][] {
  if (kind === 'case') return [['without', '']];
  return [['never', '0'], ['not', `!(${condition})`], ...dropOperands(condition), ...moveBounds(condition)];
}

function dropOperands(condition: string): [string, string][] {
  for (const operator of [' || ', ' && ', ' | ']) {
    const operands = splitAtTop(condition, operator);
    if (operands.length < 2) continue;
    return operands.map((operand, i) => [
      `without ${oneLine(operand)}`,
      operands.filter((_, other) => other !== i).join(operator),
    ]);
  }
  return [];
}

/** Operators may stand at the end of a line. */
function splitAtTop(condition: string, operator: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  const flat = condition.replace(/\s/g, ' ');
  for (let at = 0; at < flat.length; at++) {
    if (flat[at] === '(') depth++;
    if (flat[at] === ')') depth--;
    if (depth === 0 && flat.startsWith(operator, at)) {
      parts.push(condition.slice(start, at));
      start = at + operator.length;
    }
  }
  return [...parts, condition.slice(start)];
}

const moved: Record<string, string> = { '<': '<=', '<=': '<', '>': '>=', '>=': '>' };

function moveBounds(condition: string): [string, string][] {
  return [...condition.matchAll(/ (<=|>=|<|>) /g)].map((found) => {
    const operator = moved[found[1] ?? ''] ?? '';
    const before = condition.slice(0, found.index);
    const after = condition.slice(found.index + found[0].length);
    return [
      `${found[1]} as ${operator} behind ${oneLine(before).slice(-24)}`,
      `${before} ${operator} ${after}`,
    ];
  });
}

const oneLine = (text: string): string => text.replace(/\s+/g, ' ').trim();
