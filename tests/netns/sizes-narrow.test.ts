import { defineSizeTable, narrowTopology } from '../helpers/size-table.js';

defineSizeTable({
  name: 'one narrow leg',
  topology: narrowTopology,
  mtus: { narrow0: 1400 },
  mesh: 1400,
  access: 1500,
  way: ['10.1.0.1', '10.0.0.2', '10.0.1.3', '10.0.0.4', '10.9.0.10'],
});
