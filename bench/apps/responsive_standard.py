"""The same with an executor of the standard library: BENCH_EXECUTOR is process or thread."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from fibonacci import work

_pool: Executor | None = None


def _executor() -> Executor:
    if os.environ["BENCH_EXECUTOR"] == "thread":
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(1, initializer=os.nice, initargs=(10,))


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    global _pool
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                _pool = _executor()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = b"Hello, World!"
    if scope["path"] == "/cpu":
        body = str(await asyncio.get_running_loop().run_in_executor(_pool, work, 20)).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
