// The same under Node or Bun: `node spawn.js`. The children's CPU is what /proc says of those that were waited for.
const fs = require('fs');
const { spawn } = require('child_process');
const COUNT = 200;
const ticksUs = 1e4; // a hundred ticks a second
const usedUs = () => {
  const fields = fs.readFileSync('/proc/self/stat', 'utf8').split(') ').pop().split(' ');
  const own = process.cpuUsage();
  return own.user + own.system + (+fields[13] + +fields[14]) * ticksUs;
};
const one = () => new Promise((resolve, reject) => {
  spawn('/bin/true', [], { stdio: 'ignore' }).on('error', reject).on('close', resolve);
});
(async () => {
  for (let round = 0; round < 4; round++) {
    const cpu = usedUs();
    const wall = performance.now();
    for (let number = 0; number < COUNT; number++) if (await one() !== 0) throw new Error('it failed');
    console.log('cpu_us', (usedUs() - cpu) / COUNT, 'wall_us', (performance.now() - wall) / COUNT * 1e3);
  }
})();
