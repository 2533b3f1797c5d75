"""What a request may be told, checked.

What lives here: `RequestOptions`, and what a body may be. What must not: sending it.
"""

from __future__ import annotations

import json as _json
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from .. import _limits as limits
from ..errors import UsageError
from ._client_agent import Agent, Timeouts, Tls, default_agent
from ._client_headers import Headers, check_length, checked_headers

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


class RequestKeywords(TypedDict, total=False):
    """The options of `fetch` and `request` beside URL and method."""

    headers: Headers | None
    params: Mapping[str, Any] | None
    agent: Agent | None
    timeout: float | Timeouts | None
    max_redirects: int
    tls: Tls | None
    server_hostname: str | None


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """One request."""

    url: str
    method: str
    headers: list[tuple[str, str]]
    params: Mapping[str, Any] | None
    agent: Agent
    timeouts: Timeouts
    max_redirects: int
    tls: Any
    server_hostname: str | None


def checked(
    url: str,
    method: str,
    *,
    headers: Headers | None = None,
    params: Mapping[str, Any] | None = None,
    agent: Agent | None = None,
    timeout: float | Timeouts | None = None,
    max_redirects: int = limits.AGENT_MAX_REDIRECTS,
    tls: Tls | None = None,
    server_hostname: str | None = None,
) -> RequestOptions:
    """Return the options of a request. Raises UsageError or TypeError for what cannot be meant."""
    if not isinstance(url, str):
        raise TypeError(f"a URL is a str, not {type(url).__name__}")
    if not url.lower().startswith(("http://", "https://")):
        raise UsageError(f"not an HTTP URL (http://… or https://…): {url!r}")
    if not method.isascii() or not method.isalpha():
        raise UsageError(f"not an HTTP method: {method!r}")
    if max_redirects < 0:
        raise UsageError(f"max_redirects={max_redirects}: 0 to follow none, or above")
    if tls is not None and not isinstance(tls, bool | ssl.SSLContext):
        raise TypeError(f"tls= is True, False or an ssl.SSLContext, not {type(tls).__name__}")
    used = agent or default_agent()
    return RequestOptions(
        url=url,
        method=method.upper(),
        headers=checked_headers(headers),
        params=params,
        agent=used,
        timeouts=used.timeouts.given(timeout),
        max_redirects=max_redirects,
        tls=used.tls if tls is None else tls,
        server_hostname=server_hostname,
    )


def body_of(options: RequestOptions, body: Any, json: Any) -> tuple[Any, bool]:
    """Return what is sent, and whether it can be sent again. JSON gets its content type.

    Raises UsageError for a Content-Length that contradicts the body.
    """
    if json is not None:
        if body is not None:
            raise UsageError("give body= or json=, not both")
        body = _json.dumps(json, separators=(",", ":")).encode()
        if not any(name.lower() == "content-type" for name, _ in options.headers):
            options.headers.append(("Content-Type", "application/json"))
    if isinstance(body, bytearray | memoryview):
        body = bytes(body)
    if body is None or isinstance(body, bytes | str):
        check_length(options.headers, body)
        return body, True
    if hasattr(body, "__aiter__") or (hasattr(body, "__iter__") and not isinstance(body, Mapping)):
        return StreamedBody(body), False
    raise TypeError(f"a body is bytes, str, or an iterable of bytes (sync or async), not {type(body).__name__}")


class StreamedBody:
    """A body that is sent as it comes, once: nobody can take it twice, a second attempt would send its rest."""

    def __init__(self, source: AsyncIterable[bytes] | Iterable[bytes]) -> None:
        self._source = source
        self._taken = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._taken:
            raise ConnectionError("the request's body was taken already and cannot be sent again")
        self._taken = True
        source = self._source
        if isinstance(source, AsyncIterable):
            async for chunk in source:
                yield _bytes(chunk)
        else:
            for chunk in source:
                yield _bytes(chunk)


def _bytes(chunk: Any) -> bytes:
    if isinstance(chunk, bytes):
        return chunk
    if isinstance(chunk, str):
        return chunk.encode()
    if isinstance(chunk, bytearray | memoryview):
        return bytes(chunk)
    raise TypeError(f"the chunks of a body are bytes or str, not {type(chunk).__name__}")
