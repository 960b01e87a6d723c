/**
 * Frames that are not ours to judge, on the cables of the lab of every example. (Tagged ones come from scapy: the
 * kernel of a test machine may be built without VLAN interfaces.)
 */
import test from 'ava';
import { countLosses } from '../helpers/chains.js';
import { createLab, type TestLab } from '../helpers/namespaces.js';
import { capture, findUnbalanced, readDrops, runScapy, sumCounts } from '../helpers/wire.js';

let lab: TestLab;

test.before(async () => {
  lab = await createLab();
});

test.after.always(() => lab?.remove());

const recordRoute = "options=IPOption_RR(routers=['0.0.0.0'])";
const udp = "UDP(sport=9, dport=9)/Raw(b'x' * 40)";
const frames: Record<string, string> = {
  'an unknown EtherType': "Ether(dst='02:00:00:00:00:99', type=0x88b5)/Raw(b'E' * 60)",
  ARP: "Ether(dst='ff:ff:ff:ff:ff:ff')/ARP(op=1, pdst='10.0.0.2', psrc=own)/Raw(b'x' * 18)",
  IPv6: `Ether(dst='33:33:00:00:00:01')/IPv6(src='fe80::1', dst='ff02::1')/${udp}`,
  multicast: `Ether(dst='01:00:5e:00:00:fb')/IP(src=own, dst='224.0.0.251', ttl=1)/${udp}`,
  broadcast: `Ether(dst='ff:ff:ff:ff:ff:ff')/IP(src=own, dst='10.0.0.255')/${udp}`,
  'an IPv4 option in another VLAN': `Ether(dst='ff:ff:ff:ff:ff:ff')/Dot1Q(vlan=9)/IP(src=own, dst='10.0.0.2', ${recordRoute})/${udp}`,
  'an IPv4 option in QinQ': `Ether(dst='ff:ff:ff:ff:ff:ff')/Dot1AD(vlan=3)/Dot1Q(vlan=9)/IP(src=own, dst='10.0.0.2', ${recordRoute})/${udp}`,
};

for (const port of ['mesh0', 'edge0'] as const) {
  for (const [name, frame] of Object.entries(frames)) {
    test.serial(`${name} passes ${port} untouched`, async (t) => {
      const [sender, out] = port === 'mesh0' ? ['edge', 'mesh0'] : ['client', 'eth0'];
      const receiver = port === 'mesh0' ? 'fw' : 'edge';
      const send = async (text: string): Promise<string> =>
        runScapy(
          lab,
          sender,
          `own = get_if_addr('${out}')\nframe = ${text}\nframe.src = get_if_hwaddr('${out}')\nsendp(frame, iface='${out}')\nprint(bytes(frame).hex())`,
        );
      const passed = sumCounts(await readDrops(lab, receiver), 'passed');
      await countLosses(t, lab, [], async () => {
        let sent = '';
        // tcpdump looks before the programs do: this tells that the frame came, and the counters what became of it.
        const came = await capture(lab, receiver, port, '', ['frame.len'], async () => {
          sent = (await send(frame)).trim();
        });
        t.true(
          came.some(([length]) => Number(length) === sent.length / 2),
          `${sent}: ${came.join(' ')}`,
        );
        return 0;
      });
      t.true(sumCounts(await readDrops(lab, receiver), 'passed') > passed);
    });
  }
}

test.serial('the negative control: untagged and to this host, an IPv4 option is judged', async (t) => {
  await countLosses(t, lab, ['edge_option'], async () => {
    await runScapy(
      lab,
      'client',
      `sendp(Ether(dst=getmacbyip('10.1.0.1'))/IP(src='10.1.0.10', dst='10.0.0.2', ${recordRoute})/${udp}, iface='eth0')`,
    );
    return 1;
  });
  t.deepEqual(findUnbalanced(await readDrops(lab, 'edge')), []);
});
