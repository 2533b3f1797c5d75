"""UDP: `create_datagram` and `Datagram`.

What lives here: sending and receiving datagrams. What must not: anything that makes them reliable; the kernel's options
(`_udp_options`).

Rules
* What is sent before the socket is bound waits for that; sending binds it to any port by itself (N12 of Node's table).
* The descriptor is read and written here, not by a transport: uvloop's drops empty datagrams and cannot be paused.
* 'message' listeners are called for each datagram. While nobody listens or iterates, and for an `async for` that is
  slower than its peers, they stay in the kernel's buffer, which drops the newest when it is full, as UDP does.
"""

from __future__ import annotations

import asyncio
import socket as _socket
from collections import deque
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Any, NamedTuple

from .._limits import DATAGRAM_BATCH
from ..dns._lookup import SocketAddress, addresses
from ..errors import ClosedError, UsageError
from ..events import EventEmitter
from ..loop import AnyOperation, ErrorFirst, Handle, Operation, begin, hub, launch, offload_to
from . import _udp_options as udp
from ._address import Address, checked_port, from_kernel, is_ip
from ._outgoing import Data, as_bytes
from ._provider import bind as provide

_LARGEST_BYTES = 65536


class Message(NamedTuple):
    """One datagram: its bytes, and the (host, port) that it came from."""

    data: bytes
    address: tuple[str, int]


