"""Somebody else's executor as the engine of a pool."""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import threading
from typing import Any

import pytest

import multiloop
from multiloop.errors import PoolFull, UsageError
from multiloop.pool import Pool
from tests.pool import functions as work


def with_threads(main: Any, workers: int = 2, **options: Any) -> Any:
    with concurrent.futures.ThreadPoolExecutor(workers) as executor:

        async def program() -> Any:
            async with Pool(engine=executor, **options) as made:
                return await main(made)

        return multiloop.run(program)


def test_tasks_run_on_the_executor() -> None:
    async def main(made: Pool) -> None:
        assert await made.run(threading.get_ident) != threading.get_ident()
        assert await made.run(lambda: 3) == 3
        assert await asyncio.gather(*(made.run(work.add, number) for number in range(200))) == list(range(200))
        assert [value async for value in made.map(work.add, range(50))] == list(range(50))
        with pytest.raises(ValueError, match="broken"):
            await made.run(work.fail)
        assert made.submit(work.add, 4).cancel() in (True, False)
        found = made.statistics()
        assert (found.engine, found.failed, found.limit) == ("ThreadPoolExecutor", 1, 2)

    with_threads(main)


def test_synchronous_use_works_too() -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as executor, Pool(engine=executor) as made:
        assert [made.submit(work.add, number).result() for number in range(20)] == list(range(20))
        assert list(made.executor.map(work.add, range(20))) == list(range(20))
    assert executor.submit is not None


def test_processes_of_the_standard_library_work_and_get_the_context() -> None:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:

        async def main() -> Any:
            async with Pool(engine=executor, context=["tests.pool.functions:variable"]) as made:
                work.variable.set("carried")
                return await made.run(work.get_variable)

        assert multiloop.run(main) == ("carried", None)


def test_waiting_tasks_are_cancelled_and_running_ones_left_alone() -> None:
    async def main(made: Pool) -> None:
        running = made.run(work.sleep, 0.2)
        waiting = [made.run(work.sleep, 60) for _ in range(5)]
        for task in (*waiting, running):
            task.cancel()
        assert await asyncio.wait_for(made.run(work.add, 1), 50) == 1

    with_threads(main, 1)


def test_the_queue_is_ours() -> None:
    async def main(made: Pool) -> None:
        tasks = [made.run(work.sleep, 0.05) for _ in range(3)]
        with pytest.raises(PoolFull):
            made.run(work.add, 1)
        assert await made.options(block=True).run(work.add, 1) == 1
        await asyncio.gather(*tasks)

    with_threads(main, 1, max_queue=2)


@pytest.mark.parametrize(
    "options",
    [
        {"nice": 1},
        {"task_timeout": 1},
        {"recycle_after_tasks": 1},
        {"initializer": print},
        {"warm": True},
        {"kind": "process"},
    ],
)
def test_what_an_executor_cannot_keep_is_refused(options: Any) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as executor, pytest.raises(UsageError, match="executor as engine"):
        Pool(engine=executor, **options)


def test_what_it_cannot_keep_for_a_task_is_refused() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        made = Pool(engine=executor)
        for options in ({"timeout": 1}, {"idempotent": True}, {"on_report": print}):
            with pytest.raises(UsageError, match="executor as engine"):
                made.options(**options)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="executor as engine"):
            list(made.stream(work.count, 3))
        made.shutdown()


def test_an_executor_that_is_shut_down_fails_its_tasks() -> None:
    async def main() -> None:
        executor = concurrent.futures.ThreadPoolExecutor(1)
        executor.shutdown()
        async with Pool(engine=executor) as made:
            with pytest.raises(RuntimeError, match="after shutdown"):
                await made.run(work.add, 1)

    multiloop.run(main)
