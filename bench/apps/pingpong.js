// A message to a worker thread and back: `node pingpong.js PYTHON`
const path = require('path');
const { execFileSync } = require('child_process');
const { Worker, isMainThread, parentPort } = require('worker_threads');
const TRIPS = 2000;
if (isMainThread) {
  (async () => {
    const worker = new Worker(__filename);
    let arrived;
    worker.on('message', (value) => arrived(value));
    const trips = async (count) => {
      for (let number = 0; number < count; number++) {
        const back = new Promise((resolve) => { arrived = resolve; });
        worker.postMessage(number);
        if (await back !== number) throw new Error('not what was sent');
      }
    };
    await trips(100);
    execFileSync(process.argv[2], [path.resolve(__dirname, 'pin.py'), String(process.pid)]);
    for (let round = 0; round < 6; round++) {
      const began = performance.now();
      await trips(TRIPS);
      console.log('wall_us', (performance.now() - began) / TRIPS * 1e3);
    }
    await worker.terminate();
  })();
} else {
  parentPort.on('message', (value) => parentPort.postMessage(value));
}
