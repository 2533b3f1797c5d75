"""Static files: `static(root)` is a handler, and an ASGI application under `.asgi`.

What lives here: `StaticFiles`. What must not: which files may be opened (`_static_open`), which bytes are sent
(`_static_rules`), what is remembered of the replies to plain requests (`_static_known`).

    request → known: its reply was made before, and the file is in memory and the same ───→ one piece, without a task
            → split_path → open_at_once, read: what the kernel has in memory ─────────────┐
                         → a thread: open_below (and read, when small) → choose ──────────┴→ send_descriptor, or one piece

Guarantees: nothing outside the root is ever sent, whatever path or link leads there; no directory is listed; files are
opened and read off the loop, but for what the kernel gives without waiting; large ones go out through the kernel, except
under TLS.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

from ..errors import UsageError
from ..fs._ready import part
from ..loop import offload
from ._messages import Response
from ._static_known import Found, KnownReplies, KnownReply
from ._static_open import SUPPORTED, IsDirectory, OpenFile, open_at_once, open_below, split_path
from ._static_rules import Choice, choose

if TYPE_CHECKING:
    from ._exchange import Exchange
    from ._request import Request

_SMALL_BYTES = 64 * 1024  # read on the thread that opened it, sent with the head in one write
_CHUNK_BYTES = 64 * 1024


class FileBody:
    """A part of an open file as the body of a `Response`."""

    __slots__ = ("_count", "_file", "_offset")

    def __init__(self, file: OpenFile, offset: int, count: int) -> None:
        self._file = file
        self._offset = offset
        self._count = count

    async def send_to(self, exchange: Exchange) -> None:
        """Send it as the whole body of a started reply."""
        from ._sendfile import send_descriptor

        try:
            await send_descriptor(exchange, self._file.descriptor, self._offset, self._count)
        finally:
            self._file.close()


class StaticFiles:
    """Made by `static`. Call it with a request, or mount `.asgi`."""

    def __init__(self, root: str, prefix: str, index: str | None, cache_control: str | None, hidden: bool) -> None:
        self._root = root
        self._prefix = prefix.strip("/").encode()
        self._index = index
        self._cache_control = cache_control
        self._hidden = hidden
        self._known = KnownReplies(root, _SMALL_BYTES)  # by the path as it came
        self._known_asgi = KnownReplies(root, _SMALL_BYTES)  # by the decoded path

    def __call__(self, request: Request) -> Awaitable[Response]:
        """Answer a request with a file: 200, 206, 301, 304, 404, 405, 412 or 416. To be awaited, or returned as it is."""
        if request.method == "GET" and (known := self._known.find(request.raw_path, request.headers.raw)) is not None:
            return KnownReply(*known)
        return self._answer(request)

    async def _answer(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return _plain(405, [("allow", "GET, HEAD")])
        raw = request.raw_path
        if b"%2f" in raw.lower():  # a name cannot contain a slash, and a router before us did not see one
            return _plain(404)
        headers = {name.lower(): value for name, value in request.headers.items()}
        head = request.method == "HEAD"
        names = self._names(unquote_to_bytes(raw))
        found = None if names is None else await self._find(self._known, raw, names, headers, head)
        if found is None:
            return _plain(404)
        if found is IsDirectory:
            query = request.query_string
            location = raw.decode("ascii") + "/" + ("?" + query if query else "")
            return _plain(301, [("location", location)])
        choice, body, _ = found
        if isinstance(body, OpenFile):
            return Response(FileBody(body, choice.offset, choice.length), choice.status, choice.headers)
        return Response(body if choice.status in (200, 206) else None, choice.status, choice.headers)

    async def asgi(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve files as an ASGI application, on any server; mounted, the path below the mount counts."""
        if scope["type"] != "http":
            raise RuntimeError(f"static files answer http, not {scope['type']}")
        head = scope["method"] == "HEAD"
        if not head and scope["method"] != "GET":
            await _send_asgi(send, 405, [("allow", "GET, HEAD")], b"Method Not Allowed\n")
            return
        path = scope["path"]
        mount = scope.get("root_path", "").rstrip("/")
        if mount and path.startswith(mount):
            path = path[len(mount) :]
        raw = os.fsencode(path)
        if not head and (known := self._known_asgi.find(raw, scope["headers"])) is not None:
            await _send_whole(send, 200, known[1].pairs.copy(), known[0])
            return
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            headers[name.decode("latin-1")] = value.decode("latin-1")
        names = self._names(raw)
        found = None if names is None else await self._find(self._known_asgi, raw, names, headers, head)
        if found is None:
            await _send_asgi(send, 404, [], b"Not Found\n")
            return
        if found is IsDirectory:
            query = scope.get("query_string", b"").decode("latin-1")
            location = quote(scope["path"]) + "/" + ("?" + query if query else "")
            await _send_asgi(send, 301, [("location", location)], b"Moved Permanently\n")
            return
        choice, body, _ = found
        if not isinstance(body, OpenFile):
            await _send_asgi(send, choice.status, choice.headers, b"" if head else body)
            return
        try:
            await _send_chunks(send, choice, body)
        finally:
            body.close()

    def _names(self, path: bytes) -> list[bytes] | None:
        """The names below the root that a decoded path stands for; None when it cannot be one of ours."""
        prefix = self._prefix
        if prefix:
            if path != b"/" + prefix and not path.startswith(b"/" + prefix + b"/"):
                return None
            path = path[len(prefix) + 1 :] or b"/"
        return split_path(path, hidden=self._hidden)

    async def _find(
        self, known: KnownReplies, path: bytes, names: list[bytes], headers: Mapping[str, str], head: bool
    ) -> Any:
        """A `Found`, the class IsDirectory, or None. What needed no wait is remembered under the path."""
        found = self._look_at_once(names, headers, head)
        if found is None:
            return await offload(self._look, names, headers, head)
        if not head:
            known.remember(path, names, self._index, found)
        return found

    def _look_at_once(self, names: list[bytes], headers: Mapping[str, str], head: bool) -> Found | None:
        """What `_look` gives, where that needs no wait; None for all else."""
        file = open_at_once(self._root, names, self._index)
        if file is None:
            return None
        choice = choose(headers, file.name, file.size_bytes, file.modified_ns, self._cache_control)
        body: bytes | None = b""
        if not head and choice.length:
            if choice.length > _SMALL_BYTES:
                return Found(choice, file, file.modified_ns)
            body = None if part is None else part(file.descriptor, choice.length, choice.offset)
        file.close()
        if body is None or (body and len(body) != choice.length):
            return None
        return Found(choice, body, file.modified_ns)

    def _look(self, names: list[bytes], headers: Mapping[str, str], head: bool) -> Any:
        """A `Found`, the class IsDirectory, or None."""
        try:
            file = open_below(self._root, names, self._index)
        except IsDirectory:
            return IsDirectory
        if file is None:
            return None
        choice = choose(headers, file.name, file.size_bytes, file.modified_ns, self._cache_control)
        if head or not choice.length:
            body: bytes | OpenFile = b""
        elif choice.length <= _SMALL_BYTES:
            body = os.pread(file.descriptor, choice.length, choice.offset)
        else:
            return Found(choice, file, file.modified_ns)
        file.close()
        return Found(choice, body, file.modified_ns)


