"""Context variables that travel with each task.

What lives here: `Carrier` (in the pool's process), `WorkerContext` (in a worker) and the variable `traceparent`. What
must not: imports of OpenTelemetry where the program itself has not loaded it.

A whole context cannot be pickled, so variables are named: `Pool(context=["package.module:variable"])`. The trace
context goes along by itself: OpenTelemetry's current span where that is loaded, else what `traceparent` holds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar, copy_context
from importlib import import_module
from typing import Any

traceparent: ContextVar[str | None] = ContextVar("multiloop.pool.traceparent", default=None)
"""The W3C trace context of the work in hand; set it where requests come in, read it in a task."""

TELEMETRY = "opentelemetry.propagate"
_UNSET = object()

# (place, value) of what is set; headers of the trace; whether OpenTelemetry made those
Carried = tuple[tuple[tuple[int, Any], ...], dict[str, str], bool]


def find_variable(name: str) -> ContextVar[Any]:
    """Return the variable that "package.module:variable" names. Raises ValueError or ImportError."""
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"context={name!r}: name a variable as 'package.module:variable'")
    found: Any = import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, ContextVar):
        raise ValueError(f"context={name!r}: {attribute} of {module} is no ContextVar but {type(found).__name__}")
    return found


class Carrier:
    """Takes the current values of the named variables, for each task."""

    def __init__(self, names: Sequence[str]) -> None:
        self._variables = [find_variable(name) for name in names]

    @property
    def has_variables(self) -> bool:
        """Whether any were named."""
        return bool(self._variables)

    def take(self) -> Carried | None:
        """Return what is set now; None when nothing is."""
        has_telemetry = TELEMETRY in sys.modules
        headers: dict[str, str] = {}
        if has_telemetry:
            sys.modules[TELEMETRY].inject(headers)
        if (given := traceparent.get()) is not None and "traceparent" not in headers:
            headers["traceparent"] = given
        values = []
        for place, variable in enumerate(self._variables):
            value = variable.get(_UNSET)
            if value is not _UNSET:
                values.append((place, value))
        return (tuple(values), headers, has_telemetry) if values or headers else None


class WorkerContext:
    """Sets carried values for the time of one task."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._variables: list[ContextVar[Any]] | None = None

    def run(self, carried: Carried, function: Callable[..., Any], *args: Any) -> Any:
        """Call `function(*args)` in a context of its own with the carried values."""
        return copy_context().run(self._inside, carried, function, args)

    def _inside(self, carried: Carried, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        values, headers, has_telemetry = carried
        if values:
            if self._variables is None:
                self._variables = [find_variable(name) for name in self._names]
            for place, value in values:
                self._variables[place].set(value)
        if headers:
            traceparent.set(headers.get("traceparent"))
        if has_telemetry:
            propagate, context = import_module(TELEMETRY), import_module("opentelemetry.context")
            context.attach(propagate.extract(headers))  # ends with the task's context
        return function(*args)
