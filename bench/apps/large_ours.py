"""100 MB to a worker and a word back: `python large_ours.py shared|numpy process|interpreter`"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import multiloop
from multiloop.worker_threads import SharedBuffer, Worker

SIZE = 100_000_000


def take() -> None:
    """Answer each message with its last byte."""
    from multiloop import worker_threads

    port = worker_threads.parent_port

    def answer(value: Any) -> None:
        data = memoryview(value).cast("B")
        port.post_message((len(data), data[-1]))

    port.on("message", answer)


async def main() -> None:
    worker: Any = Worker(take, kind=sys.argv[2])
    arrived: Any = None
    worker.on("message", lambda value: arrived.set_result(value))
    if sys.argv[1] == "shared":
        value: Any = SharedBuffer(SIZE, format="B")
        memoryview(value)[SIZE - 1] = 7
    else:
        import numpy

        value = numpy.ones(SIZE, dtype="uint8") * 7
    for _ in range(12):
        arrived = asyncio.get_running_loop().create_future()
        began_s = time.perf_counter()
        worker.post_message(value)
        assert tuple(await arrived) == (SIZE, 7)
        print("wall_ms", (time.perf_counter() - began_s) * 1e3)
    await worker.terminate()


if __name__ == "__main__":
    multiloop.run(main)
