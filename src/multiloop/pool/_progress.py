"""The bar that `pool.map(..., progress=True)` draws.

What lives here: `Bar`. What must not: anything that runs by itself: the bar is drawn when a task is done.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

_REDRAW_S = 0.1


class Bar:
    """One line on standard error; on a terminal it moves, elsewhere the last state is written at the end."""

    def __init__(self, what: str, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns: tuple[Any, ...] = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), auto_refresh=False)
        self._task = self._progress.add_task(what, total=total)
        self._next_s = 0.0
        self._progress.start()

    def advance(self) -> None:
        """One more is done."""
        self._progress.advance(self._task)
        now_s = monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + _REDRAW_S
            self._progress.refresh()

    def close(self) -> None:
        """Draw the last state and leave it there."""
        self._progress.refresh()
        self._progress.stop()
