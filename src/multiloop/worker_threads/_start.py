"""Opening what a worker needs before it begins: its captured streams, and the body of its kind.

What lives here: `open_streams` and `make_body`. What must not: the worker's life (`_worker`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from .._limits import STDIO_HIGH_WATER_BYTES
from ..child_process._pipes import ReadPipe, WritePipe
from ..loop import Hub
from ._body import Birth, Body, Outfit
from ._options import Options


@dataclass(slots=True)
class Streams:
    """The captured streams, at the parent's end."""

    stdin: WritePipe | None = None
    stdout: ReadPipe | None = None
    stderr: ReadPipe | None = None

    def finish(self) -> None:
        """The worker has ended: take what it had written, whoever else could still write to it."""
        if self.stdin is not None:
            self.stdin.destroy()
        for pipe in (self.stdout, self.stderr):
            if pipe is not None:
                pipe._finish()

    def destroy(self) -> None:
        """Close them; what was not read is lost."""
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                pipe.destroy()


def open_streams(of: Hub, options: Options, inner: tuple[int, int]) -> tuple[Streams, Outfit]:
    """Make the pipes that the options ask for. Raises OSError when no descriptor is left; then nothing stays open."""
    opened: list[int] = []
    ends = {"stdin": -1, "stdout": -1, "stderr": -1}
    streams = Streams()
    try:
        for name in ends:
            if getattr(options, name):
                reading, writing = os.pipe()
                opened += (reading, writing)
                ends[name] = reading if name == "stdin" else writing
                outer = writing if name == "stdin" else reading
                setattr(streams, name, _stream(of, name, outer))
                opened.remove(outer)
    except BaseException:
        streams.destroy()
        for fd in (*opened, *inner):
            os.close(fd)
        raise
    return streams, Outfit(*inner, **ends)


def _stream(of: Hub, name: str, fd: int) -> ReadPipe | WritePipe:
    if name == "stdin":
        return WritePipe(of, fd)
    pipe = ReadPipe(of, fd, _nothing)
    pipe._mark_bytes = STDIO_HIGH_WATER_BYTES  # it need not be read before the worker can end
    pipe._begin()
    return pipe


def _nothing() -> None:
    return None


def make_body(kind: str, birth: Birth) -> Body:
    """Start a worker of this kind; the outfit belongs to it, also when starting fails."""
    if kind == "process":
        from ._process import ProcessBody

        return ProcessBody(birth)
    try:
        if kind == "interpreter":
            from ._interpreter import InterpreterBody

            return InterpreterBody(birth)
        from ._thread import ThreadBody

        return ThreadBody(birth)
    except BaseException:
        birth.outfit.close()
        raise
