// The same under Node: `node large.js transfer|shared|clone`
const { Worker, isMainThread, parentPort } = require('worker_threads');
const SIZE = 100000000;
if (isMainThread) {
  (async () => {
    const how = process.argv[2];
    const worker = new Worker(__filename);
    let arrived;
    worker.on('message', (value) => arrived(value));
    let bytes = new Uint8Array(how === 'shared' ? new SharedArrayBuffer(SIZE) : new ArrayBuffer(SIZE));
    bytes.fill(7);
    for (let round = 0; round < 12; round++) {
      if (bytes.length !== SIZE) bytes = new Uint8Array(new ArrayBuffer(SIZE)).fill(7);
      const back = new Promise((resolve) => { arrived = resolve; });
      const began = performance.now();
      worker.postMessage(bytes, how === 'transfer' ? [bytes.buffer] : []);
      const [size, last] = await back;
      console.log('wall_ms', performance.now() - began);
      if (size !== SIZE || last !== 7) throw new Error('not what was sent');
    }
    await worker.terminate();
  })();
} else {
  parentPort.on('message', (bytes) => parentPort.postMessage([bytes.length, bytes[bytes.length - 1]]));
}
