"""The life of a connection: how its two halves open and close together.

What lives here: `Connection`, the machinery under `Socket`: it comes to life (`_made`), is closed (`destroy` and its
kin) and dies (`_lost`) exactly once. What must not: reading (`_incoming`), writing (`_outgoing`), the rest of the face.

Life
    Socket() ── connect() ──> 'connect' ──> data, drain, timeout … ──> 'end' (peer) and end() (here) ──> 'close'
                                            destroy(), a reset, an error ───────── ('error' if heard) ──> 'close'
"""

from __future__ import annotations

import asyncio
import socket as _socket
import struct
import sys
from collections.abc import Callable, Hashable
from typing import Any, Self

from ..errors import ClosedError, UsageError
from ..events import EventEmitter
from ..loop import AnyOperation, Handle, Hub
from ._address import Address, from_kernel, readable
from ._outgoing import Outgoing
from ._protocol import Protocol
from ._settled import settled

_AF_UNIX = getattr(_socket, "AF_UNIX", None)


class Connection(Handle, EventEmitter):
    """The state of one socket, and its ends."""

    bytes_written: int

    def __init__(self, of: Hub, *, allow_half_open: bool, mark_bytes: int, no_delay: bool, keep_alive: float) -> None:
        super().__init__()
        self._hub = of
        self._protocol = Protocol(self, of, mark_bytes)
        self._incoming = self._protocol.incoming
        self._outgoing = Outgoing(self, mark_bytes)
        self._drained = settled(of.loop).operation  # what drain() returns when nobody need wait
        self._transport: asyncio.Transport | None = None
        self._fast: asyncio.Transport | None = None  # the transport while a write needs no second look
        self._choked = False  # more than the mark waits to be sent
        self._no_delay = no_delay
        self._keep_alive_s = keep_alive  # seconds before the first probe; below 0: off; 0: the kernel's default
        self._attempt: AnyOperation[Any] | None = None  # connect() in flight
        self._on_made: Callable[[], None] | None = None  # for the one who accepts
        self._on_closed: Callable[[Any], None] | None = None
        self._remote: Address = None
        self._local: Address = None
        self._closing = False  # the transport closes once it has sent what waits
        self._dropped = False  # destroy(): what waited was not sent
        self.allow_half_open = allow_half_open
        self.encrypted = False  # whether TLS is on
        self.bytes_written = 0  # what was given to write(), with what still waits
        self.destroyed = False  # nothing can be read from the peer or written to it any more
        self.closed = False  # 'close' was emitted
        self.error: BaseException | None = None  # what ended the connection, if it was no orderly end

    # -- opening ---------------------------------------------------------------------------------------------------
    def _made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        if self.destroyed:
            transport.abort()
            return
        self.encrypted = transport.get_extra_info("ssl_object") is not None
        if self._remote is None:
            self._remote = from_kernel(transport.get_extra_info("peername"))
        self._apply_options()
        self._opened(self._hub)
        if self._protocol.idle is not None:
            self._protocol.idle.touch()
        self._outgoing.made(transport)
        self._refresh_fast()
        if self._outgoing.ended:
            self._close_writing()
        self._attempt = None
        if self._on_made is not None:
            self._on_made()
            self._on_made = None
        self._incoming.made()  # last: a listener of 'connection' may have paused it

    def _apply_options(self) -> None:
        raw = self._raw()
        if raw is not None and raw.family != _AF_UNIX:
            if not self._no_delay:  # transports switch it on
                raw.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 0)
            if self._keep_alive_s >= 0:
                apply_keep_alive(raw, self._keep_alive_s)

    def _raw(self) -> Any:
        return None if self._transport is None else self._transport.get_extra_info("socket")

    def _refresh_fast(self) -> None:
        slow = self._outgoing.ended or self._outgoing.watching or self._protocol.idle is not None or self.destroyed
        self._fast = None if slow else self._transport

    # -- ending in order -------------------------------------------------------------------------------------------
    def _close_writing(self) -> None:
        transport = self._transport
        assert transport is not None
        if self._incoming.end_emitted or not transport.can_write_eof():  # TLS has no half-close
            self._close_in_order(transport)
        else:
            transport.write_eof()

    def _close_in_order(self, transport: asyncio.Transport) -> None:
        """Let the transport send what waits, and close. Not twice: asyncio's one of TLS is broken by that."""
        self._closing = True
        if not transport.is_closing():
            transport.close()

    def _ended_by_peer(self) -> None:
        if self.closed:
            return
        self._hub.call(self.emit, "end")
        if self.destroyed or self._closing or self._transport is None:
            return
        if self._outgoing.ended:
            self._close_in_order(self._transport)
        elif not self.allow_half_open:
            self._outgoing.ended_by_peer = True
            self._outgoing.end(None)
            self._close_writing()

    # -- ending at once --------------------------------------------------------------------------------------------
    def destroy(self, error: BaseException | None = None) -> Self:
        """Close at once, both ways; what waits to be sent is dropped. Emits 'error' (if one is given), then 'close'.

        Safe at any time, also before the connection stands and twice.
        """
        if not self.destroyed:
            self.destroyed = self._dropped = True
            self.error = error
            self._fast = None
            self._choked = False
            self._incoming.drop()
            if self._transport is not None:
                self._transport.abort()
            else:
                if self._attempt is not None:
                    self._attempt.cancel()
                self._hub.loop.call_soon(self._lost, None)
        return self

    def destroy_soon(self) -> None:
        """Close both ways once everything written has left."""
        if self.destroyed or self._transport is None:
            self.destroy()
            return
        self._fast = None
        self._outgoing.end(None)
        self._close_in_order(self._transport)

    def reset_and_destroy(self) -> Self:
        """Close at once with a reset: the peer's next read or write fails with ECONNRESET. TCP only.

        Raises UsageError for a Unix socket, which has no resets.
        """
        raw = self._raw()
        if raw is not None and not self.destroyed:
            if raw.family == _AF_UNIX:
                raise UsageError("reset_and_destroy(): Unix sockets have no reset; use destroy()")
            raw.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, struct.pack("ii", 1, 0))
        return self.destroy()

    # -- the end ---------------------------------------------------------------------------------------------------
    def _lost(self, error: BaseException | None) -> None:
        if self.closed:
            return
        leaving = None
        if isinstance(error, SystemExit | KeyboardInterrupt):  # of a listener: uvloop's transports catch even these
            leaving, error = error, None
        if self.error is None:
            self.error = error
        self.destroyed = self.closed = True
        self._fast = None
        self._choked = False
        self._protocol.deliver = None
        if self._protocol.idle is not None:
            self._protocol.idle.stop()
        self._tell(self.error)
        self._transport = None
        if self._on_closed is not None:
            self._on_closed(self)
        self._ended()
        if leaving is not None:
            raise leaving

    def _tell(self, problem: BaseException | None) -> None:
        """Tell of the end: who waits, 'error' if there was one, 'close'."""
        if isinstance(problem, OSError) and problem.filename is None and problem.errno is not None:
            problem.filename = self._name()
        told = self._transport is None  # never made: connect() tells
        told |= self._outgoing.lost(problem)
        told |= self._incoming.lost(self._gone() if self._dropped else problem)
        if problem is not None:
            told |= self.listener_count("error") > 0
            self._hub.call(self._emit_error_if_heard, problem)
            if not told and not isinstance(problem, OSError):
                self._hub.uncaught(problem)  # somebody's bug, given to destroy(): nobody else will tell of it
        self._hub.call(self.emit, "close", problem is not None)

    def _gone(self) -> BaseException:
        """Return why nothing can be read or written any more."""
        if self.error is not None:
            return self.error
        return ClosedError(f"the connection to {self._name()} was closed here: nothing can be read or written any more")

    def _name(self) -> str:
        return readable(self.remote_address)

    def _rejected(self, error: Exception, name: Hashable, args: tuple[Any, ...]) -> None:
        self.destroy(error)  # an async listener has failed: nobody knows what this connection stands at

    def _shutdown(self) -> None:
        self._events = None  # the program ends: nobody is told any more
        self.destroy()
        self._ended()

    # -- looking ---------------------------------------------------------------------------------------------------
    @property
    def bytes_read(self) -> int:
        """Bytes that the peer has sent so far, after decryption."""
        return self._protocol.bytes_read

    @property
    def remote_address(self) -> Address:
        """(host, port) of the peer; the path for Unix sockets ("" for those accepted); None before it is known."""
        return self._remote

    @property
    def local_address(self) -> Address:
        """(host, port) of this end, the path for Unix sockets; None before the connection stands."""
        if self._local is None and self._transport is not None:
            self._local = from_kernel(self._transport.get_extra_info("sockname"))
        return self._local


def apply_keep_alive(raw: Any, delay_s: float) -> None:
    """Switch the kernel's probes on; `delay_s` is the silence before the first, 0 leaves the system's default."""
    raw.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
    if delay_s > 0:
        name = "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE"
        raw.setsockopt(_socket.IPPROTO_TCP, getattr(_socket, name), max(1, round(delay_s)))
