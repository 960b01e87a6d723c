import test from 'ava';
import { deriveMesh } from '../../src/derive.js';
import type { Mesh } from '../../src/mesh.js';
import { renderMesh } from '../../src/render.js';

const letters = [...'abcdefghijklmn'];

const meshOf = (chain: Partial<Mesh['chains'][string]>, services: Mesh['services'] = {}): Mesh => ({
  version: 1,
  nodes: {
    edge: { address: '10.0.0.1' },
    ...Object.fromEntries(letters.map((name, i) => [name, { address: `10.0.1.${i + 1}` }])),
  },
  services,
  chains: { web: { hops: letters, ...chain } },
  rules: [
    {
      name: 'in',
      at: ['edge'],
      priority: 7,
      match: {
        source: '10.1.0.0/24',
        destination: '10.9.0.0/24',
        protocol: 'tcp',
        destinationPorts: [80],
        dscp: 3,
        mark: 5,
      },
      chain: 'web',
    },
  ],
});

test('a chain of 14 hops is two segments: the second begins where the first ends', (t) => {
  const { chains } = renderMesh(meshOf({}));
  t.deepEqual(
    chains.map(({ name, at, next, onward, segment, segments, path }) => ({
      name,
      at,
      next,
      onward,
      segment,
      segments,
      hops: path.hops.map(({ node }) => node).join(''),
    })),
    [
      { name: 'web', at: ['edge'], next: 'web/2', onward: true, segment: 1, segments: 2, hops: 'abcdefg' },
      { name: 'web/2', at: ['g'], next: null, onward: false, segment: 2, segments: 2, hops: 'hijklmn' },
    ],
  );
  t.deepEqual(chains[0]?.destinations, chains[1]?.destinations);
});

test('no segment ends at a function of the stack', (t) => {
  const services = Object.fromEntries(
    ['g', 'h'].map((name) => [`s${name}`, { nodes: [name], function: 'stack' as const }]),
  );
  const hops = letters.map((name) => (name === 'g' || name === 'h' ? `s${name}` : name));
  const { chains } = renderMesh(meshOf({ hops }, services));
  t.deepEqual(
    chains.map(({ path }) => path.hops.map(({ node }) => node).join('')),
    ['abcdef', 'ghijklmn'],
  );
});

test('a function that loses options ends a segment, and what comes back is classified by the same rules', (t) => {
  const services: Mesh['services'] = {
    lossy: { nodes: ['b'], function: 'inline', device: 'f0', options: 'stripped' },
  };
  const { mesh, chains } = deriveMesh(meshOf({ hops: ['a', 'lossy', 'c'] }, services));
  t.deepEqual(mesh.chains['web/2']?.hops, ['c']);
  t.false(chains.get('web')?.onward);
  t.deepEqual(
    mesh.rules.find(({ chain }) => chain === 'web/2'),
    {
      name: 'in/2',
      at: ['b'],
      from: ['function'],
      priority: 7,
      match: { source: '10.1.0.0/24', destination: '10.9.0.0/24', protocol: 'tcp', destinationPorts: [80] },
      chain: 'web/2',
    },
  );
});

test('the way back has the hops in the other order, ends at the edge, and matches the answers', (t) => {
  const { mesh } = deriveMesh(meshOf({ hops: ['a', 'b', 'c'], return: 'symmetric', record: 2 }));
  t.like(mesh.chains['web/return'], { hops: ['b', 'a', 'edge'], record: 2 });
  t.deepEqual(
    mesh.rules.find(({ chain }) => chain === 'web/return'),
    {
      name: 'in/return',
      at: ['c'],
      from: ['edge', 'local'],
      priority: 7,
      match: { source: '10.9.0.0/24', destination: '10.1.0.0/24', protocol: 'tcp', sourcePorts: [80] },
      chain: 'web/return',
    },
  );
});

test('on the way back an inline function is entered where it was left', (t) => {
  const services: Mesh['services'] = {
    box: {
      nodes: ['a'],
      function: 'inline',
      device: 'f0',
      returnDevice: 'f1',
      via: '10.3.0.1',
      returnVia: '10.3.1.1',
    },
  };
  const { mesh } = deriveMesh(meshOf({ hops: ['box', 'c'], return: 'symmetric' }, services));
  t.deepEqual(mesh.chains['web/return']?.hops, ['box/return', 'edge']);
  t.like(mesh.services?.['box/return'], {
    device: 'f1',
    returnDevice: 'f0',
    via: '10.3.1.1',
    returnVia: '10.3.0.1',
  });
});

test('a document without any of that stays as it is', (t) => {
  const document = meshOf({ hops: ['a', 'b'] });
  t.deepEqual(deriveMesh(document).mesh, {
    ...document,
    chains: { web: { hops: ['a', 'b'], return: 'direct' } },
  });
});
