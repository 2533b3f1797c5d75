"""`net.connect`: from a name and a port to a socket.

What lives here: the steps, in order: look the name up, race its addresses (`_race`), TLS, 'connect'. What must not: the
race itself.
"""

from __future__ import annotations

import asyncio
import socket as _socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack, overload

from .._limits import HAPPY_EYEBALLS_DELAY_S, SOCKET_HIGH_WATER_BYTES, TLS_HANDSHAKE_TIMEOUT_S
from ..dns._lookup import addresses
from ..errors import UsageError
from ..loop import AnyOperation, CallbackOperation, ErrorFirst, Operation, begin, launch, offload_to
from ._address import checked_port, is_ip, readable
from ._attach import attach, attach_tls
from ._race import Candidate, connect_any, interleaved
from ._socket import Socket
from ._tls import client_context
from ._unix import as_path, checked_path

Lookup = Callable[[str], Awaitable[Iterable[Any]]]

_FULL_BACKLOG_WAIT_S = 0.002  # a Unix server's backlog was full: look again so soon, then less and less often


class ConnectKeywords(TypedDict, total=False):
    """The options of `connect` beside port and host."""

    path: str | None
    tls: bool | ssl.SSLContext
    server_hostname: str | None
    tls_handshake_timeout: float
    local_address: tuple[str, int] | None
    family: int
    attempt_delay: float
    lookup: Lookup | None


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """What `connect` was told."""

    port: int | None = None
    host: str = "localhost"
    path: str | None = None
    tls: bool | ssl.SSLContext = False
    server_hostname: str | None = None
    tls_handshake_timeout: float = TLS_HANDSHAKE_TIMEOUT_S
    local_address: tuple[str, int] | None = None
    family: int = 0
    attempt_delay: float = HAPPY_EYEBALLS_DELAY_S
    lookup: Lookup | None = None

    def checked(self) -> ConnectOptions:
        """Return itself. Raises UsageError, TypeError or ValueError for what cannot be meant."""
        if (self.port is None) == (self.path is None):
            raise UsageError("connect(): give a port (and a host), or a path")
        if self.path is not None:
            as_path(self.path)
            if self.tls and self.server_hostname is None and getattr(self.tls, "check_hostname", True):
                raise UsageError("connect(path=, tls=): whose certificate? Give server_hostname=")
        else:
            checked_port(self.port)
            if not self.host or "\0" in self.host:
                raise ValueError(f"not a host: {self.host!r}")
        if self.family not in (0, 4, 6):
            raise UsageError(f"connect(family={self.family!r}): 4, 6, or 0 for either")
        if self.attempt_delay < 0.01:
            raise UsageError(f"connect(attempt_delay={self.attempt_delay!r}): at least 0.01 seconds")
        return self


@overload
def connect(
    port: int | None = ...,
    host: str = ...,
    *,
    allow_half_open: bool = ...,
    high_water_mark: int = ...,
    no_delay: bool = ...,
    keep_alive: bool = ...,
    **options: Unpack[ConnectKeywords],
) -> Operation[Socket]: ...
@overload
def connect(
    port: int | None = ...,
    host: str = ...,
    *,
    allow_half_open: bool = ...,
    high_water_mark: int = ...,
    no_delay: bool = ...,
    keep_alive: bool = ...,
    callback: ErrorFirst,
    **options: Unpack[ConnectKeywords],
) -> CallbackOperation[Socket]: ...
def connect(
    port: int | None = None,
    host: str = "localhost",
    *,
    allow_half_open: bool = False,
    high_water_mark: int = SOCKET_HIGH_WATER_BYTES,
    no_delay: bool = True,
    keep_alive: bool = False,
    callback: ErrorFirst | None = None,
    **options: Unpack[ConnectKeywords],
) -> AnyOperation[Socket]:
    """Connect to a port of a host, or to a Unix `path`: `socket = await net.connect(8000, "localhost")`.

    A host with several addresses is tried on all of them (happy eyeballs). Cancelling closes what was opened; for a
    limit in time, `async with asyncio.timeout(5)` or cancel the operation. Takes Socket's own options, too, and:

    Args:
        path: of a Unix socket, instead of a port.
        tls: True checks the server's certificate against the system's authorities; or an ssl.SSLContext.
        server_hostname: the name that the certificate must be for (default: the host).
        tls_handshake_timeout: seconds for the handshake.
        local_address: (host, port) to connect from; port 0 is any.
        family: 4 or 6 to use no other.
        attempt_delay: seconds of head start for each address.
        lookup: an async function from host to addresses (texts, or `dns.LookupAddress`), instead of the system's.

    Raises:
        OSError: refused, unreachable, unresolvable (socket.gaierror), certificate not good (ssl.SSLError); the address
            or host is its `filename`. When several addresses failed, `__cause__` groups the reasons.
    """
    socket = Socket(
        allow_half_open=allow_half_open, high_water_mark=high_water_mark, no_delay=no_delay, keep_alive=keep_alive
    )
    return start(socket, ConnectOptions(port=port, host=host, **options), callback)


