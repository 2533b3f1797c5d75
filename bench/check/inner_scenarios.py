"""What happens behind and beside requests: frames, finished calls, tasks, policies, callbacks.

What lives here: the inner parts, each driven by itself with its other end played here.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

from multiloop._wire import frames, http1
from multiloop.cluster._policy import LeastConnections, RoundRobin
from multiloop.events import EventEmitter
from multiloop.loop._hub import hub
from multiloop.loop._offload import completions_of
from multiloop.loop._operation import Operation
from multiloop.net import Socket
from multiloop.pool import _assign, _protocol
from multiloop.pool._calls import Calls
from multiloop.pool._context import Carrier
from multiloop.pool._link import Link
from multiloop.pool._options import TaskOptions
from multiloop.pool._tasks import make_async
from multiloop.pool._values import pack, unpack

from .scenarios import Scenario, Work

_BATCH = 32


async def reply_head(closing: ExitStack) -> Work:
    """Header lines of a reply: some that are known, one that is new each time; a status that is rare."""
    fields = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store"), (b"vary", b"accept")]

    async def work(count: int) -> None:
        for number in range(count):
            parts = [http1.status_line(200)]
            parts += [http1.header_line(name, value)[0] for name, value in fields]
            parts.append(http1.header_line(b"set-cookie", b"session=%064d; path=/; httponly" % number)[0])
            parts.append(http1.header_line(b"content-length", b"%d" % number)[0])
            b"".join(parts)
            http1.error_reply(404, b"date: x\r\n")

    return work


async def frames_codec(closing: ExitStack) -> Work:
    """Small messages of two processes: encoded, joined as the kernel joins them, decoded; one with a buffer beside it."""
    decoder = frames.Decoder()
    body, buffer = b"x" * 100, bytearray(1000)

    async def work(count: int) -> None:
        for _ in range(count):
            pieces = [piece for _ in range(_BATCH) for piece in frames.encode(frames.MESSAGE, body)]
            pieces += frames.encode(frames.MESSAGE, body, (buffer,), (7,))
            found = decoder.feed(b"".join(pieces))
            assert len(found) == _BATCH + 1

    return work


async def offload_completion(closing: ExitStack) -> Work:
    """A batch of finished calls, from the threads' queue to operations that are done."""
    of = hub()
    completions, loop = completions_of(of), of.loop

    async def work(count: int) -> None:
        for _ in range(count):
            made = []
            for number in range(_BATCH):
                of.refs += 1
                op: Operation[int] = Operation(loop=loop)
                made.append(op)
                completions.done.append((op, number, None, None))
            completions._woken()
            assert made[-1].done()

    return work


def _same(value: int) -> int:
    return value


async def pool_tasks(closing: ExitStack) -> Work:
    """A batch of tiny tasks, from the call to the result; the worker is a socket that answers here."""
    of = hub()
    engine = SimpleNamespace(
        loop=of.loop, hub=of, waits=deque(maxlen=64), runs=deque(maxlen=64), has_more_to_release=False,
        has_read=lambda link: None, release=lambda task: None, vigil=None,
    )  # fmt: skip
    link = Link(engine, 0)  # type: ignore[arg-type]
    closing.callback(link.close)
    worker = closing.enter_context(socket.socket(fileno=link.worker_socket))
    os.close(link.page_descriptor)
    calls, options = Calls(Carrier(())), TaskOptions()
    owner = SimpleNamespace(stop=lambda task: None)
    head = _protocol.FROM_WORKER
    result = b"i\x07\x00\x00\x00"  # 7, as marshal writes it

    async def work(count: int) -> None:
        for _ in range(count):
            first = link.next_number
            tasks = [make_async(of, owner, options, calls.make(_same, (n,), {})) for n in range(_BATCH)]
            link.send_tasks(tasks)
            worker.recv(1 << 16)
            worker.send(b"".join(head.pack(_protocol.PLAIN, 5, first + n, 1, 2) + result for n in range(_BATCH)))
            link.results.readable()
            assert tasks[-1].result() == 7

    return work


