"""What a side is given to measure with: tools, cores, how long, and a folder to write into.

What lives here: `Bench`, and the usual round of a served application. What must not: rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from .environments import Tools
from .load import Window
from .model import Sample
from .processes import Running

T = TypeVar("T")

_round = itertools.count()


@dataclass(frozen=True)
class Bench:
    """One run: how it measures."""

    tools: Tools
    scratch: Path
    server_core: int
    load_core: int
    quick: bool = False
    window_s: float = 2.0
    windows: int = 2
    warm_s: float = 1.0
    services: ExitStack = field(default_factory=ExitStack)
    """Ends with the run what rows have started for all of it."""
    _started: dict[str, object] = field(default_factory=dict)

    def once(self, name: str, start: Callable[[], AbstractContextManager[T]]) -> T:
        """Start something that stays until the run ends (a database), or give what was started before."""
        if name not in self._started:
            self._started[name] = self.services.enter_context(start())
        return self._started[name]  # type: ignore[return-value]

    def log(self, name: str) -> Path:
        """A file of its own for what a program says."""
        safe = "".join(letter if letter.isalnum() else "-" for letter in name)
        return self.scratch / "logs" / f"{next(_round):04d}-{safe}.log"

    def count(self, full: int, quick: int) -> int:
        """How many: of one number in a full run, of another in a quick one."""
        return quick if self.quick else full


def windows_of(bench: Bench, server: Running, load: Callable[[float], Window]) -> list[Sample]:
    """Warm a server up, then measure: CPU of its tree for each request, rate, latencies."""
    load(bench.warm_s)
    samples = []
    for _ in range(bench.windows):
        before_s = server.cpu_s()
        seen = load(bench.window_s)
        used_s = server.cpu_s() - before_s
        samples.append(
            {
                "cpu_us": used_s / seen.requests * 1e6,
                "rate": seen.requests / seen.seconds,
                "p50_ms": seen.p50_ms,
                "p99_ms": seen.p99_ms,
            }
        )
    return samples
