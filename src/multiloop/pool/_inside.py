"""What a task may ask of the pool that runs it: `report`, `stop_requested`, `stop_within`.

What lives here: those functions and how they find the worker. Outside of a task they do nothing, so a function that
uses them can also be called plainly. What must not: the worker's loop (`_worker_main`).
"""

from __future__ import annotations

from _thread import _local
from typing import TYPE_CHECKING, Any

from ._protocol import COOPERATIVE, GRACE_MS, STARTED, STOP_ASKED

if TYPE_CHECKING:
    from ._runner import Runner

GRACE_MS_DEFAULT = 1000  # as workerpool's abortListenerTimeout; `stop_within` changes it


class _Here:
    """Where tasks run: one worker for the whole interpreter, or one for each thread (kind "thread")."""

    worker: Runner | None = None


here = _Here()
in_thread = _local()


def current_worker() -> Runner | None:
    """Return the worker that runs the calling code, or None when it is no task."""
    found: Runner | None = getattr(in_thread, "worker", None)
    return here.worker if found is None else found


def report(value: Any) -> None:
    """Send a progress message from inside a task to the `on_report` of `pool.options(on_report=...)`.

    Messages of one task arrive in order and before its result; any value that can be pickled. Waits while the pool
    does not keep up. Does nothing outside of a task.

    Raises:
        pickle.PicklingError: the value cannot be pickled.
    """
    worker = current_worker()
    if worker is not None:
        worker.report(value)


def stop_requested() -> bool:
    """Whether this task has been cancelled or has run out of time: return soon.

    A task that has called this once is not killed at once when it is stopped: it gets a second (or what `stop_within`
    said) to return by itself, and its worker lives on. What it returns then is dropped. False outside of a task.
    """
    worker = current_worker()
    if worker is None:
        return False
    words = worker.words
    task = words[STARTED]
    if words[COOPERATIVE] != task:
        words[GRACE_MS] = GRACE_MS_DEFAULT
        words[COOPERATIVE] = task
    return bool(words[STOP_ASKED] == task)


def stop_within(seconds: float) -> None:
    """Promise that this task looks at `stop_requested()` at least this often: it is killed only after that time.

    Does nothing outside of a task.
    """
    if not 0 <= seconds <= 3600:
        raise ValueError(f"stop_within({seconds!r}): seconds from 0 to 3600")
    worker = current_worker()
    if worker is not None:
        worker.words[GRACE_MS] = int(seconds * 1000)
        worker.words[COOPERATIVE] = worker.words[STARTED]
