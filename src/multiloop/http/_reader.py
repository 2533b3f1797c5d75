"""From the parser's callbacks to exchanges: one message of one connection at a time.

What lives here: `RequestReader`, the target of httptools' callbacks. What must not: writing, the application, deadlines.

A reader is borrowed by a connection while a message is being read and given back at its end, so an idle connection
holds no parser and no buffer. Rules that llhttp leaves open are `_wire.http1`'s; what it does not count is counted here:
the bytes of an unfinished head, and in a chunked body all that is neither body nor the sixteen bytes a chunk may need.

The compiled form has a subclass that takes the same events from the same llhttp without a detour by Python (`_llhttp`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httptools

from .._limits import MAX_CHUNK_OVERHEAD_BYTES, MAX_TRAILER_BYTES
from .._wire.http1 import (
    METHOD_NAMES,
    NO_BODY,
    SPECIAL_REQUEST_FIELDS,
    BadRequest,
    Fields,
    check_request,
    split_target,
)

if TYPE_CHECKING:
    from ._connection import Connection
    from ._exchange import Exchange
    from ._state import ServiceState

_PER_CHUNK_BYTES = 16  # a size line of up to twelve digits and two line ends


class RequestReader:
    """Collects what the parser reports and makes an exchange of each request head."""

    __slots__ = ("body_bytes", "chunks", "connection", "exchange", "fed_bytes", "headers", "in_body", "in_message",
                 "known_host", "known_path", "known_query", "known_target", "left_bytes", "max_body_size",
                 "max_header_count", "max_header_line", "max_header_size", "max_target_size", "parser", "refused", "special",
                 "target", "template", "trailer_bytes")  # fmt: skip

    connection: Connection
    exchange: Exchange | None

    def __init__(self, state: ServiceState, template: Exchange) -> None:
        config = state.config
        self.template = template  # of the class that answers: each request gets a fresh one
        self.max_body_size = config.max_body_size
        self.max_header_count = config.max_header_count
        self.max_header_line = config.max_header_line
        self.max_header_size = config.max_header_size
        self.max_target_size = config.max_target_size
        self.in_message = False
        self.in_body = False
        self.exchange = None
        self.refused: BadRequest | None = None
        self.headers: Fields = []
        self.special: Fields = []
        self.target = b""
        self.known_host: tuple[bytes, bytes] | None = None
        self.known_target = b""  # the last one, and its parts: clients ask for the same again and again
        self.known_path = b""
        self.known_query = b""
        self.fed_bytes = 0  # of the unfinished head, or of the chunked body so far
        self.body_bytes = 0
        self.left_bytes = -1  # of a body with a length; -1: chunked or none
        self.chunks = 0
        self.trailer_bytes = 0
        self.parser: Any = None
        self.open_parser()

    def open_parser(self) -> None:
        """Begin at the first byte of a message."""
        self.parser = httptools.HttpRequestParser(self)

    def feed(self, data: bytes | memoryview) -> None:
        """Parse. Raises httptools' HttpParserUpgrade and HttpParserError, or BadRequest."""
        self.parser.feed_data(data)

    # -- called by the parser ----------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        self.in_message = True
        self.target = b""
        self.headers = []
        self.special = []

    def on_url(self, url: bytes) -> None:
        self.target = self.target + url if self.target else url

    def on_header(self, name: bytes, value: bytes | None) -> None:
        value = value.rstrip(b" \t") if value else b""
        if self.in_body:
            self.trailer_bytes += len(name) + len(value)
            if self.exchange is not None:
                self.exchange.add_trailer(name.lower(), value)
            return
        name = name.lower()
        self.headers.append((name, value))
        if name in SPECIAL_REQUEST_FIELDS:
            self.special.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self.parser
        method = parser.get_method()
        name = METHOD_NAMES.get(method) or method.decode("ascii")
        self.head_complete(name, parser.get_http_version(), parser.should_keep_alive())

    def head_complete(self, method: str, version: str, keep_alive: bool) -> None:
        """Make an exchange of a head. Raises BadRequest (also in `refused`, since a parser hides what callbacks raise)."""
        connection = self.connection
        headers = self.headers
        target = self.target
        host: bytes | None = None
        try:
            if len(headers) > self.max_header_count:
                raise BadRequest(431, f"more than {self.max_header_count} header fields")
            if self.fed_bytes:  # more than one slice: only then can a field be longer than a slice
                self._check_head(self.max_header_line, self.max_header_size)
            special = self.special
            if len(special) == 1 and special[0] is self.known_host and version == "1.1":
                head = NO_BODY  # the very field that was found good before (`_llhttp` does not make it anew)
            else:
                head = check_request(version, special)
                self.known_host = special[0] if head is NO_BODY and version == "1.1" else None
            if target != self.known_target:
                if len(target) > self.max_target_size:
                    raise BadRequest(414, "the request target is too long")
                path, query, host = split_target(method, target)
                self.known_target = (
                    target if target[:1] == b"/" else b""
                )  # the other forms depend on more than themselves
                self.known_path = path
                self.known_query = query
            if head is not NO_BODY:
                self._check_body(head.length)
        except BadRequest as refused:
            self.refused = refused
            raise
        if host is not None:
            headers = [(name, host if name == b"host" else value) for name, value in headers]
        made = self.template.fresh(connection, method)
        made.path = self.known_path
        made.query = self.known_query
        made.headers = headers
        made.http_version = version
        made.keep_alive = keep_alive
        self.exchange = made
        self.in_body = True
        if head is NO_BODY:
            self.left_bytes = -1
        else:
            made.expect_continue = head.expect_continue
            self.left_bytes = head.length
            if head.chunked:
                self.fed_bytes -= self._head_bytes()  # so that it counts the body alone, once the slice is counted
            self.body_bytes = self.chunks = self.trailer_bytes = 0
        connection.take_exchange(made)

    def _check_body(self, length: int) -> None:
        limit = self.max_body_size
        if limit and length > limit:
            raise BadRequest(413, f"a body of {length} bytes is over the limit of {limit}")

    def on_chunk_header(self) -> None:
        self.chunks += 1

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)
        if self.left_bytes > 0:
            self.left_bytes -= len(body)
        exchange = self.exchange
        if exchange is not None:
            limit = self.max_body_size
            if limit and self.body_bytes > limit:
                self.refused = BadRequest(413, f"the body is over the limit of {limit} bytes")
                raise self.refused
            exchange.feed_body(body)

    def on_message_complete(self) -> None:
        self.in_message = False
        self.in_body = False
        self.fed_bytes = 0
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            if exchange.started:
                exchange.feed_end()
            else:
                exchange.body_done = True

    # -- called by the connection ------------------------------------------------------------------------------------
    def count_fed(self, size_bytes: int) -> None:
        """Count what was fed of an unfinished message. Raises BadRequest over a cap (cumulative, RFC 9112 7.1.1)."""
        self.fed_bytes += size_bytes
        if not self.in_body:
            if self.fed_bytes > self.max_header_size + self.max_target_size:
                long_target = len(self.target) > self.max_target_size or (not self.headers and not self.target)
                raise BadRequest(414 if long_target else 431, "the request head is too long")
            if self.headers and len(self.headers[-1][1]) > self.max_header_line:
                raise BadRequest(431, "a header field is too long")
        elif self.left_bytes < 0:
            overhead = self.fed_bytes - self.body_bytes - _PER_CHUNK_BYTES * self.chunks
            most = MAX_CHUNK_OVERHEAD_BYTES + MAX_TRAILER_BYTES
            if overhead > most or self.trailer_bytes > MAX_TRAILER_BYTES:
                raise BadRequest(431 if self.trailer_bytes else 400, "chunk extensions or trailers are too long")

    def _head_bytes(self) -> int:
        return sum([len(name) + len(value) + 4 for name, value in self.headers], len(self.target) + 16)

    def _check_head(self, line_limit: int, limit: int) -> None:
        if any(len(value) > line_limit for _, value in self.headers):
            raise BadRequest(431, "a header field is too long")
        if self._head_bytes() - len(self.target) > limit:
            raise BadRequest(431, "the header fields are too long")