def start(socket: Socket, options: ConnectOptions, callback: ErrorFirst | None) -> AnyOperation[Socket]:
    """Begin to connect this socket."""
    options.checked()
    if options.tls and socket.allow_half_open:
        raise UsageError("allow_half_open=True with tls: TLS connections cannot be half-closed here")
    op: AnyOperation[Socket] = launch(_connect(socket, options), callback, discard=Socket.destroy)
    socket._attempt = op
    return op


async def _connect(socket: Socket, options: ConnectOptions) -> Socket:
    try:
        raw = await _open(options)
        socket._remote = options.path
        await _attach(socket, raw, options)
    except Exception as error:
        _failed(socket, error)
        raise
    except BaseException:  # cancelled
        socket.destroy()
        socket._hub.loop.call_soon(socket._lost, None)  # uvloop's half-made transport tells of its end to nobody
        raise
    if not socket.destroyed:
        socket._hub.call(socket.emit, "connect")
    return socket


def _failed(socket: Socket, error: Exception) -> None:
    op, socket._attempt = socket._attempt, None  # no cycle with the error: an operation nobody awaits must be missed
    if isinstance(op, Operation) and socket.listener_count("error"):
        op.add_done_callback(_seen)  # somebody is told below: the operation need not be awaited, too
    socket.error = error
    socket.destroyed = True
    # On a later turn: the awaiter or the callback hears of it first, and a listener may still be added.
    socket._hub.loop.call_soon(socket._lost, error)


def _seen(op: asyncio.Future[Any]) -> None:
    if not op.cancelled():
        op.exception()


async def _open(options: ConnectOptions) -> _socket.socket:
    if options.path is not None:
        return await _open_path(checked_path(options.path))
    assert options.port is not None
    return await connect_any(
        await _candidates(options, options.port), options.host, options.attempt_delay, options.local_address
    )


async def _candidates(options: ConnectOptions, port: int) -> list[Candidate]:
    host, wanted = options.host, options.family
    if (version := is_ip(host)) and "%" not in host:
        found: list[Candidate] = [_candidate(host, version, port)]
    elif options.lookup is not None:
        texts = [answer if isinstance(answer, str) else answer[0] for answer in await options.lookup(host)]
        found = [_candidate(text, is_ip(text), port) for text in texts]
    else:
        op: Operation[list[Candidate]] = begin()
        offload_to(op, addresses, (host, port, wanted), slow=True)
        found = await op
    family = {4: _socket.AF_INET, 6: _socket.AF_INET6}.get(wanted)
    kept = interleaved(each for each in found if family is None or each[0] == family)
    if not kept:
        name = readable((host, port))
        raise OSError(_socket.EAI_NONAME, f"no address{f' of IPv{wanted}' if wanted else ''}", name)
    return kept


def _candidate(text: str, version: int, port: int) -> Candidate:
    if not version:
        raise UsageError(f"connect(lookup=...): it answered {text!r}, which is no IP address")
    return (_socket.AF_INET6 if version == 6 else _socket.AF_INET, (text, port))


async def _open_path(path: str) -> _socket.socket:
    raw = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    raw.setblocking(False)
    wait_s = _FULL_BACKLOG_WAIT_S
    try:
        while True:
            try:
                raw.connect(path)
            except BlockingIOError:
                # The server's backlog is full. Polling shows nothing in this state, and loops take it for connected.
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, 0.1)
            else:
                return raw
    except OSError as error:
        raw.close()
        raise OSError(error.errno, error.strerror, path) from None
    except BaseException:
        raw.close()
        raise


async def _attach(socket: Socket, raw: _socket.socket, options: ConnectOptions) -> None:
    if not options.tls:
        await attach(socket, raw)
        return
    try:
        context = await client_context(options.tls)
    except BaseException:
        raw.close()
        raise
    host = options.server_hostname or ("" if options.path is not None else options.host)
    try:
        await attach_tls(socket, raw, context, host, options.tls_handshake_timeout)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = options.path or readable((options.host, options.port or 0))
        raise
