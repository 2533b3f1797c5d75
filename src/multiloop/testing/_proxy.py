"""A TCP proxy with faults, to stand between a client and a server under test.

What lives here: `FaultProxy` and `Faults`. What must not: HTTP; it sees bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_CHUNK_BYTES = 64 * 1024
_ENDS = ("reset", "close", "half", "hang")


@dataclass(frozen=True, slots=True)
class Faults:
    """What happens to one connection. The defaults are no fault at all.

    Attributes:
        latency: seconds that each piece is late, each way.
        rate: bytes a second, each way, in small pieces (a drip); 0: as fast as it goes.
        cut_up: after so many bytes from the client, `end` happens; None: never.
        cut_down: the same for bytes from the server.
        end: "reset" (RST to both), "close" (FIN to both), "half" (FIN to the one that is sent to, the other way goes
            on), "hang" (a black hole: nothing is closed, nothing goes through).
    """

    latency: float = 0.0
    rate: float = 0.0
    cut_up: int | None = None
    cut_down: int | None = None
    end: str = "reset"

    def __post_init__(self) -> None:
        if self.end not in _ENDS:
            raise ValueError(f"end is one of {', '.join(_ENDS)}")


Choose = Callable[[int, random.Random], Faults]


class FaultProxy:
    """Listens on a port of 127.0.0.1 and passes connections on to a server, with faults.

        async with FaultProxy(("127.0.0.1", 8000), Faults(latency=0.05)) as proxy:
            ... connect to proxy.address

    Args:
        target: the server: (host, port), or a Unix socket's path.
        faults: for every connection, or a function `(number, random)` that says it for each, number 0 first.
        seed: of that function's random numbers; the same seed, the same faults.

    Raises nothing by itself: what fails between the two is what it is for. `connections` counts them.
    """

    def __init__(self, target: tuple[str, int] | str, faults: Faults | Choose | None = None, *, seed: int = 0) -> None:
        self.target = target
        self.faults: Faults | Choose = faults if faults is not None else Faults()
        self.connections = 0
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        assert self._server is not None, "enter it first: async with FaultProxy(...) as proxy"
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(host), int(port)

    async def __aenter__(self) -> FaultProxy:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._carry(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        faults = self.faults if isinstance(self.faults, Faults) else self.faults(self.connections, self._random)
        self.connections += 1
        if isinstance(self.target, str):
            up_reader, up_writer = await asyncio.open_unix_connection(self.target)
        else:
            up_reader, up_writer = await asyncio.open_connection(*self.target)
        both = (writer, up_writer)
        try:
            ways = [
                asyncio.ensure_future(_pump(reader, up_writer, faults, faults.cut_up, both)),
                asyncio.ensure_future(_pump(up_reader, writer, faults, faults.cut_down, both)),
            ]
            try:
                await asyncio.gather(*ways)
            finally:
                for way in ways:
                    way.cancel()
        finally:
            up_writer.transport.abort()


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    faults: Faults,
    cut: int | None,
    both: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
) -> None:
    """Carry bytes one way, until its end or its fault."""
    left = cut
    while True:
        try:
            data = await reader.read(_CHUNK_BYTES)
        except OSError:
            _reset(writer)
            return
        if not data:
            break
        piece = data if left is None else data[:left]
        await _send(writer, piece, faults)
        if left is not None:
            left -= len(piece)
            if left <= 0:
                await _end(faults.end, writer, both)
                return
    with contextlib.suppress(OSError):
        writer.write_eof()


async def _send(writer: asyncio.StreamWriter, data: bytes, faults: Faults) -> None:
    if faults.latency:
        await asyncio.sleep(faults.latency)
    step = max(1, int(faults.rate * 0.05)) if faults.rate else len(data)
    for start in range(0, len(data), step or 1):
        if faults.rate:
            await asyncio.sleep(step / faults.rate)
        writer.write(data[start : start + step])
        await writer.drain()


async def _end(how: str, writer: asyncio.StreamWriter, both: tuple[asyncio.StreamWriter, ...]) -> None:
    if how == "half":
        with contextlib.suppress(OSError):
            writer.write_eof()
    elif how == "hang":
        await asyncio.Event().wait()
    else:
        for one in both:
            if how == "reset":
                _reset(one)
            else:
                one.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: a linger of zero drops what was not sent."""
    sock: Any = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
