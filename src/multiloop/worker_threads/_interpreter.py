"""Workers of the kind `interpreter` (Python 3.14 on): a thread with an interpreter and a lock of its own.

What lives here: starting and stopping one. What must not: the thread and the leash (`_host`), what goes on inside
(`_inside_interpreter`). The memory of messages is the process's: nothing of it is lost with the interpreter.
"""

from __future__ import annotations

import os

from ..errors import WorkerDied
from ._body import Birth, Ending, make_plan, write_plan
from ._host import InterpreterHost
from ._words import BOOTSTRAP


class InterpreterBody:
    """A worker interpreter. Raises OSError when there is no descriptor left, RuntimeError when there is no thread."""

    def __init__(self, birth: Birth) -> None:
        self.pid = os.getpid()

        def make_code(leash: int) -> tuple[str, list[int]]:
            plan = write_plan(make_plan("interpreter", birth, leash))
            return BOOTSTRAP.format(fd=plan), [plan]

        def over(failure: BaseException | None) -> None:
            if failure is not None:
                failure = WorkerDied(f"a worker interpreter failed outside of its code: {failure}")
            birth.on_end(Ending(failure=failure))

        self._host = InterpreterHost(birth.options.name, make_code, birth.outfit.descriptors)
        self._host.when_over(birth.loop, over)
        self._host.start()

    @property
    def native_thread(self) -> int | None:
        """The kernel's number of its thread."""
        return self._host.native_id

    def stop(self) -> None:
        """Have it interrupted from inside."""
        self._host.stop()

    def stack(self) -> str:
        """Where it is, when interrupting did not help."""
        return self._host.stack()

    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._host.is_over()

    def abandon(self) -> None:
        """Have it interrupted; the end of the program waits for a moment."""
        self._host.tell_nobody()
        self._host.stop()
