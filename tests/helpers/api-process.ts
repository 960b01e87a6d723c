/** The API's two listeners over an agent that only remembers, in a process of their own; the socket's path is the argument. */
import { pino } from 'pino';
import { openListeners } from '../../src/listener.js';
import { openStore } from '../../src/store.js';
import { fakeAgent } from './fake-agent.js';

const [, , socket = ''] = process.argv;
const store = openStore(`${socket}.db`);
const logger = pino({ level: 'warn' }, pino.destination({ dest: 2, sync: true }));
const { address } = await openListeners(fakeAgent(), { socket, listen: '127.0.0.1:0', store, logger });
console.log(address);
