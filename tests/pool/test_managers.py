"""Objects of multiprocessing's managers reach the tasks of a pool, and workers."""

from __future__ import annotations

import multiprocessing

import multiloop
from multiloop.pool import Pool
from multiloop.worker_threads import Worker
from tests.pool import functions as work
from tests.worker_threads import targets

spawn = multiprocessing.get_context("spawn")


def test_a_task_can_use_a_managers_objects() -> None:
    with spawn.Manager() as manager, Pool(workers=1, kind="process") as pool:
        values = manager.dict(a=1)
        assert pool.submit(work.copied, values).result(30) == {"a": 1}
        assert pool.submit(work.copied, values).result(30) == {"a": 1}  # the second time, too


def test_a_worker_can_use_a_managers_objects() -> None:
    with spawn.Manager() as manager:
        values = manager.list([1, 2])

        async def main() -> None:
            worker = Worker(targets.echo_once, worker_data=values, kind="process")
            assert [message async for message in worker] == [[1, 2]]

        multiloop.run(main)
