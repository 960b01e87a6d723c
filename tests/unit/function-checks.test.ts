import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import test from 'ava';
import { FunctionChecks } from '../../src/function-checks.js';

test('a function that fails three times in a row is unwell, and well again after three answers', async (t) => {
  let status = 200;
  const server = createServer((_request, response) => response.writeHead(status).end());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const closed = createServer().listen(0, '127.0.0.1');
  await once(closed, 'listening');
  const { port: nobody } = closed.address() as AddressInfo;
  await new Promise((resolve) => closed.close(resolve));

  let changed = (): void => undefined;
  const change = (): Promise<void> =>
    new Promise((resolve) => {
      changed = resolve;
    });
  const checks = new FunctionChecks(() => changed(), 200);
  const first = change();
  const url = `http://127.0.0.1:${port}/health`;
  checks.follow(
    new Map([
      ['web', { http: url }],
      ['port', { tcp: port }],
      ['gone', { tcp: nobody }],
    ]),
  );
  t.is(checks.unwell.size, 0);
  await first;
  t.deepEqual([...checks.unwell.keys()], ['gone']);
  t.regex(checks.unwell.get('gone') ?? '', /ECONNREFUSED/);

  const second = change();
  status = 503;
  await second;
  t.is(checks.unwell.get('web'), `${url} answers 503`);
  const third = change();
  status = 204;
  await third;
  t.deepEqual([...checks.unwell.keys()], ['gone']);
  checks.close();
  server.close();
});
