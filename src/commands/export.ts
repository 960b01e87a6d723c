import { once } from 'node:events';
import { type Command, Option } from 'commander';
import { streamApi } from '../client.js';
import { LsrError } from '../errors.js';
import { type ExportFormat, exportFormats, exportTypes } from '../export-format.js';
import { printAnswer } from '../output.js';
import type { PathRecord } from '../record.js';
import { addPathFilter, type PathFilterOptions } from './path-filter.js';

interface ExportOptions extends PathFilterOptions {
  api: string;
  json?: boolean;
  format?: ExportFormat;
  output?: string;
  ipfix?: string;
}

/** `lsr-agent export`. */
export function addExportCommand(program: Command): void {
  addPathFilter(program.command('export'))
    .description('all path records that fit: as lines, or as IPFIX to a collector')
    .addOption(
      new Option('--format <format>', 'JSON lines, or CSV with a header (default: ndjson)').choices([
        ...exportFormats,
      ]),
    )
    .option('--output <file>', 'into a file, whole or not at all')
    .option('--ipfix <url>', 'to a collector: udp://HOST:4739 or tcp://HOST:4739')
    .addHelpText(
      'after',
      '\nExample:\n  $ lsr-agent export --chain web --since 7d --format csv --output web.csv',
    )
    .action(exportPaths);
}

async function exportPaths(_options: unknown, command: Command): Promise<void> {
  const { api, json = false, format, output, ipfix, ...filter } = command.optsWithGlobals<ExportOptions>();
  if (ipfix !== undefined && (format !== undefined || output !== undefined))
    throw new LsrError(
      'USAGE',
      '--ipfix goes to a collector, --format and --output do not: give one or the other',
    );
  const { chain, node, source, destination, verdict, since } = filter;
  const query = { chain, node, source, destination, verdict, since, format: format ?? 'ndjson' };
  const accept = exportTypes[query.format];
  const read = () => streamApi(api, { path: '/v1/paths/export', query }, accept);
  if (ipfix !== undefined) return sendToCollector(ipfix, json, read);
  if (output === undefined) return print(read());
  const { writeOutput } = await import('../output-file.js');
  await writeOutput(output, read());
}

async function print(pieces: AsyncIterable<Buffer>): Promise<void> {
  for await (const piece of pieces) if (!process.stdout.write(piece)) await once(process.stdout, 'drain');
}

async function sendToCollector(url: string, json: boolean, read: () => AsyncIterable<Buffer>): Promise<void> {
  const { parseCollector, sendRecords } = await import('../collector.js');
  const sent = await sendRecords(parseRecords(read()), parseCollector(url));
  printAnswer(
    json,
    sent,
    () => `sent ${sent.records} records to ${sent.collector}: ${sent.messages} messages, ${sent.bytes} bytes`,
  );
}

async function* parseRecords(pieces: AsyncIterable<Buffer>): AsyncGenerator<PathRecord> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const piece of pieces) {
    const lines = (rest + decoder.decode(piece, { stream: true })).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) yield JSON.parse(line);
  }
}