async def pool_values(closing: ExitStack) -> Work:
    """Arguments that are not plain: pickled and made again."""
    value = ({"name": "thing", "tags": ["a", "b"], "size": 9.5}, b"x" * 1000, (1, 2, 3))

    async def work(count: int) -> None:
        for _ in range(count):
            kind, body, descriptors = pack(value)
            assert unpack(kind, body, descriptors)[2] == (1, 2, 3)

    return work


async def decisions(closing: ExitStack) -> Work:
    """Who gets the next connection, and the next tasks."""
    workers = [SimpleNamespace(number=n, connections=n * 7 % 5, requests=0) for n in range(1, 9)]
    round_robin, least = RoundRobin(), LeastConnections()

    async def work(count: int) -> None:
        for number in range(count):
            round_robin.pick(None, workers)
            least.pick(None, workers)
            _assign.share(number, 4)
            _assign.budget_ns(number & 15, 20_000.0)
            _assign.wanted(4, 1, 0, number & 7, 8)
            _assign.recycle_reason(number, 10.0, 1000, tasks=None, age=None, rss=None, jitter=0.5)

    return work


async def emit(closing: ExitStack) -> Work:
    """An event with two listeners, and one with none."""
    emitter = EventEmitter()
    seen: list[Any] = []
    emitter.on("data", seen.append)
    emitter.on("data", lambda value: seen.clear())

    async def work(count: int) -> None:
        for number in range(count):
            emitter.emit("data", number)
            emitter.emit("end")

    return work


async def callbacks(closing: ExitStack) -> Work:
    """Operations that report to a callback, through the hub and a turn of the loop."""
    from multiloop.loop._operation import begin

    of = hub()
    seen: list[Any] = []

    def take(error: Any, value: Any) -> None:
        seen.append(value)

    async def work(count: int) -> None:
        for number in range(count):
            begin(take, of)._succeed(number)
            await asyncio.sleep(0)
        assert len(seen) >= count
        seen.clear()

    return work


class _Wire:
    """A transport that sends nothing."""

    def __init__(self) -> None:
        self.written = 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_write_buffer_limits(self, high: int, low: int) -> None: ...

    def write(self, data: bytes) -> None:
        self.written += 1

    def abort(self) -> None: ...


def _listen(socket: Socket) -> None:
    socket.on("data", socket.write)


async def _iterate(socket: Socket) -> None:
    async for chunk in socket:
        socket.write(chunk)


async def _read_and_drain(socket: Socket) -> None:
    while chunk := await socket.read():
        socket.write(chunk)
        await socket.drain()


def echo(serve: Callable[[Socket], Any]) -> Scenario:
    """Small messages through a socket, from the transport's call to its write, and the reader waits again."""

    async def prepare(closing: ExitStack) -> Work:
        loop, wire, message = asyncio.get_running_loop(), _Wire(), b"x" * 120
        socket = Socket()
        socket._protocol.connection_made(wire)  # type: ignore[arg-type]
        socket._ended()  # nothing waits for its end
        serving = serve(socket)
        if serving is not None:
            closing.callback(loop.create_task(serving).cancel)
        await asyncio.sleep(0)
        receive = socket._protocol.data_received

        async def work(count: int) -> None:
            before, done = wire.written, loop.create_future()

            def arrive() -> None:  # as the loop calls it: in the middle of no task
                for _ in range(count):
                    receive(message)
                done.set_result(None)

            loop.call_soon(arrive)
            await done
            assert wire.written == before + count

        return work

    return prepare


ALL: dict[str, tuple[Scenario, int]] = {
    "reply-head": (reply_head, 200),
    "frames-codec": (frames_codec, 60),
    "offload-completion": (offload_completion, 60),
    "pool-tasks": (pool_tasks, 40),
    "pool-values": (pool_values, 200),
    "decisions": (decisions, 200),
    "emit": (emit, 200),
    "callbacks": (callbacks, 200),
    "socket-listener": (echo(_listen), 200),
    "socket-iterate": (echo(_iterate), 200),
    "socket-read-drain": (echo(_read_and_drain), 200),
}
