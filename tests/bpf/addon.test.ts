import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { type BpfMap, type BpfObject, loadNative, type NativeError } from '../../src/native.js';
import { compileBpf } from '../helpers/bpf-object.js';
import { mountBpffs } from '../helpers/bpffs.js';

const native = loadNative();
const folder = mkdtempSync(join(tmpdir(), 'lsr-addon-'));
const bpffs = mountBpffs();
test.after.always(() => {
  bpffs.remove();
  rmSync(folder, { recursive: true, force: true });
});
const file = compileBpf('addon.bpf.c', folder);
const packet = Buffer.alloc(60, 0x5a);
const filter = { handle: 1, priority: 0x15c };

test('an object lists its maps as they will be made', (t) => {
  const object = openObject(t);
  t.deepEqual(object.maps(), [
    { name: 'array', type: 2, keySize: 4, valueSize: 32, maxEntries: 4 },
    { name: 'chosen', type: 12, keySize: 4, valueSize: 4, maxEntries: 1 },
    { name: 'devices', type: 25, keySize: 4, valueSize: 4, maxEntries: 64 },
    { name: 'even', type: 1, keySize: 4, valueSize: 8, maxEntries: 64 },
    { name: 'events', type: 27, keySize: 0, valueSize: 0, maxEntries: 1 << 18 },
    { name: 'hash', type: 1, keySize: 4, valueSize: 8, maxEntries: 5000 },
    { name: 'odd', type: 9, keySize: 3, valueSize: 5, maxEntries: 256 },
    { name: 'odd_one', type: 1, keySize: 4, valueSize: 8, maxEntries: 64 },
    { name: 'per_cpu', type: 6, keySize: 4, valueSize: 12, maxEntries: 2 },
    { name: 'per_cpu_hash', type: 5, keySize: 4, valueSize: 4, maxEntries: 64 },
    { name: 'queue', type: 22, keySize: 0, valueSize: 4, maxEntries: 4 },
    { name: 'trie', type: 11, keySize: 8, valueSize: 4, maxEntries: 1024 },
  ]);
});

test('a capacity that is set before the load is that of the map', (t) => {
  const object = openObject(t);
  object.disableProgram('broken');
  object.setMaxEntries('hash', 6000);
  object.load();
  const { id, ...info } = useMap(t, object, 'hash').info;
  t.true(id > 0);
  t.deepEqual(info, { name: 'hash', type: 1, keySize: 4, valueSize: 8, maxEntries: 6000, flags: 1 });
});

test("a measured load tells the verifier's statistics of each program", (t) => {
  const object = openObject(t);
  object.disableProgram('broken');
  for (const [name, statistics] of Object.entries(object.loadMeasured())) {
    if (name !== 'broken') t.regex(statistics, /^processed \d+ insns .* peak_states \d+ /m, name);
  }
  t.true(useMap(t, object, 'hash').info.id > 0);
  t.throws(() => object.load(), { message: /was called already/ });
  const broken = t.throws<NativeError>(() => openObject(t).loadMeasured());
  t.is(broken?.operation, 'loadMeasured');
  t.is(broken?.code, 'EACCES');
});

