"""`http.request`: Node's face of the client: write the body as it comes, hear of the reply.

What lives here: `ClientRequest`, a writable stream that becomes a request. What must not: sending (`_client`).

When it is sent: with the first `write()`, in pieces; or with `end()`, whole (with its length) if `end(data)` is all that
was written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Sequence
from typing import Any, Unpack

from ..errors import UsageError
from ..loop import AnyOperation, ErrorFirst, check_callback, launch
from ..stream import Writable
from ._client import exchange
from ._client_options import RequestKeywords, RequestOptions, body_of, checked
from ._client_reply import Reply


class ClientRequest(Writable):
    """A request that is being written; made by `http.request`.

    `write()`, `drain()` and `end()` as any writable stream. The reply comes as 'response' (Reply), to the callback, or to
    who awaits the request: `reply = await request`. What goes wrong is the stream's error, and goes the same three ways.
    `destroy()` gives the request up, whatever it has come to; the connection is closed then.
    Events: 'response' · 'drain' · 'finish' (everything was sent) · 'error' · 'close'.
    """

    def __init__(self, options: RequestOptions, callback: ErrorFirst | None) -> None:
        check_callback(callback)
        super().__init__()
        self._options = options
        self._callback = callback
        self._op: AnyOperation[Reply] | None = None
        self._piece: asyncio.Future[bytes] | None = None  # what the sender waits for
        self._taken: asyncio.Future[None] | None = None  # set when it asks for the next
        self._sender_left = False  # it will take no more: the server has answered and hung up
        self.reply: Reply | None = None
        self.method = options.method
        self.url = options.url
        if callback is not None:
            self._seen = True  # errors go there

    def set_header(self, name: str, value: str) -> None:
        """Set a header, in place of any of that name. Raises UsageError when the request is under way."""
        self.remove_header(name)
        self._options.headers.extend(
            checked(self.url, self.method, headers=[(name, value)], agent=self._options.agent).headers
        )

    def remove_header(self, name: str) -> None:
        """Leave a header out. Raises UsageError when the request is under way."""
        if self._op is not None:
            raise UsageError("the headers of this request are sent already: set them before the first write()")
        kept = [pair for pair in self._options.headers if pair[0].lower() != name.lower()]
        self._options.headers[:] = kept

    # -- the body --------------------------------------------------------------------------------------------------
    async def _writev(self, chunks: Sequence[bytes]) -> None:
        data = b"".join(chunks)
        if self._op is None and self.writable_ended and not self._queue:
            self._start(data)  # all there is
            return
        if self._op is None:
            self._start(self._pieces())
        while data and not self._sender_left:
            if self._piece is not None and not self._piece.done():
                self._piece.set_result(data)
                data = b""
            self._taken = self._hub.loop.create_future()
            await self._taken

    async def _final(self) -> None:
        if self._op is None:
            self._start(None)
        elif self._piece is not None and not self._piece.done():
            self._piece.set_result(b"")

    async def _pieces(self) -> AsyncIterator[bytes]:
        try:
            while True:
                self._piece = self._hub.loop.create_future()
                self._ask_for_more()
                piece = await self._piece
                if not piece:
                    return
                yield piece
        finally:
            self._sender_left = True
            self._ask_for_more()

    def _ask_for_more(self) -> None:
        if self._taken is not None and not self._taken.done():
            self._taken.set_result(None)

    def _start(self, body: bytes | AsyncIterator[bytes] | None) -> None:
        data, repeatable = body_of(self._options, body, None)
        self._op = launch(exchange(self._options, data, repeatable), self._answered, discard=Reply.close)

    # -- the reply -------------------------------------------------------------------------------------------------
    def _answered(self, error: BaseException | None, reply: Reply | None) -> None:
        if error is not None:
            if not self.destroyed:
                self.destroy(error)
            return
        assert reply is not None
        if self.destroyed:
            reply.close()
            return
        self.reply = reply
        if self._callback is not None:
            self._hub.call(self._callback, None, reply)
        self.emit("response", reply)
        self._maybe_close()

    def _maybe_close(self) -> None:
        if self.reply is not None and self.writable_finished:
            self.destroy()  # the reply lives on without it

    def _drop(self) -> None:
        super()._drop()
        if self._op is not None and not self._op.done():
            self._op.cancel()
        if self._callback is not None and self.reply is None:
            self._hub.loop.call_soon(self._hub.call, self._callback, self._gone(), None)

    async def _wait(self) -> Reply:
        self._awaited = True
        if self.reply is None and not self.destroyed:
            waiter: asyncio.Future[None] = self._hub.loop.create_future()

            def wake(*_: Any) -> None:
                if not waiter.done():
                    waiter.set_result(None)

            self.once("response", wake)
            self.once("close", wake)
            try:
                await waiter
            finally:
                self.off("response", wake)
                self.off("close", wake)
        if self.reply is None:
            raise self._gone()
        return self.reply

    def __await__(self) -> Generator[Any, None, Reply]:
        return self._wait().__await__()

    def __repr__(self) -> str:
        return f"<ClientRequest {self.method} {self.url}>"


def request(
    url: str, *, method: str = "GET", callback: ErrorFirst | None = None, **options: Unpack[RequestKeywords]
) -> ClientRequest:
    """Make a request to write to: `request.write(data)`, `request.end()`, `reply = await request`.

    `end()` is needed for every method, as in Node; for a body that is at hand, `fetch` is simpler. Options and errors as
    `fetch`, of which the same connections are used; a Content-Length that contradicts an `end(data)` is the stream's
    error, and nothing is sent. `callback(error, reply)` is called once.
    """
    return ClientRequest(checked(url, method, **options), callback)
