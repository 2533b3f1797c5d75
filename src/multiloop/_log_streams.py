"""Standard output and error of a worker, through a bounded queue: `print` never waits for whoever reads them.

What lives here: `queue_streams`. What must not: the log itself (`logs`), the queue (`_log_sink`).

A pipe that nobody reads (`| sleep 1000`) would stop the loop in the middle of a `print`. The streams here are Python's own
text streams over a queue of the log's kind: what does not fit is dropped and counted, a closed pipe loses it, and the end of
the process waits for the last of it for a second. What is written to the descriptors themselves is not touched.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO

from ._limits import LOG_FLUSH_S
from ._log_sink import Sink

_sinks: list[Sink] = []


class _Queued(io.RawIOBase):
    """Where the bytes of a stream go."""

    def __init__(self, sink: Sink, descriptor: int, name: str) -> None:
        super().__init__()
        self._sink = sink
        self._descriptor = descriptor
        self.name = name
        self.mode = "w"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any, /) -> int:
        taken = bytes(data)
        self._sink.put_bytes(taken)
        return len(taken)


def queue_streams() -> None:
    """Put `sys.stdout` and `sys.stderr` behind queues, once; streams that somebody has replaced are left alone."""
    if not _sinks:
        sys.stdout = _queued(sys.stdout, sys.__stdout__, 1)
        sys.stderr = _queued(sys.stderr, sys.__stderr__, 2)


def _queued(stream: Any, original: TextIO | None, descriptor: int) -> Any:
    if stream is not original or not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    sink = Sink(None, lambda count: f"({count} writes were dropped: nobody read this stream)", descriptor)
    _sinks.append(sink)
    raw = _Queued(sink, descriptor, stream.name)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=stream.encoding, errors=stream.errors, line_buffering=True, write_through=True
    )


def close(timeout_s: float = LOG_FLUSH_S) -> None:
    """Write what waits, within this time; at the end of the process."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError, OSError):  # None, closed, or somebody else's
            pass
    for sink in _sinks:
        sink.flush(timeout_s)


def after_fork() -> None:
    """A forked child has queues and threads of its own."""
    for sink in _sinks:
        sink._after_fork()
