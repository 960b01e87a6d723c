import type { PathRecord, RouteEntry } from './record.js';

export const exportFormats = ['ndjson', 'csv'] as const;
export type ExportFormat = (typeof exportFormats)[number];

/** `header` is RFC 4180 §3's; NDJSON has no registered type. */
export const exportTypes = {
  ndjson: 'application/x-ndjson',
  csv: 'text/csv; charset=utf-8; header=present',
} as const satisfies Record<ExportFormat, string>;

interface RecordFormat {
  /** What comes before the first record. */
  head: string;
  format(record: PathRecord): string;
}

type Field = string | number | null;

/**
 * No field can begin a spreadsheet's formula (= + - @): names begin with a letter or digit, as their pattern
 * says, and all other text is made here. Of packets there are only addresses and numbers in it.
 */
const columns: Readonly<Record<string, (record: PathRecord) => Field>> = {
  id: ({ id }) => id,
  chain: ({ chain }) => chain,
  generation: ({ generation }) => generation,
  source: ({ flow }) => flow.source,
  destination: ({ flow }) => flow.destination,
  protocol: ({ flow }) => flow.protocol,
  sourcePort: ({ flow }) => flow.sourcePort,
  destinationPort: ({ flow }) => flow.destinationPort,
  expected: ({ expected }) => flattenRoute(expected),
  recorded: ({ recorded }) => flattenRoute(recorded),
  recordRoute: ({ recordRoute }) => recordRoute.join(' '),
  verdict: ({ verdict }) => verdict,
  reasons: ({ reasons }) => reasons.join(' '),
  packets: ({ packets }) => packets,
  bytes: ({ bytes }) => bytes,
  firstSeen: ({ firstSeen }) => firstSeen,
  lastSeen: ({ lastSeen }) => lastSeen,
  arrivedFrom: ({ arrivedFrom }) => arrivedFrom && flattenEntry(arrivedFrom.node, arrivedFrom.mac),
  explanation: ({ explanation }) => explanation,
  integrity: ({ integrity }) => integrity,
};

export const recordFormats: Readonly<Record<ExportFormat, RecordFormat>> = {
  ndjson: { head: '', format: (record) => `${JSON.stringify(record)}\n` },
  csv: {
    head: formatLine(Object.keys(columns)),
    format: (record) => formatLine(Object.values(columns).map((read) => read(record))),
  },
};

/** "fw=10.0.0.2 ids=10.0.0.3"; an address that belongs to nobody stands alone. */
export function flattenRoute(route: readonly RouteEntry[]): string {
  return route.map(({ node, address }) => flattenEntry(node, address)).join(' ');
}

function flattenEntry(node: string | null, address: string): string {
  return node === null ? address : `${node}=${address}`;
}

/** RFC 4180 §2. */
function formatLine(fields: readonly Field[]): string {
  return `${fields.map(quoteField).join(',')}\r\n`;
}

function quoteField(field: Field): string {
  const text = String(field ?? '');
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
