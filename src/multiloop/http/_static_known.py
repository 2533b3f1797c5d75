"""What is remembered of static files that were asked for: the head of the reply to a plain request.

What lives here: `KnownReplies`. What must not: which file a path stands for (`_static_open`), which reply it gets
(`_static_rules`); both were asked once, by `StaticFiles`, before anything is remembered.

A plain request has no condition and no range. Its reply depends on the file's name, size and time of modification alone,
so the fields are kept and the file is read again each time, below the root as it is then and through no link. When
size or time are not the same, what was remembered is dropped and the request takes the long way. The bytes themselves
are not kept: the kernel has them.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..fs._ready import below_whole
from ._messages import Response

if TYPE_CHECKING:
    from ._request import Request
    from ._static_rules import Choice

_MOST = 512  # paths; the oldest goes first
_MOST_PATH_BYTES = 512
_ASKS_MORE = frozenset(
    (b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"range", b"if-range")
)


class Found(NamedTuple):
    """A file that was looked at: the reply, its body (bytes, or an open file), and when the file was modified."""

    choice: Choice
    body: Any
    modified_ns: int


class _Known(NamedTuple):
    path: bytes  # below the root
    size_bytes: int
    modified_ns: int
    headers: list[tuple[str, str]]
    pairs: list[tuple[bytes, bytes]]  # the same


class KnownReply(Response):
    """A reply that is there at once. `await` gives it, too, so that nobody has to know."""

    __slots__ = ("_known",)

    def __init__(self, body: bytes, known: _Known) -> None:
        self.body = body
        self.status = 200
        self.headers = known.headers.copy()
        self._known = known

    def pairs(self) -> list[tuple[bytes, bytes]]:
        """The headers as bytes; made anew if somebody has changed them."""
        known = self._known
        return known.pairs.copy() if self.headers == known.headers else Response.pairs(self)

    def __await__(self) -> Generator[Any, None, KnownReply]:
        yield from ()
        return self


class KnownReplies:
    """The replies for one root, to files of at most `small_bytes`."""

    def __init__(self, root: str, small_bytes: int) -> None:
        self._root = root
        self._small_bytes = small_bytes
        self._known: dict[bytes, _Known] = {}

    def reply(self, request: Request) -> KnownReply | None:
        """Return the reply to a plain request for a file that is known, in memory and unchanged; None for all else."""
        known = self._known.get(request.raw_path)
        if known is None or request.method != "GET":
            return None
        for name, _ in request.headers.raw:
            if name in _ASKS_MORE:
                return None
        found = below_whole(self._root, known.path, self._small_bytes) if below_whole is not None else None
        if found is None:
            return None
        body, modified_ns = found
        if modified_ns != known.modified_ns or len(body) != known.size_bytes:
            self._known.pop(request.raw_path, None)
            return None
        return KnownReply(body, known)

    def remember(self, raw: bytes, names: list[bytes], index: str | None, found: Found) -> None:
        """Remember a whole file that was found without a link, under the path as it was asked for."""
        choice, body, modified_ns = found
        if below_whole is None or choice.status != 200 or type(body) is not bytes or not body:
            return
        if len(raw) > _MOST_PATH_BYTES:
            return
        if not names[-1] and index is not None:
            names = [*names[:-1], os.fsencode(index)]
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in choice.headers]
        self._known[raw] = _Known(b"/".join(names), len(body), modified_ns, choice.headers, pairs)
