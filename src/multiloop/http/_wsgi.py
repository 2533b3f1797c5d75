"""WSGI (PEP 3333): one thread for each request while the application runs, the loop for all that waits for the network.

What lives here: `WsgiExchange`. What must not: the threads (`_wsgi_threads`), the environ, `wsgi.input`, framing.

    loop: start → WsgiThreads.submit ║ thread: run → app → start_response, blocks → post ║ loop: start_reply, send_body

Guarantees
* A reply that is known whole costs one wake-up of the loop. A streamed one leaves block by block: a slow client stops its
  own thread only, above the high-water mark and no longer than the write timeout.
* The application is never cancelled; a client that left ends the iteration, `close()` of the iterable is always called.
* An exception before the first block is a logged 500; after it the connection is cut. A body is held to its
  Content-Length: more is left out and logged, less cuts the connection.
* Hop-by-hop fields are refused (ValueError from `start_response`), but for what is harmless in `Connection`.
"""

from __future__ import annotations

import io
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .._limits import WRITE_HIGH_WATER_BYTES
from .._wire.http1 import LENGTH, Fields, header_line
from ._asgi import ClientLeft
from ._exchange import DONE, Exchange, ReplyError
from ._sharing import local_address
from ._wsgi_environ import ErrorStream, FileWrapper, base_environ, make_environ
from ._wsgi_input import WsgiInput
from ._wsgi_threads import WsgiThreads as WsgiThreads

if TYPE_CHECKING:
    from types import TracebackType

    from ._connection import Connection

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

log = logging.getLogger("multiloop.http")

