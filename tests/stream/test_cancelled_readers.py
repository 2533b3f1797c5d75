"""One who cancels a reader and reads in the same step is served, wherever one reader at a time waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import multiloop
from multiloop import child_process, events, fs, net, stream

Source = tuple[Callable[[], Awaitable[Any]], Callable[[], Any]]  # reads, and makes something come


@asynccontextmanager
async def _stream(folder: Path) -> AsyncIterator[Source]:
    readable = stream.Readable()
    yield readable.read, lambda: readable.push(b"x")
    readable.destroy()


@asynccontextmanager
async def _pipe(folder: Path) -> AsyncIterator[Source]:
    async with child_process.spawn("cat") as child:
        assert child.stdout is not None
        assert child.stdin is not None
        yield child.stdout.read, lambda: child.stdin.write(b"x")


@asynccontextmanager
async def _datagrams(folder: Path) -> AsyncIterator[Source]:
    receiver = await net.create_datagram().bind(0, "127.0.0.1")
    sender = net.create_datagram()
    port = receiver.address[1]
    yield receiver.__anext__, lambda: sender.send(b"x", port, "127.0.0.1")
    receiver.close()
    sender.close()


@asynccontextmanager
async def _events(folder: Path) -> AsyncIterator[Source]:
    emitter = events.EventEmitter()
    async with events.on(emitter, "x") as seen:
        yield seen.__anext__, lambda: emitter.emit("x", 1)


@asynccontextmanager
async def _changes(folder: Path) -> AsyncIterator[Source]:
    async with fs.watch(folder) as watcher:
        changes = aiter(watcher)
        yield changes.__anext__, lambda: (folder / "x").write_bytes(b"x")


@pytest.mark.parametrize("source", [_stream, _pipe, _datagrams, _events, _changes])
def test_a_read_in_the_step_that_cancelled_another_is_served(tmp_path: Path, source: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), source(tmp_path) as (read, produce):
            first = asyncio.ensure_future(read())
            await asyncio.sleep(0.01)
            refused = asyncio.ensure_future(read())
            await asyncio.wait([refused])
            assert isinstance(refused.exception(), multiloop.errors.UsageError), "one reader at a time"
            first.cancel()
            asyncio.get_running_loop().call_later(0.01, produce)
            assert await read()
            assert first.cancelled()

    multiloop.run(main)
