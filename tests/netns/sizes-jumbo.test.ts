import { labTopology } from '../../src/lab-topology.js';
import { defineSizeTable } from '../helpers/size-table.js';

defineSizeTable({
  name: 'jumbo frames on the mesh',
  topology: labTopology,
  mtus: { mesh0: 9000 },
  mesh: 9000,
  access: 1500,
  way: ['10.1.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4', '10.9.0.10'],
});
