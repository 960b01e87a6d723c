/** Does each thing that may need a right, with the rights it was started with, and prints what came of each as JSON. */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { objectFile } from '../../src/datapath.js';
import { loadNative } from '../../src/native.js';

const [, , folder = '', task = 'try'] = process.argv;
/** Of lo, in every network namespace. */
const ifindex = 1;
const native = loadNative();
const outcomes: Record<string, string> = {};

/** Remembers `ok` or the name of the error. */
function attempt<T>(what: string, action: () => T): T | null {
  try {
    const result = action();
    outcomes[what] = 'ok';
    return result;
  } catch (error) {
    outcomes[what] = (error as { code?: string }).code ?? (error as Error).message;
    return null;
  }
}

/** What the first run, with all rights, leaves for those with fewer. */
const pinned = { table: join(folder, 'table'), program: join(folder, 'program'), link: join(folder, 'link') };

const object = native.openObject(objectFile);
attempt('load the programs', () => object.load());
if (task === 'prepare') {
  const own = object.program('lsr_ingress');
  object.map('addresses').pin(pinned.table);
  own.pin(pinned.program);
  native.attachTcx(own, ifindex, 'egress').pin(pinned.link);
}

const scratch = join(folder, 'scratch');
attempt('make a folder for pins', () => mkdirSync(scratch));
const table = attempt('open a pinned table', () => native.openPinnedMap(pinned.table));
attempt('read a table', () => table?.entries());
attempt('pin a table', () => table?.pin(join(scratch, 'table')));
attempt('remove pins', () => rmSync(scratch, { recursive: true }));

const program = attempt('open a pinned program', () => native.openPinnedProgram(pinned.program));
const filter = { handle: 1, priority: 0x15c };
if (program) {
  attempt('replace the program of a tcx link', () => native.openPinnedLink(pinned.link).update(program));
  attempt('ask for tcx programs', () => native.queryTcx(ifindex, 'ingress'));
  attempt('attach by tcx', () => native.attachTcx(program, ifindex, 'ingress').close());
  attempt('attach by clsact', () => native.attachFilter(program, ifindex, 'ingress', filter));
  attempt('ask for a clsact filter', () => native.queryFilter(ifindex, 'ingress', filter));
  attempt('detach from clsact', () => native.detachFilter(ifindex, 'ingress', filter));
}
console.log(JSON.stringify(outcomes));
