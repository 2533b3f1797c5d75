"""Workers that are no processes: interpreters (3.14 and newer) and threads."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any

import pytest

import multiloop
from multiloop.errors import UsageError
from multiloop.pool import Pool
from multiloop.worker_threads import SharedBuffer, zombies
from tests.pool import functions as work
from tests.pool.test_run import in_pool
from tests.support import until

needs_interpreters = pytest.mark.skipif(sys.version_info < (3, 14), reason="interpreters need Python 3.14")
KINDS = [pytest.param("interpreter", marks=needs_interpreters), "thread"]


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_run_in_this_process_on_another_thread(kind: Any) -> None:
    async def main(made: Pool) -> None:
        assert made.kind == kind
        assert await made.run(work.pid) == os.getpid()
        assert await made.run(threading.get_ident) != threading.get_ident()
        assert await asyncio.gather(*(made.run(work.add, number) for number in range(500))) == list(range(500))
        assert await made.run(work.everything, 1, a=[2]) == ((1,), {"a": [2]})
        with pytest.raises(ValueError, match="broken"):
            await made.run(work.fail)
        assert [value async for value in made.map(work.add, range(50))] == list(range(50))
        assert [value async for value in made.stream(work.count, 50)] == list(range(50))
        got: list[int] = []
        assert await made.options(on_report=got.append).run(work.report_steps, 5) == "done"
        assert got == list(range(5))
        assert len(await made.run(work.identity, bytes(100_000))) == 100_000
        buffer = SharedBuffer(1024)
        assert await made.run(work.fill, buffer, 7) is buffer
        assert buffer[0] == 7
        assert {worker.state for worker in made.statistics().workers} <= {"ready", "busy", "booting"}

    in_pool(main, kind=kind)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("multiloop-pool")]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_task_gets_is_a_copy(kind: Any) -> None:
    async def main(made: Pool) -> None:
        given = [1, 2]
        assert await made.run(work.first_byte_changed, given) == [99, 2]
        assert given == [1, 2]

    in_pool(main, kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_an_endless_loop_is_stopped_and_its_worker_replaced(kind: Any) -> None:
    async def main(made: Pool) -> None:
        await made.run(work.add, 1)
        task = made.run(work.forever)
        behind = [made.run(work.add, number) for number in range(5)]
        await until(lambda: any(worker.task_seconds > 0.02 for worker in made.statistics().workers))
        task.cancel()
        assert await asyncio.gather(*behind) == list(range(5))
        with pytest.raises(TimeoutError):
            await made.options(timeout=0.05).run(work.forever)
        await until(lambda: len(made.statistics().workers) == 1)

    in_pool(main, kind=kind, workers=1)
    assert not zombies()


@pytest.mark.parametrize("kind", KINDS)
def test_c_code_is_left_behind_and_reported(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    reading, writing = os.pipe()

    async def main(made: Pool) -> None:
        await made.run(work.add, 1)
        task = made.run(os.read, reading, 1)
        await until(lambda: any(worker.task_seconds > 0.02 for worker in made.statistics().workers))
        task.cancel()
        assert await made.run(work.add, 1) == 1
        await until(zombies)
        [zombie] = zombies()
        assert zombie.kind == kind

    in_pool(main, kind=kind, workers=1)
    assert zombies()  # the pool did not wait for it
    assert "does not stop" in caplog.text
    os.write(writing, b"x")
    multiloop.run(lambda: until(lambda: not zombies()))
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("kind", KINDS)
def test_closing_by_force_stops_what_runs(kind: Any) -> None:
    async def main() -> None:
        made = Pool(workers=2, kind=kind)
        tasks = [made.run(work.forever) for _ in range(4)]
        await made.ready()
        await made.close(force=True)
        assert all(task.cancelled() for task in tasks)

    multiloop.run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_initializer_and_finalizer_run_in_each(kind: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ends"
    monkeypatch.setenv("POOL_TEST_FILE", str(path))
    work.seen.clear()

    async def main(made: Pool) -> Any:
        await made.ready()
        return await made.run(work.get_seen)

    assert "ready" in in_pool(main, kind=kind, initializer=work.set_up, initargs=("ready",), finalizer=work.tell_end)
    assert path.read_text() == "end\nend\n"


@pytest.mark.parametrize("options", [{"nice": 1}, {"cores": "spread"}, {"recycle_above_rss": 10**9}])
def test_what_belongs_to_a_process_is_refused(options: Any) -> None:
    with pytest.raises(UsageError, match="belongs to a whole process: use kind='process'"):
        Pool(kind="thread", **options)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="they are there")
def test_interpreters_are_refused_where_there_are_none() -> None:
    with pytest.raises(UsageError, match=r"needs Python 3\.14"):
        Pool(kind="interpreter")


def test_auto_is_a_process_and_says_why() -> None:
    made = Pool()
    assert made.kind == "process"
    assert "stopped" in made.kind_reason
    made.shutdown()


def test_tasks_in_threads_know_their_own_worker() -> None:
    async def main(made: Pool) -> None:
        got: list[Any] = [[], []]
        await asyncio.gather(
            *(made.options(on_report=got[place].append).run(work.report_steps, 20) for place in (0, 1))
        )
        assert got == [list(range(20))] * 2

    in_pool(main, kind="thread")