test("a program that the verifier refuses fails the load with the verifier's log", (t) => {
  const object = openObject(t);
  const error = t.throws<NativeError>(() => object.load());
  t.is(error?.code, 'EACCES');
  t.is(error?.errno, 13);
  t.is(error?.operation, 'load');
  t.regex(
    error?.message ?? '',
    /^load .*: EACCES, Permission denied \(prog 'broken': BPF program load failed/,
  );
  t.regex(error?.log ?? '', /return data\[100\];[\s\S]*invalid access to packet, off=100 size=1/);
  t.throws(() => object.load(), { message: /was called already/ });
  t.throws(() => object.map('hash'), { message: /not in the kernel/ });
});

test('nothing is printed, neither by a load nor by a failure', (t) => {
  const run = runNode(`
    const object = native.openObject(${JSON.stringify(file)});
    try { object.load(); } catch {}
    try { native.openObject('/etc/hostname'); } catch {}
    try { native.attachFilter(object, 1, 'ingress', {}); } catch {}
  `);
  t.deepEqual(run, { status: 0, stdout: '', stderr: '' });
});

const refusals: [title: string, call: (object: BpfObject) => unknown, code: string | undefined, RegExp][] = [
  ['a missing object', () => native.openObject('/nowhere.o'), 'ENOENT', /openObject \/nowhere\.o: ENOENT/],
  ['a file that is no object', () => native.openObject('/etc/passwd'), 'LIBBPF_FORMAT', /not a proper ELF/],
  ['BTF of a missing file', () => native.btfTypes('/nowhere.o'), 'ENOENT', /btfTypes \/nowhere\.o/],
  ['BTF of a file that is no object', () => native.btfTypes('/etc/passwd'), 'LIBBPF_FORMAT', /btfTypes/],
  ['a missing pin', () => native.openPinnedMap(join(bpffs.folder, 'none')), 'ENOENT', /none: ENOENT/],
  ['a map name that is not in the file', (object) => object.map('none'), undefined, /has no map 'none'/],
  [
    'a program name that is not in the file',
    (object) => object.program('none'),
    undefined,
    /has no program 'none'/,
  ],
  ['a disabled program', (object) => object.program('broken'), 'EBADF', /broken: it is not in the kernel/],
  ['a change after the load', (object) => object.setMaxEntries('hash', 1), undefined, /was called already/],
  ['a pin outside bpffs', (object) => object.map('hash').pin(join(folder, 'pin')), 'EPERM', /pin .*: EPERM/],
  [
    'an index beyond an array',
    (object) => object.map('array').put(u32(4), Buffer.alloc(32)),
    'E2BIG',
    /put array/,
  ],
  ['the removal of an array entry', (object) => object.map('array').delete(u32(0)), 'EINVAL', /delete array/],
  ['the entries of a map without keys', (object) => object.map('queue').entries(), 'EINVAL', /no keys/],
  [
    'a packet without room for Ethernet',
    (object) => object.program('marks').testRun({ data: Buffer.alloc(3) }),
    'EINVAL',
    /3 bytes of data/,
  ],
  [
    'an interface that does not exist',
    (object) => native.attachFilter(object.program('passes'), 9999, 'egress', filter),
    'ENODEV',
    /ifindex 9999 egress, handle 1/,
  ],
];
for (const [title, call, code, message] of refusals) {
  test(`an Error comes back for ${title}`, (t) => {
    t.is(t.throws<Partial<NativeError> & Error>(() => call(loadObject(t)), { message })?.code, code);
  });
}

const misuses: [title: string, call: (object: BpfObject) => unknown, message: string | RegExp][] = [
  ['a short key', (o) => o.map('hash').get(Buffer.alloc(3)), 'key must have 4 bytes, not 3'],
  ['a long key', (o) => o.map('hash').delete(Buffer.alloc(5)), 'key must have 4 bytes, not 5'],
  ['a key where there is none', (o) => o.map('queue').take(u32(0)), 'key must have 0 bytes, not 4'],
  ['a short value', (o) => o.map('hash').put(u32(0), Buffer.alloc(7)), 'value must have 8 bytes, not 7'],
  [
    'a value for one CPU only',
    (o) => o.map('per_cpu').put(u32(0), Buffer.alloc(12)),
    `value must have ${16 * native.possibleCpus()} bytes, not 12`,
  ],
  [
    'a broken row of keys',
    (o) => o.map('hash').deleteBatch(Buffer.alloc(6)),
    'keys must have a multiple of 4 bytes, not 6',
  ],
  [
    'fewer values than keys',
    (o) => o.map('hash').putBatch(Buffer.alloc(8), Buffer.alloc(8)),
    'values must have 16 bytes, not 8',
  ],
  ['a key that is text', (o) => o.map('hash').get('text' as never), "key must be a Uint8Array, not 'text'"],
  [
    'a key of wider numbers',
    (o) => o.map('hash').get(new Uint32Array(1) as never),
    'key must be a Uint8Array, not an object',
  ],
  ['an unknown mode', (o) => o.map('hash').put(u32(0), u64(0), 'maybe' as never), /^mode must be/],
  [
    'an unknown direction',
    (o) => native.attachTcx(o.program('passes'), 1, 'up' as never),
    "direction must be 'ingress' or 'egress', not 'up'",
  ],
  [
    'a map for a program',
    (o) => native.attachTcx(o.map('hash') as never, 1, 'ingress'),
    'expected a BpfProgram',
  ],
  [
    'an object with the right prototype',
    (o) => native.attachTcx(Object.create(o.program('passes')), 1, 'ingress'),
    'expected a BpfProgram',
  ],
  [
    'a negative ifindex',
    () => native.queryTcx(-1, 'ingress'),
    'ifindex must be an integer from 1 to 2147483647, not -1',
  ],
  [
    'a fractional priority',
    () => native.queryFilter(1, 'ingress', { handle: 1, priority: 1.5 }),
    /^priority must be an integer from 1 to 65535, not 1.5/,
  ],
  [
    'a filter without a handle',
    () => native.detachFilter(1, 'ingress', { priority: 1 } as never),
    /^handle must be an integer from 1 /,
  ],
  ['a path with a NUL byte', () => native.openPinnedMap('/a\0b'), 'path must not contain a NUL byte'],
  [
    'a ring buffer of a hash map',
    (o) => native.openRingBuffer(o.map('hash'), () => {}),
    'map hash has type 1, a ring buffer has 27',
  ],
  [
    'a ring buffer without a function',
    (o) => native.openRingBuffer(o.map('events'), undefined as never),
    'onRecord must be a function',
  ],
];
for (const [title, call, message] of misuses) {
  test(`a TypeError comes back for ${title}`, (t) => {
    t.throws(() => call(loadObject(t)), { instanceOf: TypeError, message });
  });
}

test('a method on an object of another class is refused', (t) => {
  const object = loadObject(t);
  const map = useMap(t, object, 'hash');
  t.throws(() => map.get.call(object as never, u32(0)), { instanceOf: TypeError });
  t.throws(() => new (map.constructor as new () => BpfMap)().info, { message: /is closed/ });
});

test('an entry is put, read, kept, replaced, taken and removed', (t) => {
  const map = useMap(t, loadObject(t), 'hash');
  t.is(map.get(u32(1)), null);
  map.put(u32(1), u64(10));
  t.deepEqual(map.get(u32(1)), u64(10));
  t.like(
    t.throws<NativeError>(() => map.put(u32(1), u64(11), 'noexist')),
    { code: 'EEXIST' },
  );
  t.like(
    t.throws<NativeError>(() => map.put(u32(2), u64(11), 'exist')),
    { code: 'ENOENT' },
  );
  map.put(u32(1), u64(12), 'exist');
  t.deepEqual(map.take(u32(1)), u64(12));
  t.is(map.take(u32(1)), null);
  t.false(map.delete(u32(1)));
  map.put(u32(1), u64(13), 'noexist');
  t.true(map.delete(u32(1)));
});

test('the value of a per-CPU map is that of all possible CPUs, each on 8 bytes', (t) => {
  const map = useMap(t, loadObject(t), 'per_cpu');
  const cpus = native.possibleCpus();
  const value = Buffer.alloc(16 * cpus);
  for (let cpu = 0; cpu < cpus; cpu++) value.fill(cpu + 1, cpu * 16, cpu * 16 + 12);
  t.deepEqual(map.get(u32(0)), Buffer.alloc(16 * cpus));
  map.put(u32(1), value);
  t.deepEqual(map.get(u32(1)), value);
});

const tables: [map: string, keys: Buffer[], value: (i: number) => Buffer, batches: (number | undefined)[]][] =
  [
    // With one entry a call a bucket of two is too large for it: ENOSPC.
    ['hash', rowsOf(5000, u32), u64, [undefined, 1, 7, 100_000]],
    ['hash', [], u64, [undefined, 1]],
    ['odd', rowsOf(100, (i) => u32(i).subarray(0, 3)), (i) => Buffer.alloc(5, i), [undefined, 1]],
    ['trie', rowsOf(1024, (i) => Buffer.concat([u32(32), u32(i)])), u32, [undefined, 1, 100]],
    ['trie', [], u32, [undefined]],
    ['array', rowsOf(4, u32), (i) => Buffer.alloc(32, i), [undefined, 1, 3]],
    ['per_cpu', rowsOf(2, u32), (i) => perCpu(12, i), [undefined, 1]],
    ['per_cpu_hash', rowsOf(64, u32), (i) => perCpu(4, i), [undefined, 1]],
    ['devices', rowsOf(64, u32), () => u32(1), [undefined]],
  ];
for (const [name, keys, value, batches] of tables) {
  test(`a ${name} map of ${keys.length} entries is written and read as a whole`, (t) => {
    const map = useMap(t, loadObject(t), name);
    const values = keys.map((_, i) => value(i));
    map.putBatch(Buffer.concat(keys), Buffer.concat(values));
    const wanted = sortRows(keys.map((key, i) => [key, values[i] ?? Buffer.alloc(0)]));
    for (const batch of batches) t.deepEqual(sortRows(readRows(map, batch)), wanted, `batch ${batch}`);
  });
}

test('keys are removed together, and those that are not there do not count', (t) => {
  const object = loadObject(t);
  for (const [name, value] of [
    ['hash', u64(1)],
    ['devices', u32(1)],
  ] as const) {
    const map = useMap(t, object, name);
    for (const key of [1, 2, 3, 4]) map.put(u32(key), value);
    t.is(map.deleteBatch(Buffer.concat([9, 1, 8, 7, 3, 4, 9].map(u32))), 3, name);
    t.deepEqual(
      readRows(map).map(([key]) => key),
      [u32(2)],
      name,
    );
    t.is(map.deleteBatch(Buffer.alloc(0)), 0, name);
  }
});

test('a map that gets full says how far it came, and keeps what it had', (t) => {
  const object = openObject(t);
  object.disableProgram('broken');
  object.setMaxEntries('hash', 10);
  object.load();
  const map = useMap(t, object, 'hash');
  const write = () => map.putBatch(Buffer.concat(rowsOf(20, u32)), Buffer.concat(rowsOf(20, u64)));
  const error = t.throws<NativeError>(write, { message: /^putBatch hash, after 10 of 20 entries: E2BIG/ });
  t.is(error?.code, 'E2BIG');
  t.is(map.entries().count, 10);
});

test('a hash map can be read and emptied in parts', (t) => {
  const map = useMap(t, loadObject(t), 'hash');
  map.putBatch(Buffer.concat(rowsOf(1000, u32)), Buffer.concat(rowsOf(1000, u64)));
  const seen = new Set<number>();
  for (let parts = 0; ; parts++) {
    const { keys, values, count } = map.some(64);
    if (count === 0) break;
    t.true(count <= 64 && parts < 100);
    for (let i = 0; i < count; i++) {
      const key = keys.readUInt32LE(i * 4);
      t.false(seen.has(key));
      t.is(Number(values.readBigUInt64LE(i * 8)), key);
      seen.add(key);
    }
    t.is(map.deleteBatch(keys), count);
  }
  t.is(seen.size, 1000);
  t.deepEqual(map.some(1), { keys: Buffer.alloc(0), values: Buffer.alloc(0), count: 0 });
});

test('an array of maps names the one that was put there', (t) => {
  const object = loadObject(t);
  const [chosen, even, odd] = ['chosen', 'even', 'odd_one'].map((name) => useMap(t, object, name));
  t.is(chosen?.get(u32(0))?.readUInt32LE(), even?.info.id);
  chosen?.putMap(u32(0), odd as BpfMap);
  t.is(chosen?.get(u32(0))?.readUInt32LE(), odd?.info.id);
});

test('a load takes existing maps over, by handle or by pin, with what is in them', (t) => {
  const first = loadObject(t);
  const hash = useMap(t, first, 'hash');
  const pin = makePin(t, 'reused');
  hash.put(u32(1), u64(77));
  hash.pin(pin);

  const second = openObject(t);
  second.disableProgram('broken');
  second.reusePinned('hash', pin);
  second.reuseMap('array', useMap(t, first, 'array'));
  second.load();
  t.is(useMap(t, second, 'hash').info.id, hash.info.id);
  t.deepEqual(useMap(t, second, 'hash').get(u32(1)), u64(77));
  t.is(useMap(t, second, 'array').info.id, useMap(t, first, 'array').info.id);
  t.not(useMap(t, second, 'odd').info.id, useMap(t, first, 'odd').info.id);
});

test('a map that does not fit is not taken over, and the error says in what', (t) => {
  const first = loadObject(t);
  const pin = makePin(t, 'odd');
  useMap(t, first, 'odd').pin(pin);
  const object = openObject(t);
  t.like(
    t.throws<NativeError>(() => object.reusePinned('hash', pin)),
    {
      code: 'EINVAL',
      message:
        `reusePinned hash from ${pin}: the map there does not fit, type is 9 and must be 1, keySize is 3 and must be 4, ` +
        'valueSize is 5 and must be 8, maxEntries is 256 and must be 5000, flags is 0 and must be 1',
    },
  );
  object.setMaxEntries('hash', 5001);
  t.throws(() => object.reuseMap('hash', useMap(t, first, 'hash')), {
    message: 'reuseMap hash: the map there does not fit, maxEntries is 5000 and must be 5001',
  });
});

test('a pin opens what was pinned, and as nothing else', (t) => {
  const object = loadObject(t);
  const [mapPin, programPin] = [makePin(t, 'map'), makePin(t, 'program')];
  useMap(t, object, 'hash').pin(mapPin);
  const program = object.program('passes');
  program.pin(programPin);
  const opened = native.openPinnedProgram(programPin);
  t.deepEqual(opened.info, program.info);
  t.deepEqual(opened.testRun({ data: packet }).data, packet);
  opened.close();
  program.close();
  t.throws(() => native.openPinnedMap(programPin), { message: /: a prog is pinned there, not a map$/ });
  t.throws(() => native.openPinnedProgram(mapPin), { message: /: a map is pinned there, not a prog$/ });
  t.throws(() => native.openPinnedLink(mapPin), { message: /: a map is pinned there, not a link$/ });
});

test('a test run returns value, packet, context and time', (t) => {
  const object = loadObject(t);
  const program = object.program('marks');
  const context = Buffer.alloc(192);
  context.writeUInt32LE(41, 8); // __sk_buff.mark
  const run = program.testRun({ data: packet, context, repeat: 100 });
  t.is(run.returnValue, 41 + 99);
  t.deepEqual(run.data, packet);
  t.is(run.context?.readUInt32LE(8), 41 + 100);
  t.true(run.durationNs > 0);
  t.is(useMap(t, object, 'array').get(u32(0))?.readBigUInt64LE(), 100n);
  t.is(program.testRun({ data: packet }).context, null);
  program.close();
});

test('a packet that grows comes back whole, or the error says what it needs', (t) => {
  const program = loadObject(t).program('grows');
  t.deepEqual(program.testRun({ data: packet }).data, Buffer.concat([packet, Buffer.alloc(40)]));
  t.throws(() => program.testRun({ data: packet, outputSize: 70 }), {
    message: 'testRun left 100 bytes of data, and outputSize is 70',
  });
  program.close();
});

test("a program's description has the verifier's count", (t) => {
  const program = loadObject(t).program('marks');
  const { id, tag, translatedBytes, jitedBytes, verifiedInstructions, ...rest } = program.info;
  t.deepEqual(rest, { name: 'marks', type: 3 });
  t.regex(tag, /^[0-9a-f]{16}$/);
  for (const number of [id, translatedBytes, verifiedInstructions]) t.true(number > 0);
  t.true(jitedBytes >= 0);
  program.close();
});

test('a tcx link attaches, is replaced without a gap, outlives its handle by a pin, and detaches', (t) => {
  const { ifindex } = addInterface(t);
  if (native.queryTcx(ifindex, 'ingress') === null) return t.pass('this kernel has no tcx');
  const object = loadObject(t);
  const [passes, marks] = [object.program('passes'), object.program('marks')];
  const attached = () => native.queryTcx(ifindex, 'ingress')?.programIds;
  t.deepEqual(attached(), []);
  const pin = makePin(t, 'link');
  const link = native.attachTcx(passes, ifindex, 'ingress');
  t.deepEqual(attached(), [passes.info.id]);
  t.like(link.info, { programId: passes.info.id, ifindex, type: 11 });
  link.pin(pin);
  link.close();

  const reopened = native.openPinnedLink(pin);
  reopened.update(marks);
  t.is(reopened.info.programId, marks.info.id);
  t.deepEqual(attached(), [marks.info.id]);
  t.deepEqual(native.queryTcx(ifindex, 'egress'), { programIds: [] });

  const second = native.attachTcx(passes, ifindex, 'ingress');
  t.deepEqual(attached(), [marks.info.id, passes.info.id]);
  second.close();
  reopened.detach();
  t.deepEqual(attached(), []);
  t.is(reopened.info.ifindex, 0);
  reopened.close();
});

test('a link of an interface that is gone says so', (t) => {
  const { ifindex, remove } = addInterface(t);
  if (native.queryTcx(ifindex, 'ingress') === null) return t.pass('this kernel has no tcx');
  const program = loadObject(t).program('passes');
  const link = native.attachTcx(program, ifindex, 'egress');
  remove();
  t.is(link.info.ifindex, 0);
  t.like(
    t.throws<NativeError>(() => link.update(program)),
    { code: 'ENOLINK', operation: 'update' },
  );
  t.like(
    t.throws<NativeError>(() => native.queryTcx(ifindex, 'egress')),
    { code: 'ENODEV' },
  );
  link.close();
});

test('a filter makes the qdisc once, is replaced in place, queried and detached', (t) => {
  const { ifindex, name } = addInterface(t);
  const object = loadObject(t);
  const [passes, marks] = [object.program('passes'), object.program('marks')];
  t.is(native.queryFilter(ifindex, 'ingress', filter), null);
  t.false(native.detachFilter(ifindex, 'ingress', filter));
  t.deepEqual(native.attachFilter(passes, ifindex, 'ingress', filter), { qdiscCreated: true });
  t.deepEqual(native.attachFilter(passes, ifindex, 'egress', filter), { qdiscCreated: false });
  t.deepEqual(native.attachFilter(marks, ifindex, 'ingress', filter), { qdiscCreated: false });
  t.deepEqual(native.queryFilter(ifindex, 'ingress', filter), { programId: marks.info.id });
  t.deepEqual(native.queryFilter(ifindex, 'egress', filter), { programId: passes.info.id });
  t.is(native.queryFilter(ifindex, 'ingress', { ...filter, priority: 1 }), null);
  const shown = JSON.parse(
    execFileSync('tc', ['-j', 'filter', 'show', 'dev', name, 'ingress'], { encoding: 'utf8' }),
  );
  const handles = shown.filter(({ options }: { options?: object }) => options);
  t.is(handles.length, 1);
  t.like(handles[0], {
    protocol: 'all',
    pref: filter.priority,
    kind: 'bpf',
    options: { handle: '0x1', 'direct-action': true },
  });

  t.true(native.detachFilter(ifindex, 'ingress', filter));
  t.false(native.detachFilter(ifindex, 'ingress', filter));
  t.is(native.queryFilter(ifindex, 'ingress', filter), null);
});

test('a filter with another handle is neither replaced nor taken for ours', (t) => {
  const { ifindex } = addInterface(t);
  const program = loadObject(t).program('passes');
  native.attachFilter(program, ifindex, 'ingress', { ...filter, handle: 2 });
  t.is(native.queryFilter(ifindex, 'ingress', filter), null);
  t.false(native.detachFilter(ifindex, 'ingress', filter));
  native.attachFilter(program, ifindex, 'ingress', filter);
  t.true(native.detachFilter(ifindex, 'ingress', filter));
  t.deepEqual(native.queryFilter(ifindex, 'ingress', { ...filter, handle: 2 }), {
    programId: program.info.id,
  });
});

test('a filter for egress is refused where an ingress qdisc would run it at ingress', (t) => {
  const { ifindex, name } = addInterface(t);
  execFileSync('tc', ['qdisc', 'add', 'dev', name, 'ingress']);
  const program = loadObject(t).program('passes');
  t.deepEqual(native.attachFilter(program, ifindex, 'ingress', filter), { qdiscCreated: false });
  const error = t.throws<NativeError>(() => native.attachFilter(program, ifindex, 'egress', filter));
  t.is(error?.code, 'EBUSY');
  t.regex(error?.message ?? '', /an ingress qdisc, which has no egress/);
  t.is(native.queryFilter(ifindex, 'egress', filter), null);
  t.false(native.detachFilter(ifindex, 'egress', filter));
  t.deepEqual(native.queryFilter(ifindex, 'ingress', filter), { programId: program.info.id });
});

test('records of a ring buffer arrive from the event loop, in order', async (t) => {
  const object = loadObject(t);
  const seen: number[] = [];
  await new Promise<void>((resolve) => {
    const ring = native.openRingBuffer(useMap(t, object, 'events'), (record) => {
      if (seen.push(Number(record.readBigUInt64LE())) === 12) resolve();
    });
    t.teardown(() => ring.close());
    emit(object, 5);
    setImmediate(() => emit(object, 7));
    t.deepEqual(seen, []);
  });
  t.deepEqual(seen, [...Array(12).keys()]);
});

test('a flood does not starve the event loop', async (t) => {
  const object = loadObject(t);
  let [seen, turns] = [0, 0];
  await new Promise<void>((resolve) => {
    emit(object, 10_000);
    const ring = native.openRingBuffer(useMap(t, object, 'events'), () => {
      if (++seen === 10_000) resolve();
    });
    t.teardown(() => ring.close());
    const turn = (): void => {
      turns++;
      if (seen < 10_000) setImmediate(turn);
    };
    setImmediate(turn);
  });
  t.true(turns >= 9, `${turns} turns of the loop`);
});

test('consume hands over at once what is there', (t) => {
  const object = loadObject(t);
  const seen: bigint[] = [];
  let fail = false;
  const ring = native.openRingBuffer(useMap(t, object, 'events'), (record) => {
    seen.push(record.readBigUInt64LE());
    if (fail) throw new Error('from onRecord');
  });
  t.is(ring.consume(), 0);
  emit(object, 3000);
  t.is(ring.consume(), 3000);
  t.is(seen.length, 3000);
  fail = true;
  emit(object, 2);
  t.throws(() => ring.consume(), { message: 'from onRecord' });
  fail = false;
  t.is(ring.consume(), 1);
  ring.close();
  ring.close();
  t.throws(() => ring.consume(), { message: /is closed/ });
});

test('a ring buffer may be closed by its own callback, and must not be drained by it', (t) => {
  const object = loadObject(t);
  let calls = 0;
  const ring = native.openRingBuffer(useMap(t, object, 'events'), () => {
    calls++;
    t.throws(() => ring.consume(), { message: /must not be called by onRecord/ });
    ring.close();
  });
  emit(object, 10);
  t.is(ring.consume(), 1);
  t.is(calls, 1);
});

const prelude = `
  const object = native.openObject(${JSON.stringify(file)});
  object.disableProgram('broken');
  object.load();
  const emit = (repeat) => object.program('emits').testRun({ data: Buffer.alloc(60), repeat });
`;
const lives: [title: string, script: string, status: number, stdout: string, stderr: RegExp][] = [
  [
    'an exception of the callback is uncaught and ends the process',
    `native.openRingBuffer(object.map('events'), () => { throw new Error('from onRecord'); }); emit(3);`,
    1,
    '',
    /Error: from onRecord/,
  ],
  [
    'after an exception that somebody handles the other records arrive',
    `let seen = 0;
     process.on('uncaughtException', (error) => console.log(error.message, seen));
     const ring = native.openRingBuffer(object.map('events'), () => {
       if (++seen === 3) ring.close();
       throw new Error('record');
     });
     emit(4);`,
    0,
    'record 1\nrecord 2\nrecord 3\n',
    /^$/,
  ],
  [
    'promises settle between records',
    `const seen = [];
     const ring = native.openRingBuffer(object.map('events'), (record) => {
       seen.push(record[0]);
       Promise.resolve().then(() => seen.push('p'));
       if (record[0] === 1) { ring.close(); setImmediate(() => console.log(seen.join(' '))); }
     });
     emit(2);`,
    0,
    '0 p 1 p\n',
    /^$/,
  ],
  [
    'an open ring buffer that is unreferenced lets the process end',
    `native.openRingBuffer(object.map('events'), () => {}).unref();`,
    0,
    '',
    /^$/,
  ],
  [
    'process.exit inside the callback ends the process',
    `native.openRingBuffer(object.map('events'), () => process.exit(3)); emit(2);`,
    3,
    '',
    /^$/,
  ],
  [
    'an open ring buffer is not collected',
    `native.openRingBuffer(object.map('events'), () => { console.log('record'); process.exit(); });
     for (let i = 0; i < 5; i++) gc();
     setImmediate(() => { gc(); emit(1); });`,
    0,
    'record\n',
    /^$/,
  ],
  [
    'workers with open handles and a flood may be terminated at any time',
    `const { Worker } = require('node:worker_threads');
     const script = ${JSON.stringify(`
       const native = require(process.argv[2]);
       const { parentPort } = require('node:worker_threads');
       const object = native.openObject(process.argv[3]);
       object.disableProgram('broken');
       object.load();
       const program = object.program('emits');
       const go = () => { program.testRun({ data: Buffer.alloc(60), repeat: 2000 }); setImmediate(go); };
       let told = false;
       native.openRingBuffer(object.map('events'), () => { if (!told) { told = true; parentPort.postMessage('up'); } });
       go();
     `)};
     const one = () => new Promise((resolve, reject) => {
       const worker = new Worker(script, { eval: true, argv: [process.argv[1], ${JSON.stringify(file)}] });
       worker.on('message', () => worker.terminate());
       worker.on('error', reject);
       worker.on('exit', resolve);
     });
     (async () => { for (let i = 0; i < 5; i++) await Promise.all([one(), one()]); console.log('done'); object.map('hash').get(Buffer.alloc(4)); })();`,
    0,
    'done\n',
    /^$/,
  ],
];
for (const [title, script, status, stdout, stderr] of lives) {
  test(title, (t) => {
    const run = runNode(prelude + script);
    t.regex(run.stderr, stderr);
    t.deepEqual([run.status, run.stdout], [status, stdout]);
  });
}

const handles: [
  title: string,
  call: (object: BpfObject) => { close(): void },
  ((handle: never) => unknown)[],
][] = [
  [
    'object',
    (o) => o,
    [(o: BpfObject) => o.maps(), (o: BpfObject) => o.map('hash'), (o: BpfObject) => o.load()],
  ],
  [
    'map',
    (o) => o.map('hash'),
    [
      (m: BpfMap) => m.info,
      (m: BpfMap) => m.get(u32(0)),
      (m: BpfMap) => m.entries(),
      (m: BpfMap) => m.pin('x'),
    ],
  ],
  [
    'program',
    (o) => o.program('passes'),
    [(p: { info: unknown }) => p.info, (p: never) => native.attachTcx(p, 1, 'ingress')],
  ],
];
for (const [title, open, uses] of handles) {
  test(`a closed ${title} may be closed again and is good for nothing else`, (t) => {
    const handle = open(loadObject(t));
    handle.close();
    handle.close();
    for (const use of uses) t.throws(() => use(handle as never), { message: /is closed/ });
  });
}

test('maps and programs outlive the object they come from', (t) => {
  const object = openObject(t);
  object.disableProgram('broken');
  object.load();
  const [map, program] = [useMap(t, object, 'array'), object.program('passes')];
  object.close();
  program.testRun({ data: packet });
  t.is(map.get(u32(2))?.readBigUInt64LE(), 1n);
  program.close();
});

test('the type table has structs, bit fields, arrays, enums and typedefs by id', (t) => {
  const types = native.btfTypes(file);
  const find = (name: string) => types.find((type) => type.name === name);
  t.deepEqual(types[0], { kind: 'void', name: '', size: 0 });
  const record = find('record');
  t.like(record, { kind: 'struct', size: 32 });
  t.deepEqual(
    record?.members?.map(({ name, type, bitOffset, bitSize }) => [
      name,
      types[type]?.kind,
      bitOffset,
      bitSize,
    ]),
    [
      ['number', 'typedef', 0, 0],
      ['address', 'typedef', 64, 0],
      ['colour', 'enum', 96, 0],
      ['inner', 'struct', 128, 0],
      ['low', 'typedef', 192, 3],
      ['high', 'typedef', 195, 29],
      ['pad', 'typedef', 224, 0],
    ],
  );
  t.deepEqual(find('colour'), {
    kind: 'enum',
    name: 'colour',
    size: 4,
    values: [
      { name: 'COLOUR_RED', value: 1 },
      { name: 'COLOUR_BLUE', value: 0x80000000 },
    ],
    signed: false,
  });
  const text = types[find('inner')?.members?.[1]?.type ?? 0];
  t.like(text, { kind: 'array', size: 6, length: 6 });
  t.like(types[text?.elementType ?? 0], { kind: 'int', name: 'char', size: 1 });
  t.like(find('__u64'), { kind: 'typedef', size: 8 });
  t.like(types[find('__u64')?.type ?? 0], { kind: 'int', size: 8, signed: false });
});

test('probes tell what the kernel has', (t) => {
  t.true(native.probeProgramType(3)); // BPF_PROG_TYPE_SCHED_CLS
  t.true(native.probeMapType(27)); // BPF_MAP_TYPE_RINGBUF
  t.true(native.probeHelper(3, 152)); // bpf_redirect_neigh
  t.false(native.probeHelper(3, 44)); // bpf_xdp_adjust_head
  const possible = readFileSync('/sys/devices/system/cpu/possible', 'utf8').trim();
  t.is(native.possibleCpus(), Number(possible.split('-').at(-1)) + 1);
});

test('no descriptor is left behind by a thousand turns, nor by failures', (t) => {
  const before = countDescriptors();
  const lpin = makePin(t, 'leak');
  useMap(t, loadObject(t), 'odd').pin(lpin);
  for (let turn = 0; turn < 1000; turn++) {
    const map = native.openPinnedMap(lpin);
    t.throws(() => native.openPinnedProgram(lpin));
    t.throws(() => native.openObject('/nowhere.o'));
    map.close();
  }
  for (let turn = 0; turn < 20; turn++) {
    const broken = native.openObject(file);
    t.throws(() => broken.load());
    broken.close();
    const object = native.openObject(file);
    object.disableProgram('broken');
    object.load();
    const [map, program] = [object.map('events'), object.program('passes')];
    native.openRingBuffer(map, () => {}).close();
    for (const handle of [map, program, object]) handle.close();
  }
  // The object above, which its teardown has yet to close.
  const kept = 12 + 4 + 1 + 1;
  t.true(countDescriptors() <= before + kept, `${before} before, ${countDescriptors()} after`);
});

test('what nobody holds any more is closed by the collector', (t) => {
  const run = runNode(`${prelude}
    const { readdirSync } = require('node:fs');
    const count = () => readdirSync('/proc/self/fd').length;
    const before = count();
    for (let i = 0; i < 300; i++) { object.map('hash'); object.program('passes'); }
    const held = count();
    const wait = () => { gc(); if (count() <= before) console.log(held > before, 'closed'); else setImmediate(wait); };
    wait();
  `);
  t.deepEqual(run, { status: 0, stdout: 'true closed\n', stderr: '' });
});

function openObject(t: ExecutionContext): BpfObject {
  const object = native.openObject(file);
  t.teardown(() => object.close());
  return object;
}

function loadObject(t: ExecutionContext): BpfObject {
  const object = openObject(t);
  object.disableProgram('broken');
  object.load();
  return object;
}

function useMap(t: ExecutionContext, object: BpfObject, name: string): BpfMap {
  const map = object.map(name);
  t.teardown(() => map.close());
  return map;
}

let pins = 0;
function makePin(t: ExecutionContext, name: string): string {
  pins += 1;
  const folder = join(bpffs.folder, `${pins}`);
  mkdirSync(folder);
  t.teardown(() => rmSync(folder, { recursive: true }));
  return join(folder, name);
}

let interfaces = 0;
function addInterface(t: ExecutionContext): { name: string; ifindex: number; remove(): void } {
  interfaces += 1;
  const name = `t${process.pid}x${interfaces}`;
  execFileSync('ip', ['link', 'add', name, 'type', 'veth', 'peer', 'name', `${name}p`]);
  const remove = (): void => {
    spawnSync('ip', ['link', 'delete', name]);
  };
  t.teardown(remove);
  const ifindex = Number(readIp(['-j', 'link', 'show', 'dev', name])[0]?.ifindex);
  return { name, ifindex, remove };
}

function readIp(words: string[]): { ifindex: number }[] {
  return JSON.parse(execFileSync('ip', words, { encoding: 'utf8' }));
}

function emit(object: BpfObject, repeat: number): void {
  const program = object.program('emits');
  program.testRun({ data: packet, repeat });
  program.close();
}

function runNode(script: string): { status: number | null; stdout: string; stderr: string } {
  const addon = join(import.meta.dirname, '../../build/Release/addon.node');
  const words = ['--expose-gc', '--eval', `const native = require(process.argv[1]);${script}`, addon];
  const { status, stdout, stderr } = spawnSync(process.execPath, words, {
    encoding: 'utf8',
    timeout: 60_000,
    env: { PATH: process.env.PATH },
  });
  return { status, stdout, stderr };
}

function readRows(map: BpfMap, batch?: number): [Buffer, Buffer][] {
  const { keys, values, count } = map.entries(batch);
  const [key, value] = [keys.length / count, values.length / count];
  return rowsOf(count, (i) => [
    keys.subarray(i * key, (i + 1) * key),
    values.subarray(i * value, (i + 1) * value),
  ]);
}

const sortRows = (rows: [Buffer, Buffer][]): string[] =>
  rows.map(([key, value]) => `${key.toString('hex')} ${value.toString('hex')}`).sort();

function rowsOf<T>(count: number, make: (i: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => make(i));
}

function u32(number: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(number);
  return buffer;
}

function u64(number: number): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(BigInt(number));
  return buffer;
}

/** A value of `size` bytes for each CPU, with the padding the kernel gives. */
function perCpu(size: number, byte: number): Buffer {
  const stride = Math.ceil(size / 8) * 8;
  const buffer = Buffer.alloc(stride * native.possibleCpus());
  for (let at = 0; at < buffer.length; at += stride) buffer.fill(byte + 1, at, at + size);
  return buffer;
}

const countDescriptors = (): number => readdirSync('/proc/self/fd').length;
