"""OpenTelemetry's tracer, where the program has one.

What lives here: `tracer`. What must not: spans: those of requests, tasks and blocks are made where these are
(`http._spans`, `pool._spans`, `health._spans`); an import of OpenTelemetry: a program that traces has loaded it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

MODULE = "opentelemetry.trace"
"""What a program that traces has loaded."""

_made: tuple[Any, Any] | None = None  # the provider it is of, the tracer


def tracer() -> Any:
    """Return the tracer for our spans; None when nobody traces.

    That is: unless the program has set a provider of its own by now, or when OTEL_PYTHON_DISABLED_INSTRUMENTATIONS names
    "multiloop". From any thread.
    """
    global _made
    trace = sys.modules.get(MODULE)
    if trace is None:
        return None
    provider = trace.get_tracer_provider()
    made = _made
    if made is None or made[0] is not provider:
        none = isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider) or _is_switched_off()
        made = _made = (provider, None if none else provider.get_tracer("multiloop"))
    return made[1]


def _is_switched_off() -> bool:
    named = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "")
    return "multiloop" in map(str.strip, named.split(","))
