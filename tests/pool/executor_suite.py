"""CPython's own executor tests (`test.test_concurrent_futures`, shipped from 3.13 on), plugged onto `Pool().executor`.

Run by `test_executor.py` in a process of its own. What is left out or expected otherwise, and why:

* ExecutorTest.test_max_workers_negative: the argument is called `workers` here.
* ProcessPoolShutdownTest, ThreadPoolShutdownTest: they look at `_processes`, `_threads` and other insides.
* test_interpreter_shutdown, test_submit_after_interpreter_shutdown, test_hang_gh83386: they format the name of a class of
  concurrent.futures into a script; `test_scripts.py` runs the same scripts with a pool.
* test_error_at_task_unpickle, test_exit_at_task_unpickle, test_error_during_result_unpickle_in_result_handler,
  test_exit_during_result_unpickle_in_result_handler: they expect that the whole pool breaks. Here only the task fails,
  with the exception that unpickling raised, and the next task runs: asserted instead.
* test_shutdown_deadlock_pickle: joins `_executor_manager_thread`; the rest of it is asserted instead.
* test_cancel_futures expects that the first of 50 tasks has begun by the next line; here the first worker is awaited.
* init with a log queue: the queue of multiprocessing cannot be pickled; the log of this process is looked at instead.
"""

from __future__ import annotations

import contextlib
import unittest
from pickle import PicklingError, UnpicklingError
from typing import Any

import pytest
from test.test_concurrent_futures import test_deadlock as deadlock
from test.test_concurrent_futures.executor import ExecutorTest
from test.test_concurrent_futures.test_as_completed import AsCompletedTests
from test.test_concurrent_futures.test_init import FailingInitializerMixin, InitializerMixin
from test.test_concurrent_futures.test_shutdown import ExecutorShutdownTest
from test.test_concurrent_futures.test_wait import WaitTests
from test.test_concurrent_futures.util import BaseTestCase, ExecutorMixin

from multiloop.pool import Pool

_Crash = deadlock.ExecutorDeadlockTest


class Executor:
    """What the suite calls to make an executor."""

    def __new__(cls, max_workers: int | None = None, mp_context: Any = None, **more: Any) -> Any:
        return Pool(workers=max_workers, kind="process", **more).executor


class Mixin(ExecutorMixin):
    executor_type = Executor


class ManagedMixin(Mixin):
    """With a manager, for the tests that need an event."""

    ctx = "spawn"  # of the manager's process

    def create_event(self) -> Any:
        return self.manager.Event()


class TestExecutor(ManagedMixin, ExecutorTest, BaseTestCase):
    def test_max_workers_negative(self) -> None:
        for number in (0, -1):
            with pytest.raises(ValueError, match="at least 1"):
                Pool(workers=number)


class TestWait(ManagedMixin, WaitTests, BaseTestCase):
    pass


class TestAsCompleted(ManagedMixin, AsCompletedTests, BaseTestCase):
    pass


class TestInit(InitializerMixin, Mixin, BaseTestCase):
    pass


class TestFailingInit(FailingInitializerMixin, Mixin, BaseTestCase):
    @contextlib.contextmanager
    def _assert_logged(self, message: str) -> Any:
        with self.assertLogs("multiloop.pool", "CRITICAL") as seen:
            yield
        assert any(message in line for line in seen.output), seen.output


class TestShutdown(ManagedMixin, ExecutorShutdownTest, BaseTestCase):
    test_interpreter_shutdown = None
    test_submit_after_interpreter_shutdown = None
    test_hang_gh83386 = None

    def test_cancel_futures(self) -> None:
        self.executor.submit(id, 1).result()
        super().test_cancel_futures()


class TestDeadlock(ManagedMixin, _Crash, BaseTestCase):
    def _fails_alone(self, expected: type[BaseException], function: Any, *args: Any) -> None:
        with pytest.raises(expected):
            self.executor.submit(function, *args).result(timeout=self.TIMEOUT)
        assert self.executor.submit(abs, -1).result(timeout=self.TIMEOUT) == 1

    def test_error_at_task_unpickle(self) -> None:
        self._fails_alone(UnpicklingError, id, deadlock.ErrorAtUnpickle())

    def test_exit_at_task_unpickle(self) -> None:
        self._fails_alone(SystemExit, id, deadlock.ExitAtUnpickle())

    def test_error_during_result_unpickle_in_result_handler(self) -> None:
        self._fails_alone(UnpicklingError, deadlock._return_instance, deadlock.ErrorAtUnpickle)

    def test_exit_during_result_unpickle_in_result_handler(self) -> None:
        self._fails_alone(SystemExit, deadlock._return_instance, deadlock.ExitAtUnpickle)

    def test_shutdown_deadlock_pickle(self) -> None:
        self.executor.submit(id, 42).result()
        failed = self.executor.submit(id, deadlock.ErrorAtPickle())
        self.executor.shutdown(wait=False)
        with pytest.raises(PicklingError):
            failed.result()


if __name__ == "__main__":
    unittest.main()