class Datagram(Handle, EventEmitter):
    """A UDP socket, made by `create_datagram`. Keeps `multiloop.run` going while it is open.

    Events: 'listening' (bound) · 'message' (bytes, (host, port)) · 'connect' · 'error' · 'close'.
    Receive with a 'message' listener or with `async for data, address in socket`, not with both.
    """

    def __init__(self, options: udp.DatagramOptions) -> None:
        super().__init__()
        self._hub = hub()
        self._options = options
        self._raw: _socket.socket | None = None
        self._binding: asyncio.Future[None] | None = None
        self._remote: SocketAddress | None = None
        self._unsent: deque[tuple[bytes, SocketAddress | None, AnyOperation[int]]] = deque()
        self._queue: deque[Message] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._iterated = False
        self._reading = False
        self.closed = False

    # -- opening ---------------------------------------------------------------------------------------------------
    def bind(
        self, port: int = 0, host: str | None = None, *, exclusive: bool = False, callback: ErrorFirst | None = None
    ) -> Any:
        """Receive at this port (0: any) of this address (None: every address). An Operation; its result is this object.

        In a cluster's worker the primary binds, and all workers that ask for the same address share the socket: the
        kernel gives each datagram to one of them. `exclusive`: one of this process's own.

        Raises OSError with the address as its `filename`, UsageError when it is bound already. A bind that is cancelled
        when it was just done closes this socket.
        """
        checked_port(port)
        self._check_open()
        if self._raw is not None or self._binding is not None:
            raise UsageError("bind(): this socket is bound already")
        return launch(self._bind(port, host, exclusive), callback, discard=Datagram.close)

    async def _bind(self, port: int, host: str | None, exclusive: bool) -> Datagram:
        self._binding = self._hub.loop.create_future()
        try:
            where = await self._resolve(host or ("::" if self._options.ipv6 else "0.0.0.0"), port)
            raw = await provide(self._options, where, exclusive=exclusive)
        finally:
            binding, self._binding = self._binding, None
            binding.set_result(None)
        if self.closed:
            raw.close()
            self._check_open()
        self._raw = raw
        self._opened(self._hub)
        self._read_on()
        self._hub.call(self.emit, "listening")
        return self

    async def _bound(self) -> Datagram:
        """Wait until bound, binding to any port first if nobody has asked for one."""
        while self._raw is None:
            self._check_open()
            if self._binding is None:
                await self._bind(0, None, True)  # where answers come to: nobody else's
            else:
                await asyncio.shield(self._binding)
        return self

    def connect(self, port: int, host: str = "localhost", *, callback: ErrorFirst | None = None) -> Any:
        """Send to, and receive from, this peer only. An Operation; its result is this object."""
        checked_port(port)
        self._check_open()
        return launch(self._connect(port, host), callback)

    async def _connect(self, port: int, host: str) -> Datagram:
        where = await self._resolve(host, port)
        await self._bound()
        try:
            self._bound_raw().connect(where)
        except OSError as error:
            raise udp.at(error, where) from None
        self._remote = where
        self._hub.call(self.emit, "connect")
        return self

    async def _resolve(self, host: str, port: int) -> SocketAddress:
        if (where := self._numeric(host, port)) is not None:
            return where
        op: Operation[list[tuple[int, SocketAddress]]] = begin()
        offload_to(op, addresses, (host, port, 6 if self._options.ipv6 else 4), slow=True)
        return (await op)[0][1]

    def _numeric(self, host: str, port: int) -> SocketAddress | None:
        fits = is_ip(host) == (6 if self._options.ipv6 else 4) and "%" not in host
        return (host, port) if fits else None

    # -- sending ---------------------------------------------------------------------------------------------------
    def send(
        self, data: Data, port: int | None = None, host: str = "localhost", *, callback: ErrorFirst | None = None
    ) -> Any:
        """Send one datagram to a port of a host, or to the connected peer. An Operation, done when the kernel has it.

        Need not be awaited: its error is then emitted as 'error', if anybody listens. Whether a datagram arrives, nobody
        knows.

        Raises:
            OSError: too long (EMSGSIZE), unreachable, unresolvable; with the address as its `filename`.
            UsageError: no port, and not connected; or a port, and connected.
        """
        raw = bytes(as_bytes(data))
        self._check_open()
        if (port is None) == (self._remote is None):
            raise UsageError("send(): give a port unless the socket is connected, and none if it is")
        where = None if port is None else self._numeric(host, checked_port(port))
        if self._raw is None or (port is not None and where is None):
            op = launch(self._send_when_ready(raw, port, host), callback)
        else:
            op = begin(callback)
            if callback is None:
                self._send(raw, where, op)
            else:
                self._hub.loop.call_soon(self._send, raw, where, op)
        if callback is None:
            op.add_done_callback(self._sent)
        return op

    async def _send_when_ready(self, data: bytes, port: int | None, host: str) -> int:
        where = None if port is None else await self._resolve(host, port)
        await self._bound()
        op: Operation[int] = begin()
        self._send(data, where, op)
        return await op

    def _send(self, data: bytes, where: SocketAddress | None, op: AnyOperation[int]) -> None:
        if self._unsent or not self._try_send(data, where, op):
            if not self._unsent:
                self._hub.loop.add_writer(self._bound_raw(), self._writable)
            self._unsent.append((data, where, op))

    def _try_send(self, data: bytes, where: SocketAddress | None, op: AnyOperation[int]) -> bool:
        """Send now; whether `op` was settled (else the kernel's buffer is full)."""
        raw = self._raw
        if raw is None:
            op._fail(ClosedError("this UDP socket was closed"))
            return True
        try:
            op._succeed(raw.send(data) if where is None else raw.sendto(data, where))
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            op._fail(udp.at(error, where or self._remote))
        return True

    def _writable(self) -> None:
        while self._unsent:
            data, where, op = self._unsent[0]
            if not op.done() and not self._try_send(data, where, op):
                return
            self._unsent.popleft()
        if self._raw is not None:
            self._hub.loop.remove_writer(self._raw)

    def _sent(self, op: asyncio.Future[int]) -> None:
        if not op.cancelled() and (error := op.exception()) is not None:  # looked at: it need not be awaited
            self._hub.call(self._emit_error_if_heard, error)

    # -- receiving -------------------------------------------------------------------------------------------------
    def _listeners_changed(self, name: Hashable, count: int) -> None:
        if name == "message" and count:
            self._read_on()
        elif name == "message" and not self._iterated:
            self._read_no_more()

    def _read_on(self) -> None:
        wanted = self._iterated or self.listener_count("message")
        if wanted and not self._reading and self._raw is not None:
            self._reading = True
            self._hub.loop.add_reader(self._raw, self._readable)

    def _read_no_more(self) -> None:
        if self._reading and self._raw is not None:
            self._reading = False
            self._hub.loop.remove_reader(self._raw)

    def _readable(self) -> None:
        for _ in range(DATAGRAM_BATCH):
            if self._raw is None or not self._reading:
                return
            try:
                data, where = self._raw.recvfrom(_LARGEST_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:  # what the network sent back: a connected peer's port is closed
                self._hub.call(self._emit_error_if_heard, udp.at(error, self._remote))
                continue
            address = (where[0], where[1])
            if not self._iterated:
                self._hub.call(self.emit, "message", data, address)
                continue
            self._queue.append(Message(data, address))
            if len(self._queue) >= DATAGRAM_BATCH:
                self._read_no_more()
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> Datagram:
        if self.listener_count("message"):
            raise UsageError("this socket has 'message' listeners: receive with listeners or with async for, not both")
        self._iterated = True
        return self

    async def __anext__(self) -> Message:
        self._iterated = True
        while not self._queue:
            if self.closed:
                raise StopAsyncIteration
            await self._bound()
            self._read_on()
            if self._waiter is not None and not self._waiter.cancelled():
                raise UsageError("another task waits for this socket's next datagram: one reader at a time")
            waiter = self._waiter = self._hub.loop.create_future()
            try:
                await waiter
            finally:
                if self._waiter is waiter:  # else this one was cancelled, and another waits by now
                    self._waiter = None
        return self._queue.popleft()

    # -- options ---------------------------------------------------------------------------------------------------
    def add_membership(self, group: str, interface: str | None = None) -> None:
        """Receive what is sent to a multicast group. `interface`: the address (IPv4) or name (IPv6) of ours to use."""
        udp.membership(self._bound_raw(), group, interface, join=True)

    def drop_membership(self, group: str, interface: str | None = None) -> None:
        """Leave a multicast group."""
        udp.membership(self._bound_raw(), group, interface, join=False)

    def set_multicast_ttl(self, hops: int) -> None:
        """Let multicast datagrams live for this many hops (1 by default: this network)."""
        udp.set_multicast_ttl(self._bound_raw(), hops)

    def set_multicast_loopback(self, on: bool) -> None:
        """Receive one's own multicast datagrams, too (the default), or not."""
        udp.set_multicast_loopback(self._bound_raw(), on)

    def set_broadcast(self, on: bool) -> None:
        """Allow sending to broadcast addresses, or not."""
        self._bound_raw().setsockopt(_socket.SOL_SOCKET, _socket.SO_BROADCAST, int(on))

    def _bound_raw(self) -> _socket.socket:
        self._check_open()
        if self._raw is None:
            raise UsageError("bind() this socket first: it has no descriptor yet")
        return self._raw

    @property
    def address(self) -> Any:
        """(host, port) that it is bound to; None before and after."""
        return None if self._raw is None else from_kernel(self._raw.getsockname())

    @property
    def remote_address(self) -> Address:
        """(host, port) of the connected peer; None when it has none."""
        return None if self._remote is None else (self._remote[0], self._remote[1])

    # -- closing ---------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Close at once; what the kernel has is sent, what still waits here fails. Safe to call twice."""
        if self.closed:
            return
        self.closed = True
        raw, unsent = self._raw, self._unsent
        if raw is not None:
            self._read_no_more()
            if unsent:
                self._hub.loop.remove_writer(raw)
            raw.close()
        self._raw, self._unsent = None, deque()
        for _, _, op in unsent:
            op._fail(ClosedError("this UDP socket was closed before the datagram left"))
        self._wake()
        self._hub.loop.call_soon(self._tell_closed)

    def _tell_closed(self) -> None:
        self._hub.call(self.emit, "close")
        self._ended()

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError("this UDP socket is closed: make a new one")

    def _shutdown(self) -> None:
        self._events = None
        self.close()
        self._ended()

    async def __aenter__(self) -> Datagram:
        return await self._bound()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Datagram {'closed' if self.closed else self.address or 'not bound'}>"


def create_datagram(
    on_message: Callable[[bytes, tuple[str, int]], Any] | None = None,
    *,
    family: int = 4,
    reuse_address: bool = False,
    reuse_port: bool = False,
    ipv6_only: bool = False,
    broadcast: bool = False,
) -> Datagram:
    """Return a UDP socket (`family` 4 or 6), not bound yet: `await socket.bind(port)`, or just send.

    Args:
        on_message: called with each datagram's bytes and (host, port) (added to 'message').
        reuse_address: share the port with sockets that do so too (multicast receivers).
        reuse_port: share the port; the kernel deals the datagrams out.
        broadcast: allow sending to broadcast addresses.
    """
    if family not in (4, 6):
        raise UsageError(f"create_datagram(family={family!r}): 4 or 6")
    made = Datagram(udp.DatagramOptions(family == 6, reuse_address, reuse_port, ipv6_only, broadcast))
    if on_message is not None:
        made.on("message", on_message)
    return made
