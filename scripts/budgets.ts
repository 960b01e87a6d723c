/** Writes bpf/budgets.json: what the programs cost the verifier of this kernel. Root. */
import { writeFileSync } from 'node:fs';
import { budgetsFile, measureBudgets } from '../tests/helpers/budgets.js';

writeFileSync(budgetsFile, `${JSON.stringify(measureBudgets(), null, 2)}\n`);
