/** `unshare --net` has given this process a network namespace of its own. */
import { execFileSync } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import test, { type ExecutionContext } from 'ava';
import { watchPorts } from '../../src/port-watch.js';

const change = (): void => {
  mtu += 1;
  execFileSync('ip', ['link', 'set', 'lo', 'mtu', String(mtu)]);
};
let mtu = 2000;

/** Refreshes end when the test says so; `begun` tells of each that begins. */
function openWatch(t: ExecutionContext) {
  const events = new EventEmitter();
  const seen = { begun: 0, running: 0, most: 0 };
  const watch = watchPorts(async () => {
    const ended = once(events, 'end');
    seen.begun++;
    seen.running++;
    seen.most = Math.max(seen.most, seen.running);
    events.emit('begun');
    const [settled] = await ended;
    seen.running--;
    return settled;
  });
  t.teardown(() => {
    events.on('begun', () => events.emit('end', true));
    events.emit('end', true);
    return watch.close();
  });
  return {
    seen,
    watch,
    begun: () => once(events, 'begun'),
    end: (settled: boolean) => events.emit('end', settled),
  };
}

test.serial('there is a refresh at the start, one for a burst, and never two at a time', async (t) => {
  const { seen, begun, end } = openWatch(t);
  await begun();
  for (let i = 0; i < 5; i++) change();
  const next = begun();
  end(true);
  await next;
  t.deepEqual(seen, { begun: 2, running: 1, most: 1 });
  const last = begun();
  change();
  end(true);
  await last;
  t.deepEqual(seen, { begun: 3, running: 1, most: 1 });
  end(true);
});

test.serial('a change during a refresh is followed by another one', async (t) => {
  const { seen, begun, end } = openWatch(t);
  await begun();
  change();
  const next = begun();
  end(true);
  await next;
  t.is(seen.begun, 2);
});

test.serial('what could not be done is tried again without a change', async (t) => {
  const { seen, begun, end } = openWatch(t);
  await begun();
  const next = begun();
  end(false);
  await next;
  t.is(seen.begun, 2);
});

test.serial('close waits for the refresh that is under way, and none follows', async (t) => {
  const { seen, watch, begun, end } = openWatch(t);
  await begun();
  change();
  let isClosed = false;
  const closed = watch.close().then(() => (isClosed = true));
  await new Promise((resolve) => setImmediate(resolve));
  t.false(isClosed);
  end(false);
  await closed;
  t.is(seen.begun, 1);
});