def static(
    root: str | os.PathLike[str],
    *,
    prefix: str = "",
    index: str | None = "index.html",
    max_age: int | None = None,
    hidden: bool = False,
) -> StaticFiles:
    """Return a handler that serves the files below a directory.

    `http.create_server(http.static("public"))`, or inside a handler of one's own `return await files(request)`;
    `http.static("public").asgi` is the same as an ASGI application.

    Args:
        root: the directory. It is looked up for each request, so a link that a deployment moves is followed.
        prefix: the part of the path before the files' ("/static"); other paths are 404.
        index: what a directory answers with; None for nothing.
        max_age: seconds that a client may keep a file without asking (Cache-Control); None leaves that to it.
        hidden: also serve names that begin with a dot; `.well-known` always is.

    Raises:
        NotADirectoryError: there is no such directory.
        UsageError: this system cannot open files safely (Windows).
    """
    if not SUPPORTED:
        raise UsageError("http.static() needs a system that opens files relative to a directory; Windows does not")
    path = os.fspath(root)
    if not os.path.isdir(path):
        raise NotADirectoryError(20, "no such directory to serve files from", path)
    cache_control = None if max_age is None else f"public, max-age={int(max_age)}"
    return StaticFiles(os.path.abspath(path), prefix, index, cache_control, hidden)


def _plain(status: int, headers: list[tuple[str, str]] | None = None) -> Response:
    text = {301: "Moved Permanently", 404: "Not Found", 405: "Method Not Allowed"}[status]
    return Response(text + "\n", status, headers)


def _encoded(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


async def _send_asgi(send: Any, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    fields = _encoded(headers)
    if status in (301, 404, 405):
        fields.append((b"content-type", b"text/plain; charset=utf-8"))
        fields.append((b"content-length", b"%d" % len(body)))
    await _send_whole(send, status, fields, body)


async def _send_whole(send: Any, status: int, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def _send_chunks(send: Any, choice: Choice, file: OpenFile) -> None:
    await send({"type": "http.response.start", "status": choice.status, "headers": _encoded(choice.headers)})
    offset, left = choice.offset, choice.length
    while left:
        piece = await offload(os.pread, file.descriptor, min(left, _CHUNK_BYTES), offset)
        if not piece:
            raise OSError("the file became shorter while it was sent")
        offset += len(piece)
        left -= len(piece)
        await send({"type": "http.response.body", "body": piece, "more_body": bool(left)})
