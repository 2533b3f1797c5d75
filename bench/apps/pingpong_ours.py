"""A message to a worker and back: `python pingpong_ours.py process|interpreter|thread`"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from pin import pin

import multiloop
from multiloop.worker_threads import Worker

TRIPS = 2000


def echo() -> None:
    from multiloop import worker_threads

    port = worker_threads.parent_port
    port.on("message", port.post_message)


async def main() -> None:
    worker: Any = Worker(echo, kind=sys.argv[1])
    arrived: Any = None
    worker.on("message", lambda value: arrived.set_result(value))

    async def trips(count: int) -> None:
        nonlocal arrived
        for number in range(count):
            arrived = asyncio.get_running_loop().create_future()
            worker.post_message(number)
            assert await arrived == number

    await trips(100)
    pin(os.getpid())
    for _ in range(6):
        began_s = time.perf_counter()
        await trips(TRIPS)
        print("wall_us", (time.perf_counter() - began_s) / TRIPS * 1e6)
    await worker.terminate()


if __name__ == "__main__":
    multiloop.run(main)
