"""A connection without a socket: bytes go in by a call and come out as an attribute.

What lives here: `MemoryConnection`. What must not: a loop of its own; it lives on the running one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..http._config import HttpConfig
from ..http._target import Interface, detect_interface


class MemoryConnection:
    """The server's side of one HTTP connection, fed by hand: raw bytes in, raw bytes out.

        connection = MemoryConnection(app)
        connection.feed(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        await connection.settle()
        assert connection.output.startswith(b"HTTP/1.1 200")

    The whole HTTP service of the server is behind it, only the kernel is missing: for tests of what comes back for
    which bytes, and for fuzzing. Call it on a running loop, `close()` at the end. An ASGI lifespan is not started.

    Attributes:
        output: what the server has sent so far.
        is_closed: it ended the connection (or `eof` made it do so).
    """

    def __init__(self, app: Any, *, interface: str = "auto", config: HttpConfig | None = None) -> None:
        from ..http._connection import Connection
        from ..http._service import HttpService

        found = detect_interface(app) if interface == "auto" else Interface(interface)
        self.service = HttpService(app, found, config)
        self.output = bytearray()
        self.is_closed = False
        self.is_paused = False  # the server reads no more for now
        self._ended: list[BaseException | None] = []
        self._protocol: Any = Connection(self.service, self.service.listeners[0], False, None, None)
        self._transport = _Transport(self)
        self._protocol.connection_made(self._transport)

    def feed(self, data: bytes) -> None:
        """The client sends bytes. After the end of the connection they go nowhere, as with a socket."""
        if not self.is_closed:
            self._protocol.data_received(data)

    def eof(self) -> None:
        """The client sends no more."""
        if not self.is_closed and not self._protocol.eof_received():
            self._transport.close()

    async def settle(self, turns: int = 50) -> None:
        """Let the loop turn until nothing more comes out."""
        quiet = 0
        while quiet < 5 and turns > 0:
            before = len(self.output)
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self.output) == before else 0
            turns -= 1

    def lose(self, error: BaseException | None = None) -> None:
        """The connection is gone: reset, when there is an error."""
        if not self.is_closed:
            self._end(error)

    def close(self) -> None:
        """End it, if it has not ended. Safe to call twice."""
        self.lose(None)

    def _end(self, error: BaseException | None) -> None:
        self.is_closed = True
        self._protocol.connection_lost(error)


class _Transport:
    """As much of a transport as a protocol of ours uses."""

    def __init__(self, connection: MemoryConnection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._closing = False

    def write(self, data: Any) -> None:
        if not self._closing:
            self._connection.output += data

    def writelines(self, parts: Any) -> None:
        for part in parts:
            self.write(part)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Nothing to tell anybody."""

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing waits here."""

    def pause_reading(self) -> None:
        self._connection.is_paused = True

    def resume_reading(self) -> None:
        self._connection.is_paused = False

    def is_reading(self) -> bool:
        return not self._connection.is_paused

    def is_closing(self) -> bool:
        return self._closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 40000), "sockname": ("192.0.2.2", 80)}.get(name, default)

    def set_protocol(self, protocol: Any) -> None:
        self._connection._protocol = protocol

    def get_protocol(self) -> Any:
        return self._connection._protocol

    def close(self) -> None:
        self._close()

    def abort(self) -> None:
        self._close()

    def _close(self) -> None:
        if not self._closing:
            self._closing = True
            end: Callable[[], None] = self._connection.close
            self._loop.call_soon(end)
