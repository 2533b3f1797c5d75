// Node's cluster, round robin: `node cluster.js WORKERS PORT`; /pid says which process answers.
const cluster = require('cluster');
const http = require('http');
const [, , workers, port] = process.argv;
if (cluster.isPrimary) {
  cluster.schedulingPolicy = cluster.SCHED_RR;
  for (let number = 0; number < +workers; number++) cluster.fork();
} else {
  http.createServer((request, response) => {
    response.setHeader('content-type', 'text/plain');
    response.end(request.url === '/pid' ? String(process.pid) : 'Hello, World!');
  }).listen(+port, '127.0.0.1');
}
