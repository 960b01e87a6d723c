import { type Command, Option } from 'commander';
import { LsrError } from '../errors.js';
import { printAnswer } from '../output.js';

interface AuditOptions {
  json?: boolean;
  mesh: string;
  keys?: string;
  chain?: string;
  verdict?: string;
}

/** `lsr-agent audit`: what a capture shows of the chains of a mesh; needs no agent, no rights, and changes nothing. */
export function addAuditCommand(program: Command): void {
  program
    .command('audit')
    .description('judges the packets of a capture (pcap, pcapng) as the agents of a mesh would')
    .argument('<capture>', 'the file; - for standard input')
    .requiredOption('--mesh <file>', 'the mesh document, YAML or JSON')
    .option('--keys <file>', 'the integrity keys, mode 0600: tags are checked')
    .option('--chain <name>', 'only records and violations of this chain: what is forged may be of none')
    .addOption(
      new Option('--verdict <verdict>', 'only records and violations with this verdict').choices([
        ...['complete', 'partial', 'detour', 'skipped', 'truncated', 'forged'],
      ]),
    )
    .addHelpText(
      'after',
      '\nExits with 1 where there are violations.\n\nExample:\n  $ tcpdump -i any -w - | lsr-agent audit - --mesh mesh.yaml',
    )
    .action(auditFile);
}

async function auditFile(file: string, _options: unknown, command: Command): Promise<void> {
  const { json = false, mesh: meshFile, keys, ...filter } = command.optsWithGlobals<AuditOptions>();
  if (file === '-' && meshFile === '-')
    throw new LsrError('USAGE', 'the capture and --mesh cannot both be standard input; give one as a file');
  const [{ loadMesh }, { loadKeys }, { auditCapture }, { formatAudit }] = await Promise.all([
    import('../mesh-file.js'),
    import('../keys.js'),
    import('../capture-audit.js'),
    import('../audit-text.js'),
  ]);
  const { mesh } = loadMesh(meshFile);
  const report = auditCapture(file, mesh, keys === undefined ? null : loadKeys(keys), filter);
  printAnswer(json, report, () => formatAudit(report));
  if (report.violations.length > 0) process.exitCode = 1;
}
