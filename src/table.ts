import Table from 'cli-table3';

export type Cell = string | number | null;

/** A plain text table: no lines, two spaces between columns, numbers to the right, a dash where there is nothing. */
export function formatTable(head: string[], rows: Cell[][]): string {
  const table = new Table({
    chars: Object.fromEntries(borders.map((border) => [border, border === 'middle' ? '  ' : ''])),
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
    colAligns: head.map((_name, column) => (isNumeric(rows, column) ? 'right' : 'left')),
  });
  table.push(
    head.map((name) => name.toUpperCase()),
    ...rows.map((row) => row.map(formatCell)),
  );
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

const borders = [
  ...['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right'],
  ...['left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid', 'middle'],
];

function isNumeric(rows: Cell[][], column: number): boolean {
  return rows.length > 0 && rows.every((row) => typeof row[column] === 'number' || row[column] === null);
}

/** Control characters would let an answer drive the terminal. */
function formatCell(cell: Cell): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return cell === null ? '–' : String(cell).replace(/[\x00-\x1f\x7f-\x9f]/g, '?');
}
