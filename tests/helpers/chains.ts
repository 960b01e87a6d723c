import type { ExecutionContext } from 'ava';
import { callApi } from '../../src/client.js';
import { agentHosts, apiSocket } from '../../src/lab-standing.js';
import type { Mesh } from '../../src/mesh.js';
import { type Ledger, readLedger, subtractLedger, sumLedger } from './delivery.js';
import type { TestLab } from './namespaces.js';

/** What everything from client to server takes and, where given, everything from server to client. */
export interface Chains {
  there?: Mesh['chains'][string];
  back?: Mesh['chains'][string];
}

export const nodes: Mesh['nodes'] = {
  edge: { address: '10.0.0.1' },
  fw: { address: '10.0.0.2', addresses: ['10.0.1.2'] },
  ids: { address: '10.0.0.3', addresses: ['10.0.1.3'] },
  gw: { address: '10.0.0.4' },
};

/** Puts chains in force: at the hops first, at the edges last. */
export async function putInForce(
  lab: TestLab,
  chains: Chains,
  services: Mesh['services'] = {},
): Promise<void> {
  const rules: Mesh['rules'] = [
    { name: 'there', at: ['edge'], match: { destination: '10.9.0.0/24' }, chain: 'there' },
    { name: 'back', at: ['gw'], match: { destination: '10.1.0.0/24' }, chain: 'back' },
  ];
  await putMesh(lab, {
    version: 1,
    nodes,
    services,
    chains: { ...chains },
    rules: rules.filter(({ chain }) => chain in chains),
  });
}

export async function putMesh(lab: TestLab, mesh: Mesh): Promise<void> {
  const others = agentHosts.filter((host) => host !== 'edge');
  await Promise.all(others.map((host) => putMeshOn(lab, host, mesh)));
  await putMeshOn(lab, 'edge', mesh);
}

export function putMeshOn(lab: TestLab, host: string, mesh: Mesh): Promise<unknown> {
  return callApi(apiSocket(lab, host), {
    method: 'PUT',
    path: '/v1/mesh',
    body: JSON.stringify(mesh),
    contentType: 'application/json',
  });
}

/** Runs `action`, which tells how many packets it lost, and requires that as many were dropped, for these reasons only. */
export async function countLosses(
  t: ExecutionContext,
  lab: TestLab,
  reasons: readonly string[],
  action: () => Promise<number>,
): Promise<Ledger> {
  const before = await readLedger(lab);
  const lost = await action();
  const dropped = subtractLedger(await readLedger(lab), before);
  t.is(sumLedger(dropped), lost, JSON.stringify(dropped));
  for (const name of Object.keys(dropped)) t.true(reasons.includes(name.split(' ')[1] ?? ''), name);
  return dropped;
}
