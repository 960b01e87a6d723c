import { endianness } from 'node:os';
import { encodeIndex } from '../../src/codec.js';
import { readPorts } from '../../src/datapath.js';
import { enums } from '../../src/layout.js';
import type { BpfMap } from '../../src/native.js';
import { reasons } from '../../src/reasons.js';
import { ethernet } from '../helpers/packet.js';
import { macOf, type PortName, skbContext, type Testbed } from '../helpers/testbed.js';
import type { Place } from './expectation.js';

/** BPF_PROG_TEST_RUN refuses a frame with EtherType IPv4 and less (net/bpf/test_run.c). */
export const PACKET_BYTES_MIN = 20;

interface Ran {
  /** The outcomes and drops that were counted; and `received`, where not exactly one packet was. */
  moved: string[];
  /** From the Ethernet header on. */
  frame: Buffer;
}

/** Runs a packet through the program of a port, and reads which of its counters moved. */
export type Runner = (packet: Uint8Array, segmented: boolean) => Ran;

type Direction = 'ingress' | 'egress';
type Maps = { interfaces: BpfMap; counters: BpfMap };

export function openRunners(bed: Testbed): Record<Place, Runner> {
  const mesh = new PortCounters(bed.datapath.maps, 'mesh0', 'ingress');
  return {
    mesh: makeRunner(bed, 'mesh0', 'ingress', mesh, macOf('mesh0')),
    broadcast: makeRunner(bed, 'mesh0', 'ingress', mesh, 'ff:ff:ff:ff:ff:ff'),
    edge: makeRunner(bed, 'edge0', 'ingress', new PortCounters(bed.datapath.maps, 'edge0', 'ingress')),
    strip: makeRunner(bed, 'strip0', 'ingress', new PortCounters(bed.datapath.maps, 'strip0', 'ingress')),
    local: makeRunner(bed, 'mesh0', 'egress', new PortCounters(bed.datapath.maps, 'mesh0', 'egress')),
  };
}

function makeRunner(
  bed: Testbed,
  port: PortName,
  direction: Direction,
  counters: PortCounters,
  mac = macOf(port),
): Runner {
  const index = bed.ports.find(({ name }) => name === port)?.link.index ?? 0;
  const whole = skbContext(index);
  const segments = skbContext(index, { gsoSize: 1000 });
  const head = ethernet(mac, Buffer.alloc(0));
  return (packet, segmented) => {
    const data = Buffer.concat([head, packet]);
    const ran = bed.programs[direction].testRun({ data, context: segmented ? segments : whole });
    return { moved: counters.takeMoved(), frame: ran.data };
  };
}

const little = endianness() === 'LE';
/** Where a 64-bit counter has its low half. */
const lowHalf = little ? 0 : 4;
const counted = reasons.filter(({ kind }) => kind === 'outcome' || kind === 'drop');

/** The counters of a port; nobody else may move them meanwhile. */
export class PortCounters {
  readonly #counters: BpfMap;
  readonly #key: Buffer;
  /** Bytes of one processor's counters. */
  readonly #stride: number;
  #before: Uint32Array;

  constructor({ interfaces, counters }: Maps, port: string, direction: Direction) {
    const slot = readPorts(interfaces).find(({ name }) => name === port)?.slot ?? 0;
    const side = enums.lsr_direction[direction === 'ingress' ? 'LSR_INGRESS' : 'LSR_EGRESS'];
    this.#counters = counters;
    this.#stride = Math.ceil(counters.info.valueSize / 8) * 8;
    this.#key = encodeIndex(slot * 2 + side);
    this.#before = this.#read();
  }

  /** What moved since the last call. */
  takeMoved(): string[] {
    const after = this.#read();
    const moved: string[] = [];
    for (const { index, name } of counted) {
      for (let i = this.#before[index] ?? 0; i !== after[index]; i++) moved.push(name);
    }
    const received = (after[0] ?? 0) - (this.#before[0] ?? 0);
    if (received !== 1) moved.push(`received ${received}`);
    this.#before = after;
    return moved;
  }

  /** Over all processors, modulo 2³². */
  #read(): Uint32Array {
    const values = this.#counters.get(this.#key) ?? Buffer.alloc(0);
    const view = new DataView(values.buffer, values.byteOffset, values.length);
    const sums = new Uint32Array(reasons.length);
    for (let at = 0; at + this.#stride <= values.length; at += this.#stride) {
      for (let i = 0; i < sums.length; i++) {
        sums[i] = (sums[i] ?? 0) + view.getUint32(at + 8 * i + lowHalf, little);
      }
    }
    return sums;
  }
}
