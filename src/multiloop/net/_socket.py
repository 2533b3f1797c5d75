"""`Socket`: one connection, TCP or Unix, plain or TLS.

What lives here: the public face. What must not: its life and death (`_connection`), making connections (`_connect`),
accepting them (`_server`), what the transport calls (`_protocol`).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import socket as _socket
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Unpack, overload

from .._limits import SOCKET_HIGH_WATER_BYTES
from ..errors import UsageError
from ..events import tell_of_close
from ..loop import AnyOperation, CallbackOperation, ErrorFirst, Operation, check_callback, hub
from ._connection import Connection, apply_keep_alive
from ._idle import IdleTimer, checked_timeout
from ._incoming import CHUNK, EVERYTHING
from ._outgoing import Data
from ._reading import CallbackReading, Reading

if TYPE_CHECKING:
    from ._connect import ConnectKeywords

with contextlib.suppress(ImportError):  # plain Python runs
    importlib.import_module("multiloop.net._reading_send")


class Socket(Connection):
    """A connection: what `net.connect` gives and a server's 'connection' brings. Keeps `multiloop.run` going while open.

    Events: 'connect' · 'data' (bytes) · 'end' (the peer sends no more) · 'drain' (write again) · 'finish' (all that was
    written before `end()` has left) · 'timeout' (idle; see `set_timeout`) · 'error' (exception) · 'close' (had_error).

    Read with a 'data' listener, `async for chunk in socket`, or `await socket.read()`; not with two of them.
    An error of the connection (a reset, a broken pipe) is emitted if anybody listens, raised in who waits in `read()` or
    `drain()`, and kept in `error`. Unlike in Node nobody has to listen: a peer's reset never ends the program.

    Args:
        allow_half_open: the peer's end does not end our side; without it `end()` follows by itself, after what was
            written. TLS cannot be half-closed here: an end on either side closes the connection.
        high_water_mark: bytes that may wait: on the way out before `write` returns False, on the way in before the
            kernel's read stops.
        no_delay: send small writes at once. On by default, as in asyncio (off in Node).
        keep_alive: let the kernel probe a silent peer; see `set_keep_alive`.

    Attributes: `bytes_read`, `bytes_written` (with what still waits), `encrypted`, `destroyed`, `closed`, `error`.
    """

    def __init__(
        self,
        *,
        allow_half_open: bool = False,
        high_water_mark: int = SOCKET_HIGH_WATER_BYTES,
        no_delay: bool = True,
        keep_alive: bool = False,
    ) -> None:
        if high_water_mark < 1:
            raise UsageError(f"high_water_mark={high_water_mark}: at least 1 byte")
        super().__init__(
            hub(),
            allow_half_open=allow_half_open,
            mark_bytes=high_water_mark,
            no_delay=no_delay,
            keep_alive=0 if keep_alive else -1,
        )

    # -- connecting ------------------------------------------------------------------------------------------------
    @property
    def connecting(self) -> bool:
        """Whether `connect()` is under way."""
        return self._attempt is not None and self._transport is None and not self.destroyed

    @overload
    def connect(
        self, port: int | None = None, host: str = ..., **options: Unpack[ConnectKeywords]
    ) -> Operation[Socket]: ...
    @overload
    def connect(
        self, port: int | None = None, host: str = ..., *, callback: ErrorFirst, **options: Unpack[ConnectKeywords]
    ) -> CallbackOperation[Socket]: ...
    def connect(
        self,
        port: int | None = None,
        host: str = "localhost",
        *,
        callback: ErrorFirst | None = None,
        **options: Unpack[ConnectKeywords],
    ) -> AnyOperation[Socket]:
        """Connect this socket; options, errors and result as `net.connect`. What was written before goes out then."""
        from ._connect import ConnectOptions, start

        if self._attempt is not None or self._transport is not None or self.destroyed:
            raise UsageError("connect(): this socket is connected, connecting or closed; make a new one")
        return start(self, ConnectOptions(port=port, host=host, **options), callback)

    # -- writing ---------------------------------------------------------------------------------------------------
    def write(self, data: Data, callback: ErrorFirst | None = None) -> bool:
        """Send bytes (or text, as UTF-8), in order. False: more than the mark waits; wait for 'drain' or `drain()`.

        Never blocks, and never raises for a peer that is gone: it returns False, and `drain()` raises why. The data is
        not copied: leave a bytearray alone until it has left. `callback(error, None)` comes when this data has left.

        Raises:
            ClosedError: after `end()`.
            TypeError: for anything that is not bytes, bytearray, memoryview or str; for a callback that cannot be called.
        """
        transport = self._fast
        if transport is None or callback is not None or type(data) is not bytes:
            check_callback(callback)
            return self._outgoing.write(data, callback)
        self.bytes_written += len(data)
        transport.write(data)
        return not self._choked

    @overload
    def drain(self) -> Operation[None]: ...
    @overload
    def drain(self, *, callback: ErrorFirst) -> CallbackOperation[None]: ...
    def drain(self, callback: ErrorFirst | None = None) -> AnyOperation[None]:
        """Wait until writing may go on: `if not socket.write(data): await socket.drain()`.

        Raises what ended the connection (an OSError), or ClosedError when it was closed here.
        """
        # `callback` is not keyword-only here and in read(): such a call costs Python as much as all that follows.
        if callback is None and not self._choked and not self.destroyed:
            return self._drained
        return self._outgoing.drain(callback)

    def end(self, data: Data | None = None, callback: ErrorFirst | None = None) -> None:
        """Send `data` and then the end: nothing follows. The peer may still send, until it ends too.

        `callback(error, None)` comes when everything has left. Calling it again changes nothing.
        """
        check_callback(callback)
        if data is not None:
            self.write(data)
        first = not self._outgoing.ended
        self._fast = None
        self._outgoing.end(callback)
        if first and self._transport is not None and not self.destroyed:
            self._close_writing()
            self._incoming.maybe_end()

    @property
    def write_buffer_size(self) -> int:
        """How many bytes wait to be sent."""
        return 0 if self.destroyed else self._outgoing.waiting_bytes()

    # -- reading ---------------------------------------------------------------------------------------------------
    @overload
    def read(self, size: int = -1) -> Coroutine[Any, Any, bytes]: ...
    @overload
    def read(self, size: int = -1, *, callback: ErrorFirst) -> CallbackOperation[bytes]: ...
    def read(
        self, size: int = -1, callback: ErrorFirst | None = None
    ) -> Coroutine[Any, Any, bytes] | CallbackOperation[bytes]:
        """Wait for the next chunk, as it came, or at most `size` bytes of it; b"" is the end.

        A read that is cancelled loses nothing. Raises what ended the connection (an OSError), or ClosedError when it was
        closed here.
        """
        if size == -1:
            size = CHUNK
        elif size < 1:
            raise UsageError(f"read({size}): a size above 0, or -1 for the next chunk")
        if callback is not None:
            return CallbackReading(self._incoming, size, callback).op
        return Reading(self._incoming, size, False)

    @overload
    def read_all(self) -> Coroutine[Any, Any, bytes]: ...
    @overload
    def read_all(self, *, callback: ErrorFirst) -> CallbackOperation[bytes]: ...
    def read_all(self, *, callback: ErrorFirst | None = None) -> Coroutine[Any, Any, bytes] | CallbackOperation[bytes]:
        """Wait for everything until the peer's end. All of it is kept in memory: for peers that are trusted to end."""
        if callback is not None:
            return CallbackReading(self._incoming, EVERYTHING, callback).op
        return Reading(self._incoming, EVERYTHING, False)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return Reading(self._incoming, CHUNK, True)

    def __anext__(self) -> Coroutine[Any, Any, bytes]:
        return Reading(self._incoming, CHUNK, True)

    def pause(self) -> Socket:
        """Stop reading, down to the kernel: no 'data' until `resume()`. Also before the connection stands."""
        self._incoming.pause()
        return self

    def resume(self) -> Socket:
        """Go on reading. Without a 'data' listener what comes is dropped, as in Node."""
        self._incoming.resume()
        return self

    @property
    def is_paused(self) -> bool:
        """Whether `pause()` was called last."""
        return self._incoming.flowing is False

    def pipe(self, destination: Any, *, end: bool = True) -> Any:
        """Write all that comes to `destination`, at its pace; returns it. `end`: end it when this one ends.

        `destination` has `write() -> bool`, `end()` and 'drain', as sockets and streams do. Costs no task, and no
        buffer beyond the marks. Errors are not carried over: destroy the one when the other closes.
        """

        def forward(data: bytes) -> None:
            if not destination.write(data):
                self.pause()

        def forget(*_: Any) -> None:
            self.off("data", forward)
            destination.off("drain", self.resume)

        self.on("data", forward)
        destination.on("drain", self.resume)
        destination.once("close", forget)
        self.once("close", forget)
        if end:
            self.once("end", lambda: destination.end())
        return destination

    def _listeners_changed(self, name: Hashable, count: int) -> None:
        if name == "data":
            deliver: Callable[[bytes], Any] | None = None
            if count == 1:
                deliver = self.raw_listeners("data")[0]
            elif count:
                deliver = partial(self.emit, "data")
            self._incoming.listen(deliver)

    # -- closing ---------------------------------------------------------------------------------------------------
    @overload
    def wait_closed(self) -> Coroutine[Any, Any, None]: ...
    @overload
    def wait_closed(self, *, callback: ErrorFirst) -> CallbackOperation[None]: ...
    def wait_closed(self, *, callback: ErrorFirst | None = None) -> Coroutine[Any, Any, None] | CallbackOperation[None]:
        """Wait until the connection is closed, however that comes. Raises nothing: see `error`.

        It is the connection that keeps the program running, not this.
        """
        if callback is None:
            return self._wait_closed()
        return tell_of_close(self, self.closed, self._hub, callback)

    async def _wait_closed(self) -> None:
        if not self.closed:
            closed: asyncio.Future[None] = self._hub.loop.create_future()
            self.once("close", lambda *_: None if closed.done() else closed.set_result(None))
            await closed

    async def __aenter__(self) -> Socket:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.destroy()
        else:
            self.destroy_soon()
        try:
            await self.wait_closed()
        except BaseException:
            self.destroy()
            raise

    # -- options and looking ---------------------------------------------------------------------------------------
    def set_timeout(self, seconds: float, listener: Callable[[], Any] | None = None) -> Socket:
        """Emit 'timeout' when nothing moved for `seconds`, each time again after something moved; 0 switches it off.

        It only tells: call `destroy()` in the listener to close. `listener` is added to 'timeout', for once.
        """
        timeout_s = checked_timeout(seconds)
        protocol = self._protocol
        if protocol.idle is not None:
            protocol.idle.stop()
            protocol.idle = None
        if timeout_s and not self.closed:
            protocol.idle = IdleTimer(self._hub.loop, timeout_s, lambda: self._hub.call(self.emit, "timeout"))
            if listener is not None:
                self.once("timeout", listener)
        self._refresh_fast()
        return self

    @property
    def timeout(self) -> float:
        """What `set_timeout` was given, in seconds; 0 when it is off."""
        idle = self._protocol.idle
        return 0.0 if idle is None else idle.timeout_s

    def set_no_delay(self, on: bool = True) -> Socket:
        """Send small writes at once (TCP_NODELAY). Before the connection stands it is remembered."""
        self._no_delay = on
        raw = self._raw()
        if raw is not None and not self.destroyed and raw.family in (_socket.AF_INET, _socket.AF_INET6):
            raw.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, int(on))
        return self

    def set_keep_alive(self, on: bool = True, delay: float = 0) -> Socket:
        """Let the kernel probe a silent peer, first after `delay` seconds (0: the system's default, often 2 hours).

        Before the connection stands it is remembered.
        """
        self._keep_alive_s = delay if on else -1
        raw = self._raw()
        if raw is not None and not self.destroyed and raw.family in (_socket.AF_INET, _socket.AF_INET6):
            if on:
                apply_keep_alive(raw, delay)
            else:
                raw.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 0)
        return self

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what asyncio's transports tell: 'ssl_object', 'peercert', 'cipher', 'socket', …"""
        return default if self._transport is None else self._transport.get_extra_info(name, default)

    @property
    def alpn_protocol(self) -> str | None:
        """The protocol that TLS negotiated, or None."""
        tls = self.get_extra_info("ssl_object")
        return None if tls is None else tls.selected_alpn_protocol()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "connecting" if self.connecting else "open" if self._transport else "new"
        return f"<Socket {state} to {self._name()}>"
