"""A FastAPI application for the tests: every kind of endpoint that people write."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import BackgroundTasks, Depends, FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware


def make_fastapi(seen: list[Any]) -> Any:

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        seen.append("startup")
        yield {"answer": 42}
        seen.append("shutdown")

    app = FastAPI(lifespan=lifespan)

    async def tag(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-tag"] = "tagged"
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=tag)

    async def resource() -> AsyncIterator[str]:
        yield "resource"
        seen.append("released")

    @app.get("/hello")
    async def hello() -> dict[str, str]:
        return {"hello": "world"}

    @app.get("/sync/{number}")
    def sync(number: int, q: str = "") -> dict[str, Any]:
        return {"number": number, "q": q}

    @app.get("/state")
    async def state(request: Request, value: str = Depends(resource)) -> dict[str, Any]:
        return {"answer": request.state.answer, "value": value}

    @app.post("/items")
    async def items(item: dict[str, Any]) -> dict[str, Any]:
        return item

    @app.post("/raw")
    async def raw(request: Request) -> dict[str, int]:
        count = pieces = 0
        async for piece in request.stream():
            count += len(piece)
            pieces += 1
        return {"count": count, "pieces": pieces}

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        async def work() -> None:
            await asyncio.sleep(0.05)
            seen.append("worked")

        tasks.add_task(work)
        return "begun"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(100):
                yield b"%d\n" % number

        return StreamingResponse(pieces(), media_type="text/plain")

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 1000
                    await asyncio.sleep(0.005)
            finally:
                seen.append("left")

        return StreamingResponse(pieces())

    @app.get("/file")
    async def file() -> FileResponse:
        return FileResponse(__file__)

    @app.get("/failing")
    async def failing() -> None:
        raise ValueError("from an endpoint")

    @app.websocket("/echo")
    async def echo(session: WebSocket) -> None:
        await session.accept(session.scope["subprotocols"][0] if session.scope["subprotocols"] else None)
        try:
            while True:
                await session.send_text(await session.receive_text())
        except WebSocketDisconnect as end:
            seen.append(("disconnect", end.code, end.reason))

    @app.websocket("/refused")
    async def refused(session: WebSocket) -> None:
        await session.close()

    @app.websocket("/count")
    async def count(session: WebSocket) -> None:
        await session.accept()
        async for data in session.iter_bytes():
            await session.send_json({"bytes": len(data)})

    return app
