"""Node's cluster example, line by line: a worker for each core, restarted when it dies; the primary counts requests.

    python examples/cluster_counting.py [PORT]          then: curl http://127.0.0.1:8000/

In Node:                                                        here:

    const cluster = require('node:cluster');                    from multiloop import cluster
    const http = require('node:http');                          from multiloop import http
    const numCPUs = os.availableParallelism();                  cpus = cluster.cpu_count()
    if (cluster.isPrimary) {                                    if cluster.is_primary:
      setInterval(() => console.log(…), 1000);                      timers.set_interval(lambda: print(…), 1)
      for (let i = 0; i < numCPUs; i++) cluster.fork();             for _ in range(cpus): cluster.fork()
      cluster.on('exit', (worker, code, signal) => …);              cluster.on("exit", exited)
      cluster.on('message', messageHandler);                        cluster.on("message", message_handler)
    } else {                                                    else:
      http.createServer((req, res) => {                             def handler(request, response):
        res.writeHead(200);                                             response.write_head(200)
        res.end('hello world\\n');                                       response.end("hello world\\n")
        process.send({ cmd: 'notifyRequest' });                         cluster.worker.send({"cmd": "notify_request"})
      }).listen(8000);                                              http.create_server(handler).listen(8000)
    }

A `multiloop.run` stands for Node's loop, which begins by itself when a script has been read.
"""

import os
import sys

import multiloop
from multiloop import cluster, http, timers

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8000


def primary() -> None:
    requests = 0

    def message_handler(worker, message, handle):
        nonlocal requests
        if message.get("cmd") == "notify_request":
            requests += 1

    def exited(worker, code, signal):
        print(f"worker {worker.process.pid} died ({signal or code}), restarting", flush=True)
        cluster.fork()

    print(f"primary {os.getpid()} is running", flush=True)
    timers.set_interval(lambda: print(f"requests = {requests}", flush=True), 1)
    for _ in range(cluster.cpu_count()):
        cluster.fork()
    cluster.on("exit", exited)
    cluster.on("message", message_handler)


def worker() -> None:
    @http.handler
    def handler(request, response):
        response.write_head(200)
        response.end("hello world\n")
        cluster.worker.send({"cmd": "notify_request"})

    http.create_server(handler).listen(PORT)
    print(f"worker {os.getpid()} started", flush=True)


multiloop.run(primary if cluster.is_primary else worker)
