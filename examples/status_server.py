"""A program that only computes, and a worker that answers for it over HTTP: its own loop, its own server.

    python examples/status_server.py                   # or: --numbers 3000000, --port 8080
    curl http://127.0.0.1:8080/

What it shows: a worker of the kind "process" that runs an HTTP server of its own. The program blocks its own loop the
whole time, and the server answers all the same. What the program posts while it computes leaves it at once; the worker
shows the newest of it, and how old that is. When the worker's parent_port and server are closed, the worker ends.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import multiloop
from multiloop import worker_threads
from multiloop.worker_threads import Worker


async def answer_for_it(port: int) -> None:
    """Run in the worker: serve the newest status until the program says that it is done."""
    status: dict[str, Any] = {"progress": 0.0}
    heard_at = time.monotonic()

    def reply(request: multiloop.http.Request) -> dict[str, Any]:
        return {**status, "seconds_ago": round(time.monotonic() - heard_at, 3)}

    server = multiloop.http.create_server(reply)
    await server.listen(port, "127.0.0.1")
    parent = worker_threads.parent_port
    assert parent is not None
    parent.post_message(server.address)
    async for message in parent:
        if message is None:
            break
        status.update(message)
        heard_at = time.monotonic()
    await server.close()
    parent.close()


def collatz(below: int) -> Iterator[tuple[int, int, int]]:
    """Look for the number below a limit that takes longest to come to 1; yield now and then how far that is."""
    best, most = 1, 0
    for number in range(1, below):
        n, count = number, 0
        while n != 1:
            n = n // 2 if n % 2 == 0 else 3 * n + 1
            count += 1
        if count > most:
            best, most = number, count
        if number % 5000 == 0:
            yield number, best, most
    yield below, best, most


async def main() -> None:
    """Read the command line, compute, blocking the loop on purpose."""
    options = argparse.ArgumentParser(description="Compute, and answer over HTTP meanwhile.")
    options.add_argument("--numbers", type=int, default=300_000)
    options.add_argument("--port", type=int, default=0, help="0: a free one")
    given = options.parse_args()
    worker = Worker(answer_for_it, worker_data=given.port, kind="process", name="status")
    host, port = await anext(aiter(worker))
    print(f"http://{host}:{port}/ tells how far it is", flush=True)
    best = most = 0
    for number, best, most in collatz(given.numbers):
        worker.post_message({"progress": number / given.numbers, "best": best, "steps": most})
    print(f"below {given.numbers:,}, {best:,} takes longest: {most} steps")
    worker.post_message(None)
    await worker.wait()


if __name__ == "__main__":  # the worker imports this file to find answer_for_it
    multiloop.run(main)
