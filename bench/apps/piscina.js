// Tiny tasks through Piscina: `node piscina.js trip|many PYTHON`
const path = require('path');
const { execFileSync } = require('child_process');
const { Piscina } = require('piscina');
(async () => {
  const pool = new Piscina({ filename: path.resolve(__dirname, 'tiny.js'), minThreads: 2, maxThreads: 2 });
  await Promise.all([...Array(200).keys()].map((number) => pool.run(number)));
  if (process.argv[2] === 'many') {
    for (let round = 0; round < 5; round++) {
      const began = performance.now();
      await Promise.all([...Array(20000).keys()].map((number) => pool.run(number)));
      console.log('wall_us', (performance.now() - began) / 20000 * 1e3);
    }
  } else {
    execFileSync(process.argv[3], [path.resolve(__dirname, 'pin.py'), String(process.pid)]);
    for (let round = 0; round < 6; round++) {
      const began = performance.now();
      for (let number = 0; number < 1500; number++) await pool.run(number);
      console.log('wall_us', (performance.now() - began) / 1500 * 1e3);
    }
  }
  await pool.destroy();
})();
