"""A file as the body of a reply: through the kernel where that is possible, in chunks elsewhere.

What lives here: `send_file`. What must not: deciding which file may be sent (`_static`).

`loop.sendfile` is not implemented on uvloop and `add_writer` on a transport's descriptor is refused, so the file goes
out with `os.sendfile` on a duplicate of the socket while the transport's own buffer is empty. TLS reads chunks.
"""

from __future__ import annotations

import asyncio
import os
import stat
from typing import TYPE_CHECKING, Any

from ..loop import offload

if TYPE_CHECKING:
    from ._exchange import Exchange

_PIECE_BYTES = 1 << 20
_CHUNK_BYTES = 64 * 1024


def _open(path: str | bytes) -> tuple[int, int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise IsADirectoryError(21, "not a regular file", os.fsdecode(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status.st_size


async def send_file(exchange: Exchange, path: Any, offset: int = 0, count: int | None = None) -> None:
    """Send `count` bytes of a file from `offset` as the whole body; the reply was started and ends here.

    Raises OSError when the file cannot be opened (nothing was sent then), or when the client is gone.
    """
    descriptor, size = await offload(_open, os.fspath(path))
    try:
        await send_descriptor(exchange, descriptor, offset, size - offset if count is None else count)
    finally:
        os.close(descriptor)


async def send_descriptor(exchange: Exchange, descriptor: int, offset: int, count: int) -> None:
    """Send `count` bytes of an open regular file as the whole body, as `send_file`; the caller closes it."""
    if exchange._left_bytes < 0:
        exchange._left_bytes = count
        exchange._head.append(b"content-length: %d\r\n" % count)
    if exchange._no_body or not count:
        exchange.send_body(b"", False)
        return
    if exchange.connection.listener.is_tls or not hasattr(os, "sendfile"):
        await _send_chunks(exchange, descriptor, offset, count)
        return
    exchange.send_body(b"", True)  # the head
    sent = await _send_by_kernel(exchange, descriptor, offset, count)
    exchange._left_bytes -= sent
    exchange.sent_bytes += sent
    exchange.send_body(b"", False)


async def _send_chunks(exchange: Exchange, descriptor: int, offset: int, length: int) -> None:
    while length:
        piece = await offload(os.pread, descriptor, min(length, _CHUNK_BYTES), offset)
        if not piece:
            exchange.abort_reply()  # the file became shorter: the reply must not look complete
            raise OSError("the file became shorter while it was sent")
        offset += len(piece)
        length -= len(piece)
        exchange.send_body(piece, bool(length))
        room = exchange.connection.write_room()
        if room is not None:
            await room
        if exchange.gone:
            raise ConnectionResetError("the client left")


async def _send_by_kernel(exchange: Exchange, descriptor: int, offset: int, length: int) -> int:
    connection = exchange.connection
    loop = connection.service.loop
    transport = connection.transport
    while transport.get_write_buffer_size():
        if exchange.gone:
            raise ConnectionResetError("the client left")
        await asyncio.sleep(0)
    out = os.dup(transport.get_extra_info("socket").fileno())
    sent_in_all = 0
    try:
        while length:
            if exchange.gone:
                raise ConnectionResetError("the client left")
            try:
                sent = os.sendfile(out, descriptor, offset, min(length, _PIECE_BYTES))
            except BlockingIOError:
                await _writable(loop, out, exchange)
                continue
            except OSError:
                exchange.abort_reply()
                raise
            if not sent:
                exchange.abort_reply()
                raise OSError("the file became shorter while it was sent")
            offset += sent
            length -= sent
            sent_in_all += sent
            await asyncio.sleep(0)  # other connections have their turn between pieces
    finally:
        os.close(out)
    return sent_in_all


async def _writable(loop: asyncio.AbstractEventLoop, descriptor: int, exchange: Exchange) -> None:
    ready: asyncio.Future[None] = loop.create_future()

    def writable() -> None:
        if not ready.done():
            ready.set_result(None)

    connection = exchange.connection
    connection.write_since_s = connection.service.now_s  # the write deadline holds here, too
    loop.add_writer(descriptor, writable)
    try:
        while not ready.done() and not exchange.gone:
            await asyncio.wait([ready], timeout=1.0)
    finally:
        loop.remove_writer(descriptor)
        connection.write_since_s = float("inf")
