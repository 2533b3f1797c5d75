"""The HTTP client: `fetch` and `request`.

What lives here: the two calls, and repeating a request whose kept connection turned out dead. What must not: aiohttp
(`_client_engine`), connections (`_client_agent`).

The flow of a request: fetch → options checked → agent's engine → connection → head → `Reply` → body, as it is taken.
"""

from __future__ import annotations

import asyncio
from typing import Any, Unpack, overload

from ..loop import AnyOperation, CallbackOperation, ErrorFirst, Operation, launch
from ._client_options import IDEMPOTENT, RequestKeywords, RequestOptions, body_of, checked
from ._client_reply import Reply

_MOST_ATTEMPTS = 5  # each but the last on a kept connection that was dead; a pool full of them is not a reason to fail


@overload
def fetch(
    url: str, *, method: str = "GET", body: Any = None, json: Any = None, **options: Unpack[RequestKeywords]
) -> Operation[Reply]: ...
@overload
def fetch(
    url: str,
    *,
    method: str = "GET",
    body: Any = None,
    json: Any = None,
    callback: ErrorFirst,
    **options: Unpack[RequestKeywords],
) -> CallbackOperation[Reply]: ...
def fetch(
    url: str,
    *,
    method: str = "GET",
    body: Any = None,
    json: Any = None,
    callback: ErrorFirst | None = None,
    **options: Unpack[RequestKeywords],
) -> AnyOperation[Reply]:
    """Send a request: `reply = await http.fetch(url)`; the reply comes with its head, the body as it is taken.

    `async with http.fetch(url) as reply:` gives up at the end what was not taken. A status of 400 or above is a reply
    like others (see `reply.raise_for_status()`). Requests of one loop share an agent that keeps connections. A GET, HEAD,
    OPTIONS, TRACE, PUT or DELETE that meets a kept connection the server had closed is sent again by itself.

    Args:
        body: bytes, str, or an iterable of them, sync or async, that is sent as it comes (chunked, unless you give a
            Content-Length).
        json: sent as JSON, with its content type; instead of `body`.
        headers: names to values, or pairs. A Content-Length must be the body's; for one that is iterated over it is sent
            as you give it.
        params: added to the URL's query.
        agent: whose connections to use.
        timeout: seconds in all, or `http.Timeouts`.
        max_redirects: how many are followed; 0 returns the redirect itself.
        tls: True, False (certificates are not checked) or an ssl.SSLContext, in place of the agent's.
        server_hostname: the name that the certificate must be for.

    Raises:
        UsageError: the URL, the method, a header or an option cannot be meant (at once, in the call).
        OSError: no connection: refused, unreachable, unresolvable, certificate not good; the address is its `filename`.
        RequestTimeout: a TimeoutError; `phase` says what took too long.
        ReplyIncomplete: a ConnectionError; the server ended the connection too early.
        BadReply: what came back is no HTTP.
        TooManyRedirects: more than `max_redirects`.
    """
    checked_options = checked(url, method, **options)
    data, repeatable = body_of(checked_options, body, json)
    op: AnyOperation[Reply] = launch(exchange(checked_options, data, repeatable), callback, discard=Reply.close)
    return op


async def exchange(options: RequestOptions, data: Any, repeatable: bool) -> Reply:
    """Send a request, again if it may be, and return the reply with its head."""
    engine = await options.agent._use()
    from ._client_engine import Progress, is_dead_connection, translated

    again = repeatable and options.method in IDEMPOTENT
    for attempt in range(1, _MOST_ATTEMPTS + 1):
        deadline = asyncio.timeout(None)
        progress = Progress(options.timeouts.reply, deadline)
        with translated(options.url, options.timeouts, progress, deadline):
            try:
                async with deadline:
                    raw = await engine.send(options, options.timeouts, progress, data)
                progress.answered()
                return Reply(raw, options)
            except Exception as error:
                if not (again and progress.reused and attempt < _MOST_ATTEMPTS and is_dead_connection(error)):
                    raise
    raise AssertionError("the last attempt returns or raises")
