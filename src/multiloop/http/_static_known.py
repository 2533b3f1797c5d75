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
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..fs._ready import below_whole
from ._messages import Response

if TYPE_CHECKING:
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


class Known(NamedTuple):
    """What was remembered of a file."""

    path: bytes  # below the root
    size_bytes: int
    modified_ns: int
    headers: list[tuple[str, str]]
    pairs: list[tuple[bytes, bytes]]  # the same


class KnownReply(Response):
    """A reply that is there at once. `await` gives it, too, so that nobody has to know."""

    __slots__ = ("_known",)

    def __init__(self, body: bytes, known: Known) -> None:
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
        self._known: dict[bytes, Known] = {}

    def find(self, path: bytes, fields: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, Known] | None:
        """Return a file and what is known of it, for a GET with these header fields (names in lower case).

        None when the path is not known, the request is no plain one, or the file is not in memory, or not the same.
        """
        known = self._known.get(path)
        if known is None or below_whole is None:
            return None
        for name, _ in fields:
            if name in _ASKS_MORE:
                return None
        found = below_whole(self._root, known.path, self._small_bytes)
        if found is None:
            return None
        body, modified_ns = found
        if modified_ns != known.modified_ns or len(body) != known.size_bytes:
            self._known.pop(path, None)
            return None
        return body, known

    def remember(self, path: bytes, names: list[bytes], index: str | None, found: Found) -> None:
        """Remember a whole file that was found without a link, under the path by which it is looked for."""
        choice, body, modified_ns = found
        if below_whole is None or choice.status != 200 or type(body) is not bytes or not body:
            return
        if len(path) > _MOST_PATH_BYTES:
            return
        if not names[-1] and index is not None:
            names = [*names[:-1], os.fsencode(index)]
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in choice.headers]
        self._known[path] = Known(b"/".join(names), len(body), modified_ns, choice.headers, pairs)
