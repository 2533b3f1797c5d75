"""Which reply a file gets: not modified, a part, or the whole (RFC 9110 13 and 14), and its content type. Pure.

What lives here: `choose`. What must not: opening files (`_static_open`), sending.

A list of ranges is answered with the whole file, which RFC 9110 14.2 allows: parts that overlap could ask for many times
the file's size.
"""

from __future__ import annotations

import functools
import mimetypes
import re
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from typing import Final, NamedTuple

_RANGE: Final = re.compile(r"bytes=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*", re.IGNORECASE)
_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')

# Not the machine's own tables: the same file has the same type everywhere.
_types: Final = mimetypes.MimeTypes(filenames=())
for _type, _suffixes in {
    "text/javascript": ".js .mjs",
    "application/json": ".json .map",
    "application/manifest+json": ".webmanifest",
    "application/wasm": ".wasm",
    "font/woff": ".woff",
    "font/woff2": ".woff2",
    "font/ttf": ".ttf",
    "font/otf": ".otf",
    "image/avif": ".avif",
    "image/webp": ".webp",
    "image/svg+xml": ".svg",
    "image/x-icon": ".ico",
    "text/markdown": ".md",
    "application/yaml": ".yaml .yml",
}.items():
    for _suffix in _suffixes.split():
        _types.add_type(_type, _suffix)
_WITH_CHARSET: Final = ("application/json", "application/manifest+json", "image/svg+xml", "application/xml")
_PACKED: Final = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


class Choice(NamedTuple):
    """The reply: its status, its headers, and which bytes of the file it carries."""

    status: int
    headers: list[tuple[str, str]]
    offset: int = 0
    length: int = 0


_date: Final = functools.lru_cache(256)(functools.partial(formatdate, usegmt=True))


@functools.lru_cache(1024)
def content_type(name: str) -> str:
    """Return the type of a file by its name; text is said to be UTF-8."""
    kind, packed = _types.guess_type(name)
    if packed is not None:
        return _PACKED.get(packed, "application/octet-stream")
    if kind is None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind in _WITH_CHARSET else kind


def choose(
    headers: Mapping[str, str], name: str, size_bytes: int, modified_ns: int, cache_control: str | None
) -> Choice:
    """Choose the reply to a GET or HEAD with these header fields (names in lower case)."""
    etag = f'"{modified_ns:x}-{size_bytes:x}"'
    modified_s = modified_ns // 1_000_000_000
    fields = [("etag", etag), ("last-modified", _date(modified_s)), ("accept-ranges", "bytes")]
    if cache_control is not None:
        fields.append(("cache-control", cache_control))
    if not _preconditions_hold(headers, etag, modified_s):
        return Choice(412, fields)
    if _is_unchanged(headers, etag, modified_s):
        return Choice(304, fields)
    part = _part(headers, etag, fields[1][1], size_bytes)
    if part == (-1, -1):
        return Choice(416, [*fields, ("content-range", f"bytes */{size_bytes}")])
    fields[:0] = [("content-type", content_type(name)), ("x-content-type-options", "nosniff")]
    if part is None:
        fields.append(("content-length", str(size_bytes)))
        return Choice(200, fields, 0, size_bytes)
    first, last = part
    fields.append(("content-range", f"bytes {first}-{last}/{size_bytes}"))
    fields.append(("content-length", str(last - first + 1)))
    return Choice(206, fields, first, last - first + 1)


def _matches(field: str, etag: str) -> bool:
    return field.strip() == "*" or etag in _TAG.findall(field)


def _since(headers: Mapping[str, str], name: str) -> float | None:
    value = headers.get(name)
    if value is None:
        return None
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None  # RFC 9110 13.1.3: a date that cannot be read is ignored


def _preconditions_hold(headers: Mapping[str, str], etag: str, modified_s: int) -> bool:
    wanted = headers.get("if-match")
    if wanted is not None:
        return _matches(wanted, etag)
    since = _since(headers, "if-unmodified-since")
    return since is None or modified_s <= since


def _is_unchanged(headers: Mapping[str, str], etag: str, modified_s: int) -> bool:
    known = headers.get("if-none-match")
    if known is not None:
        return _matches(known, etag)
    since = _since(headers, "if-modified-since")
    return since is not None and modified_s <= since


def _part(headers: Mapping[str, str], etag: str, modified: str, size_bytes: int) -> tuple[int, int] | None:
    """First and last byte; None for the whole file, (-1, -1) for a range that is outside of it."""
    asked = headers.get("range")
    if asked is None or headers.get("if-range", etag) not in (etag, modified):
        return None
    found = _RANGE.fullmatch(asked)
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:  # the last n bytes
        count = min(int(found[2]), size_bytes)
        return (size_bytes - count, size_bytes - 1) if count else (-1, -1)
    first = int(found[1])
    last = min(int(found[2]), size_bytes - 1) if found[2] else size_bytes - 1
    if found[2] and int(found[2]) < first:
        return None
    return (first, last) if first < size_bytes else (-1, -1)
