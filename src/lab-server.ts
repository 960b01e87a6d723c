import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';

// The lab's web server: a program of its own, started in the namespace `server`.
const readyFile = process.argv[2];
const server = createServer({ keepAlive: false }, (request, response) => {
  const { remoteAddress, remotePort } = request.socket;
  response.setHeader('connection', 'close');
  response.end(`Hello from the server. You are ${remoteAddress}, port ${remotePort}.\n`);
});
server.listen(80, '0.0.0.0', () => {
  if (readyFile !== undefined) writeFileSync(readyFile, '');
});
