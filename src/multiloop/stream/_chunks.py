"""What is in a stream: chunks, how they are measured, lines in them.

What lives here: the default marks, pure functions, and `LineSplitter`. What must not: streams.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import Any

from .._limits import STREAM_HIGH_WATER_BYTES, STREAM_HIGH_WATER_OBJECTS
from ..errors import UsageError

Bytes = bytes | bytearray | memoryview


def as_bytes(chunk: Any, encoding: str = "utf-8") -> Bytes:
    """Turn text into bytes. Raises TypeError for what is neither; `object_mode=True` takes anything."""
    if isinstance(chunk, str):
        return chunk.encode(encoding)
    if isinstance(chunk, bytes | bytearray):
        return chunk
    if isinstance(chunk, memoryview):
        return chunk if chunk.contiguous and chunk.itemsize == 1 else chunk.tobytes()
    try:
        return memoryview(chunk).cast("B")
    except TypeError:
        raise TypeError(
            f"a chunk is bytes or text, not {type(chunk).__name__} (object_mode=True takes anything)"
        ) from None


def size_of(chunk: Any) -> int:
    """How much a chunk of a byte stream counts against the mark."""
    return chunk.nbytes if isinstance(chunk, memoryview) else len(chunk)


_default_marks = {False: STREAM_HIGH_WATER_BYTES, True: STREAM_HIGH_WATER_OBJECTS}


def get_default_high_water_mark(object_mode: bool) -> int:
    """What a stream buffers unless it is told otherwise: bytes, or objects with `object_mode`."""
    return _default_marks[bool(object_mode)]


def set_default_high_water_mark(object_mode: bool, value: int) -> None:
    """Change that for the streams of this process that are made from now on. Raises UsageError below 0."""
    _default_marks[bool(object_mode)] = mark(value, object_mode)


def mark(value: int | None, object_mode: bool) -> int:
    """Return the high-water mark to use: the default for None. Raises UsageError below 0."""
    if value is None:
        return _default_marks[object_mode]
    if value < 0:
        raise UsageError(f"high_water_mark={value}: 0 or more")
    return value


class LineSplitter:
    """Cuts text out of chunks of bytes into lines, without their ends (`\\n` or `\\r\\n`)."""

    def __init__(self, encoding: str = "utf-8", errors: str = "strict") -> None:
        self._decoder = codecs.getincrementaldecoder(encoding)(errors)
        self._rest: list[str] = []  # parts of one long line: joined once, when its end comes

    def feed(self, chunk: Bytes | str) -> Iterable[str]:
        """Take a chunk; return the lines that it completes."""
        text = chunk if isinstance(chunk, str) else self._decoder.decode(chunk)
        first, *lines = text.split("\n")
        self._rest.append(first)
        if not lines:
            return ()
        lines.insert(0, "".join(self._rest))
        self._rest = [lines.pop()]
        return [line.removesuffix("\r") for line in lines] if "\r" in text or "\r" in lines[0] else lines

    def finish(self) -> Iterator[str]:
        """Nothing follows: return the last line, if it has no end."""
        rest = "".join(self._rest) + self._decoder.decode(b"", True)
        self._rest = []
        if rest:
            yield rest.removesuffix("\r")
