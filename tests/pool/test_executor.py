"""`Pool().executor` keeps the contract of concurrent.futures.Executor."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib.util
import re
import subprocess
import sys
import threading
from typing import Any

import pytest

import multiloop
from multiloop.errors import PoolFull
from multiloop.pool import Pool
from tests.pool import functions as work
from tests.support import environment

HAS_SUITE = sys.version_info >= (3, 13) and importlib.util.find_spec("test.test_concurrent_futures") is not None


@pytest.mark.slow
@pytest.mark.timeout(600)  # half a minute of work, on a machine that may be busy
@pytest.mark.skipif(not HAS_SUITE, reason="the suite ships with CPython 3.13 and later")
def test_the_suite_of_cpython_passes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.pool.executor_suite"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=580,
    )
    assert done.returncode == 0, done.stderr
    ran = re.search(r"Ran (\d+) tests", done.stderr)
    assert ran is not None
    assert int(ran[1]) >= 44


def test_the_executor_works_without_entering_the_pool_and_its_shutdown_closes_it() -> None:
    made = Pool(workers=1)
    executor = made.executor
    assert executor.submit(work.add, 1, right=2).result() == 3
    executor.shutdown()
    for submit in (executor.submit, made.submit):
        with pytest.raises(RuntimeError):
            submit(work.add, 1)
    executor.shutdown()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("multiloop-pool")]


def test_an_executor_keeps_its_pool_alive_and_one_that_is_dropped_finishes_its_work() -> None:
    future = Pool(workers=1).executor.submit(work.sleep, 0.2)
    assert future.result(timeout=10) == 0.2


def test_run_in_executor_and_wait_and_map_take_it() -> None:
    async def main() -> Any:
        with Pool(workers=2) as made:
            loop = asyncio.get_running_loop()
            first = await loop.run_in_executor(made.executor, work.add, 1, 2)
            futures = [made.executor.submit(work.add, number) for number in range(5)]
            done, not_done = concurrent.futures.wait(futures)
            mapped = list(made.executor.map(work.add, range(5), range(5), chunksize=2))
            return first, len(done), len(not_done), mapped

    assert multiloop.run(main) == (3, 5, 0, [0, 2, 4, 6, 8])


def test_what_cannot_be_pickled_fails_the_future() -> None:
    with Pool(workers=1) as made:
        future = made.executor.submit(work.identity, threading.Lock())
        assert isinstance(future.exception(), TypeError)
        assert made.executor.submit(work.identity, 1).result() == 1


def test_shutdown_without_waiting_returns_at_once_and_finishes_the_work() -> None:
    made = Pool(workers=1)
    future = made.executor.submit(work.sleep, 0.3)
    made.executor.shutdown(wait=False)
    assert not future.done()
    assert future.result(timeout=10) == 0.3


def test_shutdown_on_the_loop_that_ends_the_pool_raises_instead_of_waiting_forever() -> None:
    async def main() -> None:
        made = Pool(workers=1)
        task = made.run(work.sleep, 0.1)
        with pytest.raises(RuntimeError, match=r"await pool\.close"):
            made.shutdown()
        assert await task == 0.1
        await made.close()

    multiloop.run(main)


def test_a_bounded_pool_refuses_or_lets_the_thread_wait() -> None:
    with Pool(workers=1, max_queue=1) as made:
        futures = [made.submit(work.sleep, 0.2), made.submit(work.sleep, 0)]
        with pytest.raises(PoolFull, match="2 unfinished tasks"):
            made.executor.submit(work.add, 1)
        futures.append(made.options(block=True).submit(work.add, 1))
        assert futures[0].done()
        assert [future.result() for future in futures] == [0.2, 0, 1]
