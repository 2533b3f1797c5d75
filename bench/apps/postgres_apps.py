"""One and twenty queries with asyncpg, as ASGI and as native handlers. BENCH_POSTGRES names the database."""

from __future__ import annotations

import json
import os
from random import randint
from typing import Any

import asyncpg

QUERY = "SELECT id, randomnumber FROM world WHERE id = $1"
CONNECTIONS = 16

_pool: Any = None


async def _open() -> Any:
    global _pool
    _pool = await asyncpg.create_pool(os.environ["BENCH_POSTGRES"], min_size=CONNECTIONS, max_size=CONNECTIONS)
    return _pool


async def _rows(count: int) -> list[dict[str, int]]:
    async with _pool.acquire() as connection:
        return [dict(await connection.fetchrow(QUERY, randint(1, 10_000))) for _ in range(count)]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """/1 is one query, /20 are twenty, one after the other on one connection."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await _open()
            else:
                await _pool.close()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = json.dumps(await _rows(int(scope["path"][1:]))).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def handler(request: Any) -> list[dict[str, int]]:
    """The same as a native handler, which has no lifespan: the pool opens at the first request."""
    if _pool is None:
        await _open()
    return await _rows(int(request.path[1:]))
