import test from 'ava';
import { execa } from 'execa';

for (const name of ['hop', 'forward', 'rules', 'change', 'audit', 'mtu']) {
  test.serial(`${name} in its short form comes to an end, and its own checks hold`, async (t) => {
    const command = ['--import', 'tsx', 'bench/bench.ts', name, '--short'];
    const { all, exitCode } = await execa(process.execPath, command, { all: true, reject: false });
    t.is(exitCode, 0, all);
  });
}

test.serial('what is no benchmark is refused', async (t) => {
  const command = ['--import', 'tsx', 'bench/bench.ts', 'nothing', '--short'];
  const { stderr, exitCode } = await execa(process.execPath, command, { reject: false });
  t.is(exitCode, 2);
  t.regex(stderr, /"nothing" is no benchmark; there are:\s+hop/);
});
