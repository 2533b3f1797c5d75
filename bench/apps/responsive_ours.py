"""Hello, and /cpu through our pool of one worker (ASGI)."""

from __future__ import annotations

from typing import Any

from fibonacci import work

from multiloop.pool import Pool

_pool: Any = None


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    global _pool
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                _pool = Pool(workers=1, nice=10)
            else:
                await _pool.close()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = str(await _pool.run(work, 20)).encode() if scope["path"] == "/cpu" else b"Hello, World!"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
