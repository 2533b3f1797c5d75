"""A block of the loop as a span of OpenTelemetry, where the program traces.

What lives here: `record`. What must not: what a report says (`_episode`).
"""

from __future__ import annotations

import sys

from .. import _telemetry
from ..stats import BlockedLoop


def record(report: BlockedLoop) -> None:
    """Make a span of a block that has ended: from its beginning to its end, with the place. From any thread."""
    tracer = _telemetry.tracer()
    if tracer is None:
        return
    attributes = {
        "code.file.path": report.file,
        "code.line.number": report.line,
        "code.function.name": report.function,
        "code.stacktrace": report.stack,
        "multiloop.request": report.request,
        "multiloop.request_id": report.request_id,
        "thread.name": report.thread,
    }
    began_ns = int(report.at * 1e9)
    span = tracer.start_span(
        "event loop blocked",
        context=sys.modules["opentelemetry.context"].Context(),  # of nobody: the thread of the watchdog serves none
        start_time=began_ns,
        attributes={key: value for key, value in attributes.items() if value},
    )
    span.end(began_ns + int(report.duration * 1e9))
