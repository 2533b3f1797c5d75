// The same under Node or Bun: `node files.js promises|callbacks together|after FOLDER ROUNDS`
const fs = require('fs');
const [, , face, order, folder, rounds] = process.argv;
const paths = [...Array(1000).keys()].map((number) => `${folder}/${number}`);
const read = face === 'promises'
  ? (path) => fs.promises.readFile(path)
  : (path) => new Promise((resolve, reject) => fs.readFile(path, (error, data) => (error ? reject(error) : resolve(data))));
(async () => {
  for (let round = 0; round < +rounds; round++) {
    const cpu = process.cpuUsage();
    const wall = performance.now();
    if (order === 'together') await Promise.all(paths.map(read));
    else for (const path of paths) await read(path);
    const used = process.cpuUsage(cpu);
    console.log('cpu_us', (used.user + used.system) / 1e3, 'wall_us', performance.now() - wall);
  }
})();
