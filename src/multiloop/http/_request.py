"""What a native handler gets: `Request`, `Headers`.

What lives here: the types. What must not: when they are made (`_handler`).
"""

from __future__ import annotations

import json as _json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from ._exchange import Exchange


class Headers(Mapping[str, str]):
    """The fields of a request: names without regard to case, values as latin-1 text.

    `headers[name]` joins fields of the same name with ", " (RFC 9110 5.3); `get_all(name)` gives each.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self.raw = raw

    def get_all(self, name: str) -> list[str]:
        """Every value of this name, in order."""
        wanted = name.lower().encode("latin-1")
        return [value.decode("latin-1") for key, value in self.raw if key == wanted]

    def __getitem__(self, name: str) -> str:
        found = self.get_all(name)
        if not found:
            raise KeyError(name)
        return found[0] if len(found) == 1 else ("; " if name.lower() == "cookie" else ", ").join(found)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key.decode("latin-1") for key, _ in self.raw))

    def __len__(self) -> int:
        return len({key for key, _ in self.raw})

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"


class Request:
    """A request as a native handler gets it. The body is read by `await`, or piece by piece with `async for`."""

    __slots__ = ("_body", "_exchange", "_headers", "_path", "_query", "context")

    _exchange: Exchange

    def __init__(self, exchange: Exchange) -> None:
        self.begin(exchange)

    def begin(self, exchange: Exchange) -> None:
        """Be what a handler sees of this exchange."""
        self._exchange = exchange
        self._path: str | None = None
        self._query: dict[str, str] | None = None
        self._headers: Headers | None = None
        self._body: bytes | None = None
        self.context: dict[str, Any] | None = None  # the application's own; None until it sets one

    @property
    def method(self) -> str:
        """The method, upper case."""
        return self._exchange.method

    @property
    def path(self) -> str:
        """The path, percent-decoded, without the query."""
        if self._path is None:
            from ._asgi import decode_path

            self._path = decode_path(self._exchange.path)
        return self._path

    @property
    def raw_path(self) -> bytes:
        """The path as it came, still percent-encoded."""
        return self._exchange.path

    @property
    def query_string(self) -> str:
        """The query as it came, without the question mark."""
        return self._exchange.query.decode("ascii")

    @property
    def query(self) -> dict[str, str]:
        """The query's fields; of a name that comes twice, the last."""
        if self._query is None:
            self._query = dict(parse_qsl(self.query_string, keep_blank_values=True, max_num_fields=1000))
        return self._query

    @property
    def url(self) -> str:
        """Path and query as they came (Node's `request.url`)."""
        query = self._exchange.query
        return (self._exchange.path + (b"?" + query if query else b"")).decode("ascii")

    @property
    def headers(self) -> Headers:
        """The header fields."""
        if self._headers is None:
            self._headers = Headers(self._exchange.headers)
        return self._headers

    @property
    def trailers(self) -> Headers:
        """The trailer fields of a chunked body; complete once the body was read."""
        return Headers(self._exchange.trailers or [])

    @property
    def http_version(self) -> str:
        """ "1.1" or "1.0"."""
        return self._exchange.http_version

    @property
    def client(self) -> tuple[str, int] | None:
        """The client's address and port (what a trusted proxy says it is); None on a Unix socket."""
        connection = self._exchange.connection
        proxies = connection.service.proxies
        if proxies is not None:
            client: tuple[str, int] | None = proxies.client_of(connection.peer(), self._exchange.headers)
            return client
        return connection.peer()

    @property
    def is_disconnected(self) -> bool:
        """Whether the client is gone."""
        return self._exchange.gone

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        exchange = self._exchange
        while True:
            await exchange.wait_for_body()
            piece = exchange.take_body()
            if piece:
                yield piece
            elif exchange.body_done:
                return
            elif exchange.gone:
                raise ConnectionResetError("the client left before its body was complete")

    async def body(self) -> bytes:
        """The whole body. Raises ConnectionResetError when the client leaves before its end."""
        if self._body is None:
            self._body = b"".join([piece async for piece in self])
        return self._body

    async def text(self, encoding: str = "utf-8") -> str:
        """The whole body as text. Raises UnicodeDecodeError."""
        return (await self.body()).decode(encoding)

    async def json(self) -> Any:
        """The whole body as JSON. Raises ValueError (json.JSONDecodeError)."""
        return _json.loads(await self.body())

    async def form(self) -> dict[str, str]:
        """The fields of an application/x-www-form-urlencoded body; of a name that comes twice, the last.

        Raises ValueError for more than 1 000 fields. Multipart bodies: read the pieces with a parser of your choice.
        """
        return dict(parse_qsl((await self.body()).decode("utf-8"), keep_blank_values=True, max_num_fields=1000))

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.url}>"
