import test from 'ava';
import { calmMs, dampingMax, defaultHealth, type Health, newHealth, observeProbe } from '../../src/health.js';

/** Feeds probes, one every 200 ms: + answered, - missed; returns the state after each as + or -. */
function feed(
  probes: string,
  health: Health = newHealth(defaultHealth),
  from = 0,
): { states: string; health: Health } {
  let states = '';
  let now = from;
  let state = health;
  for (const probe of probes) {
    now += defaultHealth.interval;
    state = observeProbe(state, probe === '+', defaultHealth, now);
    states += state.up ? '+' : '-';
  }
  return { states, health: state };
}

const cases: [title: string, probes: string, states: string][] = [
  ['three missed in a row bring it down', '++---', '++++-'],
  ['an answer in between begins the count anew', '--+--+--', '++++++++'],
  ['three answers in a row bring it up again', '---+++', '++---+'],
  ['one missed in between begins that count anew', '---++-+++', '++------+'],
];

for (const [title, probes, states] of cases) {
  test(title, (t) => t.is(feed(probes).states, states));
}

test('a path that goes down again soon has to answer twice as many each time', (t) => {
  let { health } = feed('---');
  for (const wanted of [3, 6, 12, 24, 48, 96, 96]) {
    t.is(health.wanted, wanted);
    const { states, health: up } = feed('+'.repeat(wanted), health, 1000);
    t.is(states, `${'-'.repeat(wanted - 1)}+`);
    health = feed('---', up, 1000).health;
  }
  t.is(health.wanted, defaultHealth.up * dampingMax);
});

test('after a calm time it is trusted as before', (t) => {
  const once = feed('---+++---', newHealth(defaultHealth)).health;
  t.is(once.wanted, 6);
  const up = feed('++++++', once).health;
  t.is(feed('---', up, (once.wentDown ?? 0) + calmMs).health.wanted, 3);
});
