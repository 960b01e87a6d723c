import { Composer, type Document, Lexer, type LineCounter, Parser, type YAMLError } from 'yaml';
import { DOCUMENT_BYTES_MAX, DOCUMENT_DEPTH_MAX } from './limits.js';

/** Something wrong in the text itself, at an offset. */
export interface Flaw {
  offset: number;
  code: string;
  message: string;
}

/** The one YAML document of a text; what is wrong goes to `flaws`, and null says that there is nothing to read on. */
export function composeDocument(text: string, lines: LineCounter, flaws: Flaw[]): Document | null {
  lines.addNewLine(0);
  const bytes = Buffer.byteLength(text);
  if (bytes > DOCUMENT_BYTES_MAX) {
    const message = `the document has ${bytes} bytes; it may have ${DOCUMENT_BYTES_MAX} (1 MiB)`;
    flaws.push({ offset: 0, code: 'DOCUMENT_TOO_LARGE', message });
    return null;
  }
  const tokens = parseTokens(text, lines, flaws);
  if (!tokens) return null;
  // Keys that stand twice are found in readMap: the library compares each key with every other.
  const composer = new Composer({ uniqueKeys: false, prettyErrors: false, logLevel: 'silent' });
  const [document, second] = takeTwo(composer.compose(tokens, true, text.length));
  if (!document) return null;
  flaws.push(...findVersion(document, text));
  // What follows an error on its line is mostly its consequence.
  const seen = new Set<number>();
  for (const flaw of [...document.errors, ...document.warnings].map(toFlaw)) {
    const { line } = lines.linePos(flaw.offset);
    if (!seen.has(line)) flaws.push(flaw);
    seen.add(line);
  }
  if (second) {
    const message = 'a second document begins here; a file holds one, so remove the line of "---" or "..."';
    flaws.push({ offset: second.range[0], code: 'YAML_DOCUMENTS', message });
  }
  return document;
}

/** Tokens of the text; null where it nests so deep that composing, which recurses, could overflow the stack. */
function parseTokens(text: string, lines: LineCounter, flaws: Flaw[]) {
  const parser = new Parser(lines.addNewLine);
  const tokens = [];
  for (const lexeme of new Lexer().lex(text)) {
    for (const token of parser.next(lexeme)) tokens.push(token);
    if (parser.stack.length > DOCUMENT_DEPTH_MAX + 2) {
      flaws.push(tooDeep(parser.offset));
      return null;
    }
  }
  for (const token of parser.end()) tokens.push(token);
  return tokens;
}

export function tooDeep(offset: number): Flaw {
  const message = `maps and lists are nested more than ${DOCUMENT_DEPTH_MAX} deep here`;
  return { offset, code: 'DOCUMENT_TOO_DEEP', message };
}

function takeTwo(documents: Generator<Document.Parsed>): Document.Parsed[] {
  const taken: Document.Parsed[] = [];
  for (const document of documents) if (taken.push(document) === 2) break;
  return taken;
}

/** YAML 1.1 reads `yes`, `010` and `1:30` otherwise. */
function findVersion({ directives }: Document, text: string): Flaw[] {
  const { version, explicit } = directives?.yaml ?? {};
  if (!explicit || version === '1.2') return [];
  const message = `the document asks for YAML ${version}; only 1.2 is read, leave this line out`;
  return [{ offset: Math.max(text.search(/^%YAML/m), 0), code: 'YAML_VERSION', message }];
}

function toFlaw({ code, message, pos }: YAMLError): Flaw {
  if (code === 'TAB_AS_INDENT') {
    return { offset: pos[0], code: 'YAML_TAB', message: 'a tab indents this line; YAML takes spaces only' };
  }
  if (code === 'TAG_RESOLVE_FAILED') return refuseTag(pos[0]);
  return { offset: pos[0], code: 'YAML_SYNTAX', message: `this is not YAML: ${message}` };
}

export function refuseTag(offset: number): Flaw {
  return { offset, code: 'YAML_TAG', message: 'a tag ("!…") has no meaning here; write the plain value' };
}
