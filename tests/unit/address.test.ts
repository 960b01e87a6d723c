import test from 'ava';
import fc from 'fast-check';
import {
  formatAddress,
  formatPrefix,
  isLinkLocal,
  isUnicast,
  maskAddress,
  overlapPrefixes,
  parseAddress,
  parsePrefix,
} from '../../src/address.js';

const addresses: [string, number | null][] = [
  ['0.0.0.0', 0],
  ['10.0.0.1', 0x0a000001],
  ['127.255.255.255', 0x7fffffff],
  ['128.0.0.0', 0x80000000],
  ['255.255.255.255', 0xffffffff],
  ['', null],
  ['10', null],
  ['10.0.1', null],
  ['10.0.0.1.1', null],
  ['10.0.0.', null],
  ['010.0.0.1', null],
  ['10.0.0.01', null],
  ['0x7f.0.0.1', null],
  ['256.0.0.1', null],
  ['1e1.0.0.1', null],
  ['-1.0.0.1', null],
  [' 10.0.0.1', null],
  ['10.0.0.1\n', null],
  ['10.0.0.1/32', null],
  ['::ffff:10.0.0.1', null],
  ['١.0.0.1', null],
];
for (const [text, address] of addresses) {
  test(`${JSON.stringify(text)} is ${address === null ? 'no address' : address}`, (t) => {
    t.is(parseAddress(text), address);
    if (address !== null) t.is(formatAddress(address), text);
  });
}

const prefixes: [string, string | null][] = [
  ['10.0.0.0/8', '10.0.0.0/8'],
  ['0.0.0.0/0', '0.0.0.0/0'],
  ['10.0.0.1', '10.0.0.1/32'],
  ['255.255.255.255/32', '255.255.255.255/32'],
  ['128.0.0.0/1', '128.0.0.0/1'],
  ['10.0.0.1/8', null],
  ['10.0.0.0/33', null],
  ['10.0.0.0/08', null],
  ['10.0.0.0/-1', null],
  ['10.0.0.0/', null],
  ['10.0.0.0/8/8', null],
  ['10.0.0.0/8 ', null],
  ['10/8', null],
  ['/8', null],
  ['', null],
];
for (const [text, prefix] of prefixes) {
  test(`${JSON.stringify(text)} is ${prefix === null ? 'no prefix' : `the prefix ${prefix}`}`, (t) => {
    const parsed = parsePrefix(text);
    t.is(parsed && formatPrefix(parsed), prefix);
  });
}

const hosts: [string, boolean, boolean][] = [
  ['0.0.0.0', false, false],
  ['0.255.255.255', false, false],
  ['1.0.0.0', true, false],
  ['126.255.255.255', true, false],
  ['127.0.0.1', false, false],
  ['128.0.0.0', true, false],
  ['169.253.255.255', true, false],
  ['169.254.0.0', true, true],
  ['169.255.0.0', true, false],
  ['223.255.255.255', true, false],
  ['224.0.0.0', false, false],
  ['240.0.0.1', false, false],
  ['255.255.255.255', false, false],
];
for (const [text, unicast, linkLocal] of hosts) {
  test(`${text} is ${unicast ? '' : 'not '}unicast and ${linkLocal ? '' : 'not '}link-local`, (t) => {
    const address = parseAddress(text) ?? Number.NaN;
    t.is(isUnicast(address), unicast);
    t.is(isLinkLocal(address), linkLocal);
  });
}

const anyAddress = fc.integer({ min: 0, max: 0xffffffff });
const anyPrefix = fc
  .tuple(anyAddress, fc.integer({ min: 0, max: 32 }))
  .map(([address, length]) => ({ address: maskAddress(address, length), length }));

test('every address and every prefix is read back as it was written', (t) => {
  fc.assert(fc.property(anyAddress, (address) => parseAddress(formatAddress(address)) === address));
  fc.assert(fc.property(anyPrefix, (prefix) => t.deepEqual(parsePrefix(formatPrefix(prefix)), prefix)));
  t.pass();
});

test('prefixes overlap when their first bits agree as far as both have any', (t) => {
  const bits = ({ address, length }: { address: number; length: number }): string =>
    address.toString(2).padStart(32, '0').slice(0, length);
  fc.assert(
    fc.property(anyPrefix, anyPrefix, (a, b) => {
      const expected = bits(a).startsWith(bits(b)) || bits(b).startsWith(bits(a));
      return overlapPrefixes(a, b) === expected;
    }),
  );
  t.pass();
});
