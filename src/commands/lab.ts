import { Argument, type Command } from 'commander';

/** `lsr-agent lab up|down|run`: six hosts as network namespaces of this one. */
export function addLabCommand(program: Command): void {
  const lab = program
    .command('lab')
    .description('a whole mesh in network namespaces of this host: client, edge, fw, ids, gw, server')
    .addHelpText('after', '\nExample:\n  # lsr-agent lab run');
  lab
    .command('up')
    .description('build it, leave it standing, and print what to try')
    .addHelpText('after', '\nExample:\n  # lsr-agent lab up')
    .action(async () => (await import('../lab.js')).labUp());
  lab
    .command('down')
    .description('remove it, also what is left of a broken one')
    .addHelpText('after', '\nExample:\n  # lsr-agent lab down')
    .action(async () => (await import('../lab.js')).labDown());
  lab
    .command('run')
    .description('build one, show it at work, remove it')
    .addArgument(
      new Argument(
        '[what]',
        'chain: a request without and with a chain; functions: a firewall, and a host that dies; ' +
          'audit: what the records say when things go wrong',
      )
        .choices(['chain', 'functions', 'audit'])
        .default('chain'),
    )
    .addHelpText('after', '\nExample:\n  # lsr-agent lab run functions')
    .action(async (what: 'chain' | 'functions' | 'audit') => (await import('../lab.js')).labRun(what));
}
