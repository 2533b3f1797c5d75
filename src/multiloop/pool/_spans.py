"""Tasks as spans of OpenTelemetry, where the program traces: from the moment in which they are given to the pool.

What lives here: `follow`. What must not: how the trace travels to the worker (`_context`).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ._options import TaskOptions


def follow(tracer: Any, target: Callable[..., Any], options: TaskOptions, start: Callable[[TaskOptions], Any]) -> Any:
    """Start a task with a span round it: what the task makes is below it, and it ends with the task."""
    trace = sys.modules["opentelemetry.trace"]
    name = getattr(target, "__qualname__", None) or type(target).__name__
    span = tracer.start_span(f"pool {name}", attributes={"code.function.name": name})
    told = options.callback
    if told is not None:

        def tell(error: BaseException | None, value: Any) -> Any:
            _end(span, error)
            return told(error, value)

        options = replace(options, callback=tell)
    try:
        with trace.use_span(span):
            task = start(options)
    except BaseException:
        span.end()  # use_span has told what it was
        raise
    if told is None:
        task.add_done_callback(partial(_ended, span))
    return task


def _ended(span: Any, task: Any) -> None:
    # Not task.exception(): an error that nobody asks for is still uncaught.
    _end(span, asyncio.CancelledError() if task.cancelled() else task._exception)


def _end(span: Any, error: BaseException | None) -> None:
    if error is not None:
        status = sys.modules["opentelemetry.trace"]
        span.record_exception(error)
        span.set_status(status.StatusCode.ERROR, f"{type(error).__name__}: {error}")
    span.end()
