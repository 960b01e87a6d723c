/** The programs load with exactly the rights that are promised, and not with fewer. */
import { readFileSync } from 'node:fs';
import test from 'ava';
import { type Budgets, budgetsFile, compareCosts, loadWith, measureBudgets } from '../helpers/budgets.js';

/** On any kernel: a fifth of what the verifier allows. */
const VERIFIED_MAX = 200_000;

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

test('the programs cost the verifier what bpf/budgets.json says, give or take a tenth', (t) => {
  const budgets: Budgets = JSON.parse(readFileSync(budgetsFile, 'utf8'));
  const measured = measureBudgets();
  for (const who of ['root', 'promised'] as const) {
    for (const [name, { loaded, verified, peakStates }] of Object.entries(measured[who])) {
      t.log(`${name} (${who}): ${loaded} loaded, ${verified} verified, ${peakStates} states at most`);
      t.true(verified < VERIFIED_MAX);
    }
  }
  if (measured.kernel !== budgets.kernel) {
    t.log(`the budgets are those of kernel ${budgets.kernel}; this one is ${measured.kernel}`);
    return;
  }
  const lines = [
    ...compareCosts('root', budgets.root, measured.root),
    ...compareCosts('promised', budgets.promised, measured.promised),
  ];
  t.deepEqual(lines, [], 'if that is as it should be: `npm run budgets`, and commit bpf/budgets.json');
});

test('a figure more than a tenth above its budget is told, and one more than a tenth below', (t) => {
  const budget = { program: { loaded: 1000, verified: 1000, peakStates: 1000 } };
  const measure = (loaded: number, verified: number) =>
    compareCosts('root', budget, { program: { loaded, verified, peakStates: 1000 } });
  t.deepEqual(measure(1100, 900), []);
  t.deepEqual(measure(1101, 899), [
    'program (root): loaded is 1101, in the budget 1000',
    'program (root): verified is 899, in the budget 1000',
  ]);
  t.is(compareCosts('root', {}, budget).length, 3);
});
