"""What tasks on other machines have given, on its way to those who wait.

What lives here: `Outcomes`: results, errors, deaths told by a worker, reports and items of streams. What must not: which
worker gets what (`_engine_far`).
"""

from __future__ import annotations

import marshal
from collections.abc import Sequence
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from ..worker_threads._failures import unpack_error
from . import _far_protocol as far
from . import _protocol as protocol
from ._deaths import worker_gone
from ._far_link import FarLink, State

if TYPE_CHECKING:
    from ._engine_far import FarEngine
    from ._tasks import Task


class Outcomes:
    """Gives to the callers of one engine what its workers answer."""

    def __init__(self, engine: FarEngine) -> None:
        self._engine = engine
        self._meter = engine.meter

    def settle(self, link: FarLink, frames: bytes | memoryview, buffers: Sequence[Any]) -> None:
        """Give what tasks gave to those who wait for it."""
        now = monotonic_ns()
        for kind, number, took_ns, body in far.frames_in(frames):
            if kind == far.RAN:
                continue  # its result comes with the call
            task = link.pop(number)
            if task is None:
                continue  # known already
            if kind == far.DIED:
                self._process_died(task, *marshal.loads(body))
                continue
            link.completed += 1
            task.function.learn(took_ns)
            self._meter.waits.fresh.append(max(0, now - task.submitted_ns - took_ns))
            self._meter.runs.fresh.append(took_ns)
            self._engine.release(task)
            if kind == far.EXPIRED_FRAME:
                self.expire(task)
                continue
            if kind == protocol.FAILED:
                self._failed(task, unpack_error(body))
                continue
            try:
                value = far.value_of(kind, body, buffers)
            except BaseException as error:
                if isinstance(error, Exception):
                    error.add_note(f"while the result of {task.function.name} was unpickled")
                self._failed(task, error)
            else:
                task._succeed(value)

    def _failed(self, task: Task, error: BaseException) -> None:
        if task.done():
            return
        self._meter.failed += 1
        task._fail(error)

    def _process_died(self, task: Task, signal: str | None, exit_code: int | None) -> None:
        """The process that ran a task has ended; the worker has another one."""
        if task.done():
            return
        self._meter.died += 1
        if (again := self._engine.once_more(task)) is not None:
            self._engine.deal_again([again])
            return
        how = f"was killed by {signal}" if signal else f"ended with exit code {exit_code}"
        hint = " (was the machine out of memory?)" if signal == "SIGKILL" else ""
        error = worker_gone(f"{self._engine.cluster.name}: the process that ran {task.function.name} {how}{hint}")
        error.signal, error.exit_code = signal, exit_code
        self._engine.discard(task, error)

    def expire(self, task: Task) -> None:
        """A task's time was over."""
        if task.done():
            return
        self._meter.timed_out += 1
        self._meter.stopped += 1
        timeout_s = task.options.timeout or 0.0
        self._engine.discard(
            task, TimeoutError(f"{task.function.name} ran for longer than {timeout_s:g} s and was stopped")
        )

    def listen(self, link: FarLink) -> None:
        """Fetch what tasks report and yield, as long as somebody listens."""
        link.is_listening = True

        def heard(messages: Any, error: BaseException | None) -> None:
            link.is_listening = False
            if error is not None or link.state is State.GONE:
                return
            for number, kind, body, buffers in messages:
                task = link.tasks.get(number)
                if task is not None:
                    self._message(task, kind, body, buffers)
            if link.listeners:
                self.listen(link)

        link.handle.ask("listen", (), heard)

    def _message(self, task: Task, kind: int, body: bytes, buffers: Sequence[Any]) -> None:
        value: Any = None
        failure: BaseException | None = None
        try:
            value = far.load(body, buffers)
        except BaseException as error:
            failure = error
        if kind == protocol.ITEM:
            if task.stream is not None:
                task.stream.put(value, failure)
        elif failure is not None:
            self._engine.hub.uncaught(failure)
        elif task.options.on_report is not None and not task.done():
            self._engine.hub.call(task.options.on_report, value)
