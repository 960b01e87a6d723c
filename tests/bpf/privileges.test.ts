/** The programs load with exactly the rights that are promised, and not with fewer. */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { objectFile } from '../../src/datapath.js';
import { loadNative } from '../../src/native.js';

const loader = fileURLToPath(new URL('../helpers/load-object.ts', import.meta.url));

/** Root in name, for the files' sake, with these capabilities and no others. */
function loadWith(capabilities: readonly string[]): string {
  const set = ['-all', ...capabilities.map((name) => `+${name}`)].join(',');
  const rights = [`--inh-caps=${set}`, `--bounding-set=${set}`];
  const node = [process.execPath, '--import', 'tsx', loader];
  return execFileSync('setpriv', [...rights, ...node], { encoding: 'utf8' });
}

test('with CAP_BPF and CAP_NET_ADMIN both programs load', (t) => {
  const loaded = JSON.parse(loadWith(['bpf', 'net_admin']));
  t.is(BigInt(`0x${loaded.effective}`), (1n << 39n) | (1n << 12n));
  t.deepEqual(
    loaded.programs.map(({ name }: { name: string }) => name),
    ['lsr_ingress', 'lsr_egress'],
  );
});

for (const missing of [['bpf'], ['net_admin'], []]) {
  test(`with ${missing.join(', ') || 'no capability'} alone they do not`, (t) => {
    t.regex(JSON.parse(loadWith(missing)).error, /EPERM/);
  });
}

test('as root both programs load, and the verifier does not walk far', (t) => {
  const object = loadNative().openObject(objectFile);
  object.load();
  for (const name of ['lsr_ingress', 'lsr_egress']) {
    const program = object.program(name);
    const { verifiedInstructions, jitedBytes, translatedBytes } = program.info;
    t.log(
      `${name}: ${verifiedInstructions} instructions verified, ${translatedBytes / 8} loaded, ${jitedBytes} bytes of machine code`,
    );
    t.true(verifiedInstructions < 200_000);
    program.close();
  }
  object.close();
});
