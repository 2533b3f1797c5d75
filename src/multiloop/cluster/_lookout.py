"""Looking at a running cluster: snapshots of it, and telling an observer what happens.

What lives here: `Lookout`, the primary's side of `_observer`. What must not: deciding or changing anything.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import _limits as limits
from .._wire import messages as wire
from ..stats import ClusterStatistics, WorkerStatistics
from ._observer import Notice, Observed, Observer
from ._process import Process
from ._sample import sample, sample_worker
from ._states import State
from ._status import raw, status

if TYPE_CHECKING:
    from ._app import App

log = logging.getLogger("multiloop.cluster")


class Lookout:
    """Sees the applications of a primary; with an observer, tells it everything and has workers measure for good."""

    def __init__(self, apps: Sequence[App], started_at: float, observer: Observer | None) -> None:
        self._apps = apps
        self._started_at = started_at
        self._observer = observer
        self._measured_until_s = math.inf if observer is not None else 0.0

    def start(self, primary: Observed) -> None:
        """Begin. Raises what the observer raises: it is not there yet, so it may fail."""
        if self._observer is not None:
            self._observer.start(primary)

    def close(self) -> None:
        """End. Safe to call before `start`."""
        self._tell("close")

    # -- telling -------------------------------------------------------------------------------------------------------
    def notice(self, notice: Notice) -> None:
        """Something that belongs into the log, too."""
        notice.log()
        self._tell("noticed", notice)

    def heard(self, number: int, message: Any) -> None:
        """A worker told something about itself."""
        self._tell("heard", number, message)

    def spawned(self, app: App, process: Process) -> None:
        """A worker is being started."""
        if self._measured_until_s > time.monotonic():
            self._ask_to_measure(process)
        self._tell("noticed", Notice("info", f"{app.prefix}worker {process.number} is started"))

    def ready(self, app: App, process: Process) -> None:
        """A worker can take connections."""
        text = f"{app.prefix}worker {process.number} is ready after {time.time() - process.started_at:.2f} s"
        self._tell("noticed", Notice("info", text))

    def last_look(self, app: App, process: Process) -> WorkerStatistics | None:
        """Return the last figures of a worker that is gone, for `ended`: its accounts are still there."""
        if self._observer is None or process.number not in app.supervisor.workers:
            return None
        app.processes.setdefault(process.number, process)
        return sample_worker(app, process.number)

    def ended(self, app: App, last: WorkerStatistics | None) -> None:
        """A worker is gone, and the supervisor knows why."""
        if last is not None:
            why = next((end.why for end in reversed(app.supervisor.ends) if end.number == last.number), "gone")
            self._tell("ended", last, why)

    def _tell(self, what: str, *arguments: Any) -> None:
        if self._observer is not None:
            try:
                getattr(self._observer, what)(*arguments)
            except Exception:
                log.exception("the observer failed at %s", what)

    # -- looking -------------------------------------------------------------------------------------------------------
    def statistics(self) -> ClusterStatistics:
        """Return a snapshot of the cluster."""
        return sample(self._apps, self._started_at)

    def status(self) -> dict[str, Any]:
        """Return what `multiloop status` shows."""
        links: Mapping[str, Any] = getattr(self._observer, "links", {})
        return status(self.statistics(), **links)

    def look(self) -> dict[str, Any]:
        """Return everything as plain values, and have the workers measure for a while: somebody is watching."""
        now = time.monotonic()
        if self._measured_until_s < now + limits.MEASURE_LEASE_S / 2:
            self._measured_until_s = now + limits.MEASURE_LEASE_S
            for app in self._apps:
                for process in app.processes.values():
                    self._ask_to_measure(process)
        return raw(self.statistics())

    def ask_for_reports(self) -> set[int]:
        """Have every worker whose loop turns send its figures at once; returns whose are due."""
        asked = set()
        for app in self._apps:
            for number, process in app.processes.items():
                record = app.supervisor.workers.get(number)
                if record is not None and record.state is State.READY:
                    process.send(wire.ReportNow())
                    asked.add(number)
        return asked

    def _ask_to_measure(self, process: Process) -> None:
        process.measures = True
        process.send(wire.Measure(self._measured_until_s - time.monotonic()))
