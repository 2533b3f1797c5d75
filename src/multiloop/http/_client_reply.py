"""`Reply`: what came back.

What lives here: the head, and the ways to take the body. What must not: sending.
"""

from __future__ import annotations

import asyncio
import json as _json
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

from ..errors import BodyTooLarge, StatusError, UsageError
from ..loop import AnyOperation, CallbackOperation, ErrorFirst, Operation, launch
from ..stream import Readable

if TYPE_CHECKING:
    import aiohttp

    from ._client_options import RequestOptions


class Reply:
    """A reply whose head is there; its body comes as it is taken.

    Take the body with `await reply.read()`, `text()` or `json()` (each also with `callback=`), or in pieces:
    `async for chunk in reply.body`. The connection goes back to the agent when the body was taken to its end; a body that
    is not wanted is given up by `close()`, by `async with`, or by dropping the reply.

    Attributes: `status`, `reason` ("OK"), `headers` (names in any case; `getall` for repeated ones), `url` (the last one),
    `redirected`, `ok` (status below 400).
    """

    def __init__(self, raw: aiohttp.ClientResponse, options: RequestOptions) -> None:
        self._raw = raw
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._body: ReplyBody | None = None
        self._content: bytes | None = None
        self.status = raw.status
        self.reason = raw.reason or ""
        self.headers = raw.headers
        self.url = str(raw.url)
        self.redirected = bool(raw.history)

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status < 400

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies that this reply sets."""
        return {name: morsel.value for name, morsel in self._raw.cookies.items()}

    def raise_for_status(self) -> Reply:
        """Return itself. Raises StatusError for a status of 400 or above."""
        if not self.ok:
            self.close()
            raise StatusError(self.status, self.reason, self.url)
        return self

    @property
    def body(self) -> ReplyBody:
        """The body as a stream of bytes, decompressed: `async for chunk in reply.body`."""
        if self._body is None:
            if self._content is not None:
                raise UsageError("this body was read already: use what read() gave")
            self._body = ReplyBody(self)
        return self._body

    @overload
    def read(self, *, max_size: int | None = None) -> Operation[bytes]: ...
    @overload
    def read(self, *, max_size: int | None = None, callback: ErrorFirst) -> CallbackOperation[bytes]: ...
    def read(self, *, max_size: int | None = None, callback: ErrorFirst | None = None) -> AnyOperation[bytes]:
        """Take the whole body; again and again if you like.

        Raises:
            BodyTooLarge: it is over `max_size` bytes (after decompression); the rest is given up.
            ReplyIncomplete: the connection ended before its end.
            RequestTimeout: nothing came for too long.
        """
        op: AnyOperation[bytes] = launch(self._read(max_size), callback)
        return op

    @overload
    def text(self, encoding: str | None = None, *, max_size: int | None = None) -> Operation[str]: ...
    @overload
    def text(
        self, encoding: str | None = None, *, max_size: int | None = None, callback: ErrorFirst
    ) -> CallbackOperation[str]: ...
    def text(
        self, encoding: str | None = None, *, max_size: int | None = None, callback: ErrorFirst | None = None
    ) -> AnyOperation[str]:
        """Take the whole body as text, in the encoding that it says it has, else UTF-8; broken characters become U+FFFD."""
        op: AnyOperation[str] = launch(self._text(encoding, max_size), callback)
        return op

    @overload
    def json(self, *, max_size: int | None = None) -> Operation[Any]: ...
    @overload
    def json(self, *, max_size: int | None = None, callback: ErrorFirst) -> CallbackOperation[Any]: ...
    def json(self, *, max_size: int | None = None, callback: ErrorFirst | None = None) -> AnyOperation[Any]:
        """Take the whole body as JSON, whatever its content type. Raises ValueError when it is none."""
        op: AnyOperation[Any] = launch(self._json(max_size), callback)
        return op

    async def _read(self, max_size: int | None) -> bytes:
        if self._content is None:
            if self._body is not None:
                raise UsageError("this body is being taken in pieces: read() comes too late")
            pieces: list[bytes] = []
            size_bytes = 0
            while piece := await self._next():
                size_bytes += len(piece)
                if max_size is not None and size_bytes > max_size:
                    self.close()
                    raise BodyTooLarge(max_size, self.url)
                pieces.append(piece)
            self._content = b"".join(pieces)
        return self._content

    async def _text(self, encoding: str | None, max_size: int | None) -> str:
        content = await self._read(max_size)
        return content.decode(encoding or self._raw.charset or "utf-8", "replace")

    async def _json(self, max_size: int | None) -> Any:
        content = await self._read(max_size)
        return _json.loads(content) if content else None

    async def _next(self) -> bytes:
        """Return the next piece, b"" at the end."""
        from ._client_engine import translated

        timeouts = self._options.timeouts
        piece: bytes
        deadline = asyncio.timeout(timeouts.body)
        try:
            with translated(self.url, timeouts, None, deadline):
                async with deadline:
                    piece = await self._raw.content.readany()
        except BaseException:
            self._raw.close()  # the rest will never come, or nobody wants it
            raise
        return piece

    def close(self) -> None:
        """Give up what of the body was not taken. The connection is kept only if there was nothing left."""
        if self._body is not None and not self._body.destroyed:
            self._body.destroy()
        if self._raw.content.at_eof():
            self._raw.release()
        else:
            self._raw.close()

    def __del__(self) -> None:
        # aiohttp's response is held by its own open connection, so that nobody else would ever close it.
        if not self._raw.closed:
            try:
                self._loop.call_soon_threadsafe(self._raw.close)  # collected on whatever thread
            except RuntimeError:
                pass  # the loop is over, and has closed its connections

    async def __aenter__(self) -> Reply:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Reply {self.status} {self.reason} from {self.url}>"


class ReplyBody(Readable):
    """The body of a reply as a stream. Leaving an `async for` gives up the rest."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self._reply = reply

    async def _read(self, size: int) -> bytes | None:
        return await self._reply._next() or None

    def _destroy(self, error: BaseException | None) -> None:
        self._reply.close()
