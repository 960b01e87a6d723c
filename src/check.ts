import { formatAddress, isLinkLocal, isUnicast, parseAddress } from './address.js';
import { checkBudgets, checkChains, checkPaths } from './check-chains.js';
import { checkOverlaps, checkRules } from './check-rules.js';
import { checkServices } from './check-services.js';
import { type DerivedMesh, deriveMesh, documentName } from './derive.js';
import { type Finding, makePointer, quote, splitPointer } from './finding.js';
import type { Mesh } from './mesh.js';

/** What the schema cannot say: whether names exist, addresses are hosts', chains fit and rules decide. */
export function checkMeaning(mesh: Mesh): Finding[] {
  const named = [...checkNodes(mesh), ...checkServices(mesh), ...checkChains(mesh), ...checkRules(mesh)];
  if (named.length > 0) return named;
  const derived = deriveMesh(mesh);
  const findings = [
    ...checkBudgets(derived.mesh),
    ...checkChains(derived.mesh),
    ...checkRules(derived.mesh),
    ...checkOverlaps(derived.mesh.rules),
  ];
  return (findings.length > 0 ? findings : checkPaths(mesh)).map((finding) => placeFinding(finding, derived));
}

/** What is wrong with something that follows from a chain or a rule is told of that. */
function placeFinding(finding: Finding, { mesh, rules }: DerivedMesh): Finding {
  const [kind = '', item = ''] = splitPointer(finding.pointer);
  if (kind === 'chains' && documentName(item) !== item)
    return { ...finding, pointer: makePointer('chains', documentName(item), 'hops') };
  if (kind !== 'rules') return finding;
  const { name = '' } = mesh.rules[Number(item)] ?? {};
  const place = rules[Number(item)] ?? 0;
  if (documentName(name) !== name) return { ...finding, pointer: makePointer('rules', place) };
  return { ...finding, pointer: finding.pointer.replace(/^\/rules\/\d+/, `/rules/${place}`) };
}

function checkNodes(mesh: Mesh): Finding[] {
  const owners = new Map<number, string>();
  return Object.entries(mesh.nodes).flatMap(([name, node]) => {
    const own = checkNodeAddress(name, node.address, makePointer('nodes', name, 'address'), owners);
    const further = (node.addresses ?? []).map((text, index) =>
      checkNodeAddress(name, text, makePointer('nodes', name, 'addresses', index), owners),
    );
    return [own, ...further].filter((finding) => finding !== null);
  });
}

function checkNodeAddress(
  node: string,
  text: string,
  pointer: string,
  owners: Map<number, string>,
): Finding | null {
  const address = parseAddress(text);
  if (address === null) {
    const right = 'write four numbers from 0 to 255 without leading zeros, like 10.0.0.1';
    return { pointer, code: 'ADDRESS_INVALID', message: `${quote(text)} is no IPv4 address; ${right}` };
  }
  if (!isUnicast(address) || isLinkLocal(address)) {
    const right = 'a node needs one outside 0/8, 127/8, 169.254/16 and 224/3';
    return {
      pointer,
      code: 'ADDRESS_MARTIAN',
      message: `${formatAddress(address)} is no address of a host that can be routed to; ${right}`,
    };
  }
  const owner = owners.get(address);
  if (owner !== undefined) {
    const message = `${formatAddress(address)} of node ${quote(node)} is already that of node ${quote(owner)}; each address stands once`;
    return { pointer, code: 'ADDRESS_TAKEN', message };
  }
  owners.set(address, node);
  return null;
}
