"""Who watches a primary, and what they see and may ask: the one door through which a layer above looks in.

What lives here: the two interfaces, `Notice` and its way into the log. What must not: any dashboard.

The observer is called on the primary's loop and must not block it. What it raises is logged and costs it nothing more.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from ..stats import ClusterStatistics, WorkerStatistics


log = logging.getLogger("multiloop.cluster")

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR, "critical": logging.CRITICAL}


class Notice(NamedTuple):
    """Something happened."""

    level: str  # info, warning, error, critical
    text: str
    detail: str = ""

    def log(self) -> None:
        """Write it into the log."""
        log.log(_LEVELS[self.level], "%s", self.text, extra={"detail": self.detail} if self.detail else None)


class Observed(Protocol):
    """What a primary shows."""

    def statistics(self) -> ClusterStatistics:
        """Return a snapshot of everything, as of now."""

    def ask_for_reports(self) -> set[int]:
        """Have every worker that can send its figures at once; returns whose are due. `Observer.heard` gets them."""

    async def command(self, command: str, arguments: Mapping[str, Any]) -> Any:
        """Do what the control socket can ask for. Raises CommandFailed."""


class Observer(Protocol):
    """What a primary tells. Called in this order: start, then the others as things happen, close."""

    def start(self, primary: Observed) -> None:
        """The loop runs; no worker was started yet."""

    def noticed(self, notice: Notice) -> None:
        """Something happened that people want to read."""

    def heard(self, number: int, message: Any) -> None:
        """A worker told something that the primary itself does not need (Report, Blocked, Metrics)."""

    def ended(self, worker: WorkerStatistics, why: str) -> None:
        """A worker is gone: its last figures, and why."""

    def close(self) -> None:
        """The primary ends. Must not raise."""
