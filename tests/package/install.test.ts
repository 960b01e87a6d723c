import test from 'ava';
import { execa } from 'execa';

test('the package installs in a fresh Debian 12, its daemon becomes ready there, and nothing of it is left when it is purged', async (t) => {
  const { all, exitCode } = await execa('bash', ['scripts/check-package'], { all: true, reject: false });
  t.is(exitCode, 0, all);
});