_HOP_BY_HOP = {"keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "trailers"}
_HOP_BY_HOP |= {"transfer-encoding", "upgrade"}
_SMALL_FILE_BYTES = 64 * 1024  # read and sent in one piece; larger ones by the kernel
_PLAIN_FILES = (io.FileIO, io.BufferedReader, io.BufferedRandom)


class WsgiExchange(Exchange):
    """A request that a WSGI application answers. What the loop calls for the thread is named `_on_loop_*`."""

    __slots__ = ("_announced_bytes", "_client", "_complete", "_fields", "_first", "_head_posted", "_input",
                 "_overlong", "_posted_bytes", "_room", "_server", "_status_given", "_task", "_written_bytes")  # fmt: skip

    def __init__(self, connection: Connection, method: str) -> None:
        Exchange.__init__(self, connection, method)
        self._input: WsgiInput | None = None
        self._room: threading.Event | None = None
        # of the thread
        self._status_given = 0
        self._fields: Fields = []
        self._announced_bytes = -1  # Content-Length as the application gave it
        self._head_posted = False
        self._complete = False  # all that the reply may have was posted
        self._overlong = False
        self._posted_bytes = 0
        # of the loop
        self._written_bytes = 0

    # -- on the loop ---------------------------------------------------------------------------------------------------
    def start(self) -> None:
        connection = self.connection
        self._client = connection.peer()
        self._server = local_address(connection.transport) if connection.listener.server is None else None
        self._first = self.take_body()
        if not self.body_done:
            ask = self._ask_for_body if self.expect_continue else None
            self._input = WsgiInput(self._first, connection.pause_reading, self._take_more, ask)
        if not self._threads().submit(self):
            self.fail(503, retry_after_s=1)

    def _threads(self) -> WsgiThreads:
        threads: WsgiThreads = self.connection.service._runner
        return threads

    def feed_body(self, body: bytes) -> None:
        if self._input is None:
            Exchange.feed_body(self, body)
        elif self.reply_state != DONE:
            self._input.feed(body)

    def feed_end(self) -> None:
        self.body_done = True
        if self._input is not None:
            self._input.end()

    def disconnected(self, *, half: bool) -> None:
        if half:
            return
        self.gone = True
        if self._input is not None:
            self._input.cut()
        if self._room is not None:
            self._room.set()

    def _on_loop_resume(self, _: None) -> None:
        if self.connection.current is self:
            self.connection.resume_reading()

    def _on_loop_continue(self, _: None) -> None:
        if not self.body_done:
            self.send_continue()

    def _on_loop_whole(self, body: bytes) -> None:
        if self.reply_state != DONE:
            try:
                self.start_reply(self._status_given, self._fields)
                self.send_body(body, False)
            except Exception as error:
                self._on_loop_failed(error)

    def _on_loop_head(self, block: bytes) -> None:
        if self.reply_state != DONE:
            try:
                self.start_reply(self._status_given, self._fields)
            except Exception as error:
                self._on_loop_failed(error)
            else:
                self._on_loop_block(block)

    def _on_loop_block(self, block: bytes) -> None:
        self._written_bytes += len(block)
        if self.reply_state != DONE:
            try:
                self.send_body(block, True)
            except Exception as error:
                self._on_loop_failed(error)

    def _on_loop_last(self, block: bytes) -> None:
        if self.reply_state != DONE:
            try:
                self.send_body(block, False)
            except Exception as error:
                self._on_loop_failed(error)

    def _on_loop_failed(self, error: BaseException | None) -> None:
        if error is not None:
            self._log_failure(error)
        if self.reply_state != DONE:
            self.fail()

    def _on_loop_file(self, file: tuple[int, int, int]) -> None:
        self._task = self.connection.service.loop.create_task(self._send_file(*file))

    async def _send_file(self, descriptor: int, offset: int, count: int) -> None:
        from ._sendfile import send_descriptor

        try:
            if self.reply_state != DONE:
                self.start_reply(self._status_given, self._fields)
                await send_descriptor(self, descriptor, offset, count)
        except Exception as error:
            self._on_loop_failed(error)
        finally:
            os.close(descriptor)

    def _on_loop_tell_room(self, room: threading.Event) -> None:
        waiter = None if self.gone or self.reply_state == DONE else self.connection.write_room()
        if waiter is None:
            room.set()
        else:
            waiter.add_done_callback(lambda _: room.set())

    # -- on the thread -------------------------------------------------------------------------------------------------
    def _post(self, call: Callable[[Any], None], argument: Any) -> None:
        self._threads().post(call, argument)

    def _take_more(self) -> None:
        self._post(self._on_loop_resume, None)

    def _ask_for_body(self) -> None:
        self._post(self._on_loop_continue, None)

    def run(self) -> None:
        """Call the application and send what it returns."""
        errors = ErrorStream()
        result: Any = None
        try:
            if self.gone:
                raise ClientLeft("the client left before its request was looked at")
            service = self.connection.service
            result = service.app(self._environ(errors), self.start_response)
            if type(result) is FileWrapper and not self._head_posted and self._give_to_kernel(result):
                return
            self._send_blocks(result)
        except BaseException as error:
            self._complete = True
            self._log_failure(error)
            self._post(self._on_loop_failed, None)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                try:
                    close()
                except Exception:
                    log.exception("close() of a reply raised at %s %s", self.method, self.path.decode("ascii"))
            errors.flush()

    def _environ(self, errors: ErrorStream) -> dict[str, Any]:
        listener = self.connection.listener
        bases = self._threads().environs
        base = bases.get(listener.index)
        if base is None:
            base = bases[listener.index] = base_environ(self.connection.service, listener)
        body = self._input if self._input is not None else io.BytesIO(self._first)
        environ = make_environ(self, base, body, errors, self._client)
        if self._server is not None:
            environ["SERVER_NAME"] = self._server[0]
            environ["SERVER_PORT"] = str(self._server[1])
        return environ

    def start_response(
        self, status: str, headers: Iterable[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """Take status and headers (PEP 3333); returns `write`.

        Raises ReplyError when called twice without `exc_info`, the exception in it when the head is on its way,
        ValueError or TypeError for what HTTP or WSGI does not allow. Nothing was taken then.
        """
        if exc_info is not None:
            try:
                if self._head_posted:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle through this frame
        elif self._status_given:
            raise ReplyError("start_response was called twice; only with exc_info it may be")
        code = _status_code(status)
        fields: Fields = []
        announced = -1
        for name, value in headers:
            try:
                field = (name.encode("latin-1"), value.encode("latin-1"))
            except (AttributeError, UnicodeEncodeError) as error:
                raise TypeError(f"a header is a pair of latin-1 str, not ({name!r:.100}, {value!r:.100})") from error
            _, kind, number = header_line(*field)
            if kind == LENGTH:
                announced = number
            elif name.lower() in _HOP_BY_HOP or (name.lower() == "connection" and not _is_harmless(value)):
                raise ValueError(f"{name!r} is the server's to send: PEP 3333 forbids hop-by-hop fields")
            fields.append(field)
        self._status_given = code
        self._fields = fields
        self._announced_bytes = announced
        return self.write

    def write(self, block: bytes) -> None:
        """Send a piece of the body now and wait while the client takes nothing (PEP 3333; new code returns iterables)."""
        if block and self._complete:
            self._cut_to_length(block, 0)
        elif block:
            self._send_block(block)

    def _send_blocks(self, result: Iterable[Any]) -> None:
        if isinstance(result, list | tuple) and len(result) == 1 and not self._head_posted:
            self._send_whole(result[0])
            return
        for block in result:
            if block:
                if self._complete:
                    if self.method != "HEAD":
                        self._cut_to_length(block, 0)
                    return
                self._send_block(block)
            elif not isinstance(block, bytes):
                _check_block(block)
        if not self._head_posted:
            self._send_whole(b"")
        elif not self._complete:
            self._complete = True
            self._post(self._on_loop_last, b"")

    def _send_whole(self, block: bytes) -> None:
        if type(block) is not bytes:
            block = _check_block(block)
        self._must_be_started()
        if 0 <= self._announced_bytes < len(block):
            block = self._cut_to_length(block, self._announced_bytes)
        self._head_posted = self._complete = True
        self._post(self._on_loop_whole, block)

    def _send_block(self, block: bytes) -> None:
        """Post one block; the reply's last one as such, when its Content-Length says so."""
        if type(block) is not bytes:
            block = _check_block(block)
        if self.gone:
            raise ClientLeft("the client left")
        last = self.method == "HEAD"
        if self._announced_bytes >= 0 and not last:
            left = self._announced_bytes - self._posted_bytes
            if len(block) > left:
                block = self._cut_to_length(block, left)
            last = len(block) == left
        self._posted_bytes += len(block)
        self._complete = last
        if not self._head_posted:
            self._must_be_started()
            self._head_posted = True
            self._post(self._on_loop_whole if last else self._on_loop_head, block)
        else:
            self._post(self._on_loop_last if last else self._on_loop_block, block)
        if not last and (
            self._posted_bytes - self._written_bytes > WRITE_HIGH_WATER_BYTES
            or self.connection.write_room() is not None
        ):
            self._wait_for_room()

    def _wait_for_room(self) -> None:
        room = self._room
        if room is None:
            room = self._room = threading.Event()
        else:
            room.clear()
        self._post(self._on_loop_tell_room, room)  # looked at behind the blocks that were posted before
        room.wait()
        if self.gone:
            raise ClientLeft("the client left")

    def _must_be_started(self) -> None:
        if not self._status_given:
            raise ReplyError("the application sent a body before it called start_response")

    def _cut_to_length(self, block: bytes, left: int) -> bytes:
        if not self._overlong:
            self._overlong = True  # said once
            log.error("the body at %s %s is longer than its content-length", self.method, self.path.decode("ascii"))
        return block[:left]

    def _give_to_kernel(self, wrapper: FileWrapper) -> bool:
        """Let the loop send a plain file on its own, if that is what the application returned."""
        found = _plain_file(wrapper.filelike)
        if found is None:
            return False
        descriptor, offset, count = found
        self._must_be_started()
        if self._announced_bytes >= 0:
            count = min(count, self._announced_bytes)
        self._head_posted = self._complete = True
        if count <= _SMALL_FILE_BYTES:
            self._post(self._on_loop_whole, os.pread(descriptor, count, offset))
        else:
            self._post(self._on_loop_file, (os.dup(descriptor), offset, count))
        return True

    def _log_failure(self, error: BaseException) -> None:
        if self.gone and isinstance(error, OSError):
            log.debug("the client left before the reply was complete: %s", error)
        else:
            log.error("the application raised at %s %s", self.method, self.path.decode("ascii"), exc_info=error)


def _status_code(status: Any) -> int:
    code = status[:3] if isinstance(status, str) else ""
    if not (code.isascii() and code.isdigit() and status[3:4] in ("", " ")) or not 200 <= int(code) <= 999:
        raise ValueError(f"a status is a str as '200 OK' (no 1xx), not {status!r:.100}")
    return int(code)


def _is_harmless(connection: str) -> bool:
    return connection.strip().lower() in ("close", "keep-alive")


def _check_block(block: Any) -> bytes:
    if not isinstance(block, bytes):
        raise TypeError(f"a WSGI body is made of bytes, not {type(block).__name__}")
    return bytes(block)


def _plain_file(filelike: Any) -> tuple[int, int, int] | None:
    """Descriptor, position and bytes left of a file that the kernel can send; None for anything else."""
    filelike = getattr(filelike, "file", filelike)  # tempfile's and Django's wrappers
    if type(filelike) not in _PLAIN_FILES:
        return None  # what decompresses has a descriptor, too, and other bytes in it
    try:
        descriptor = filelike.fileno()
        status = os.fstat(descriptor)
        offset = filelike.tell()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return descriptor, offset, max(0, status.st_size - offset)
