import { type Address, parseAddress } from './address.js';
import { LsrError } from './errors.js';
import { quote } from './finding.js';
import { parseProtocol } from './match.js';
import { protocolNumbers } from './mesh.js';

/** Throws USAGE. */
export function readAddress(name: string, text: string): Address {
  const address = parseAddress(text);
  if (address !== null) return address;
  throw new LsrError('USAGE', `${name} is ${quote(text)}; write an IPv4 address like 10.1.0.10`);
}

/** Null where none is given. Throws USAGE. */
export function readProtocol(protocol: string | number | undefined): number | null {
  if (protocol === undefined) return null;
  const isNumber = typeof protocol === 'string' && /^\d{1,3}$/.test(protocol);
  const number = isNumber ? Number(protocol) : parseProtocol(protocol);
  if (number !== null && Number.isInteger(number) && number >= 0 && number <= 255) return number;
  const names = Object.keys(protocolNumbers).join(', ');
  throw new LsrError('USAGE', `protocol is ${quote(protocol)}; write ${names} or a number from 0 to 255`);
}
