"""One suite for all engines of the pool: what the local engine promises, and who else keeps it.

`KEEPS` is the table in docs/reference/pool.md. What an engine does not keep it refuses; that is tested, too.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import multiprocessing
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import multiloop
from multiloop import pool as pools
from multiloop.errors import NotSendable, PoolBroken, PoolClosed, PoolFull, TaskExited, UsageError, WorkerDied
from multiloop.pool import Pool, RemoteTraceback
from tests.pool import functions as work
from tests.support import until

KEEPS = {
    "local": {"timeout", "stop", "death", "messages", "put", "names the part", "hooks", "writes"},
    "interpreter": {"timeout", "stop", "messages", "put", "names the part", "hooks", "writes"},
    "executor": set(),
    "ray": {"timeout", "stop", "death", "messages", "put", "names the part", "hooks", "writes"},
    "dask": {"timeout", "stop", "death", "messages", "put", "names the part", "hooks", "writes"},
}
_interpreter = pytest.mark.skipif(sys.version_info < (3, 14), reason="needs Python 3.14")
ENGINES = [
    pytest.param("local", marks=[pytest.mark.xdist_group("dask"), pytest.mark.slow]),
    pytest.param("interpreter", marks=[pytest.mark.xdist_group("dask"), pytest.mark.slow, _interpreter]),
    pytest.param("executor", marks=[pytest.mark.xdist_group("dask"), pytest.mark.slow]),
    pytest.param("ray", marks=pytest.mark.xdist_group("ray")),
    pytest.param("dask", marks=pytest.mark.xdist_group("dask")),
]
pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("default"), pytest.mark.timeout(240)]


class Maker:
    """Makes pools of one engine."""

    def __init__(self, name: str, engine: Any, more: dict[str, Any]) -> None:
        self.name = name
        self._engine = engine
        self._more = more
        self.keeps = KEEPS[name]

    def __call__(self, workers: int = 2, **options: Any) -> Pool:
        """A new one."""
        engine = self._engine(workers) if callable(self._engine) else self._engine
        return Pool(workers, engine=engine, **self._more, **options)

    def need(self, what: str) -> None:
        """Skip for an engine that does not keep this."""
        if what not in self.keeps:
            pytest.skip(f"{self.name} does not keep: {what}")


@pytest.fixture(scope="module", params=ENGINES)
def maker(request: pytest.FixtureRequest) -> Iterator[Maker]:
    name = request.param
    executors: list[concurrent.futures.Executor] = []

    def executor(workers: int) -> concurrent.futures.Executor:
        context = multiprocessing.get_context("spawn")
        executors.append(concurrent.futures.ProcessPoolExecutor(workers, mp_context=context))
        return executors[-1]

    if name == "ray":
        request.getfixturevalue("ray_head")
        yield Maker(name, "ray", {})
    elif name == "dask":
        yield Maker(name, request.getfixturevalue("dask_cluster").address, {})
    elif name == "executor":
        yield Maker(name, executor, {})
        for each in executors:
            each.shutdown()
    else:
        yield Maker(name, "local", {"kind": "process" if name == "local" else "interpreter"})


@pytest.fixture(scope="module")
def made(maker: Maker) -> Iterator[Pool]:
    """A pool that the tests share, with its I/O on a thread of its own."""
    with maker(2, context=["tests.pool.functions:variable"], name="shared") as shared:
        assert shared.submit(work.add, 1).result(60) == 1
        yield shared


def on_loop(main: Any) -> Any:
    return multiloop.run(main)


# --- values -------------------------------------------------------------------------------------------------------
def test_arguments_and_results_are_what_they_were(made: Pool) -> None:
    async def main() -> Any:
        return [
            await made.run(work.add, 1, right=2),
            await made.run(work.everything, 1, callback=2, self=3),
            await made.run(pow, 2, 8),
            await made.run("a b".split),
            await made.run(functools.partial(work.add, 4), 5),
            await made.run(work.identity, {"a": [1, (2, b"3"), None, 1.5]}),
        ]

    assert on_loop(main) == [
        3, ((1,), {"callback": 2, "self": 3}), 256, ["a", "b"], 9, {"a": [1, (2, b"3"), None, 1.5]},
    ]  # fmt: skip


def test_many_tiny_tasks_all_come_back_in_their_place(made: Pool) -> None:
    async def main() -> Any:
        return await asyncio.gather(*(made.run(work.add, number, 1) for number in range(1500)))

    assert on_loop(main) == list(range(1, 1501))


def test_large_memory_goes_both_ways_and_what_a_task_changes_stays_there(made: Pool, maker: Maker) -> None:
    if maker.name == "interpreter":
        data: Any = bytearray(range(256)) * 4096
    else:
        numpy = pytest.importorskip("numpy")
        data = numpy.arange(300_000, dtype="u1")
    changed = made.submit(work.first_byte_changed, data).result(60)
    assert (int(changed[0]), int(data[0]), len(changed)) == (99, 0, len(data))
    changed[1] = 7  # what came back is the caller's own
    assert made.submit(work.identity, b"x" * 200_000).result(60) == b"x" * 200_000


def test_what_cannot_be_sent_is_named_at_the_call(made: Pool, maker: Maker) -> None:
    maker.need("names the part")
    with pytest.raises(NotSendable, match=r'args\[0\]\["deep"\]\[1\]'):
        made.submit(work.identity, work.unpicklable())
    with pytest.raises(Exception, match="cannot be sent"):
        made.submit(work.unpicklable).result(60)
    assert made.submit(work.add, 1).result(60) == 1


# --- errors -------------------------------------------------------------------------------------------------------
def test_exceptions_keep_type_notes_causes_and_the_remote_traceback(made: Pool, maker: Maker) -> None:
    with pytest.raises(ValueError, match="rich") as caught:
        made.submit(work.fail_richly).result(60)
    if maker.name == "executor":
        return  # as the executor has it
    error = caught.value
    assert (error.__notes__, error.detail) == (["a note"], 7)  # type: ignore[attr-defined]
    assert isinstance(error.__cause__, KeyError)
    assert isinstance(error.__cause__.__cause__, RemoteTraceback)
    assert "in fail_richly" in str(error.__cause__.__cause__)


def test_system_exit_ends_neither_side(made: Pool, maker: Maker) -> None:
    if maker.name == "executor":
        pytest.skip("as the executor has it")

    async def main() -> None:
        with pytest.raises(TaskExited):
            await made.run(work.exit_politely, 3)
        assert await made.run(work.add, 1) == 1

    on_loop(main)


def test_asynchronous_and_generator_functions_are_refused(made: Pool) -> None:
    with pytest.raises(UsageError, match="asynchronous"):
        made.submit(work.coroutine)
    with pytest.raises(UsageError, match="generator function"):
        made.submit(work.count, 3)


# --- faces --------------------------------------------------------------------------------------------------------
def test_map_keeps_the_order_or_gives_what_is_ready_and_takes_asynchronous_items(made: Pool) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(40):
            yield number

    async def main() -> None:
        assert [value async for value in made.map(work.add, items())] == list(range(40))
        assert sorted([value async for value in made.map(work.add, range(40), ordered=False)]) == list(range(40))
        with pytest.raises(ValueError, match="broken"):
            async for _ in made.map(work.fail, ["broken"] * 5):
                pass

    on_loop(main)
    assert list(made.map(work.add, range(40))) == list(range(40))


def test_the_executor_face_works(made: Pool) -> None:
    assert list(made.executor.map(work.add, range(20), range(20))) == [2 * number for number in range(20)]
    done, _ = concurrent.futures.wait([made.executor.submit(work.add, number) for number in range(5)], 60)
    assert len(done) == 5


def test_named_variables_and_the_trace_travel(made: Pool) -> None:
    async def main() -> Any:
        work.variable.set("carried")
        pools.traceparent.set("00-trace")
        return await made.run(work.get_variable)

    assert on_loop(main) == ("carried", "00-trace")


def test_statistics_count(made: Pool, maker: Maker) -> None:
    before = made.statistics()
    concurrent.futures.wait([made.submit(work.add, number) for number in range(10)])
    with pytest.raises(ValueError):
        made.submit(work.fail).result(60)
    after = made.statistics()
    assert (after.completed - before.completed, after.failed - before.failed) == (10, 1)
    assert (after.limit, after.queued) == (2, 0)
    if maker.name != "executor":
        assert all(worker.pid for worker in after.workers if worker.state in ("ready", "busy"))


def test_waiting_tasks_go_by_priority_and_a_full_queue_says_so(maker: Maker, tmp_path: Path) -> None:
    async def main() -> None:
        async with maker(1, max_queue=3) as own:
            gate = tmp_path / f"gate-{maker.name}"
            first = own.run(work.wait_for_file, str(gate))
            await until(lambda: gate.with_suffix(".begun").exists() or own.statistics().running, 60)
            order: list[int] = []
            tasks = [own.options(priority=priority).run(work.identity, priority) for priority in (1, 3, 2)]
            for task in tasks:
                task.add_done_callback(lambda done: order.append(done.result()))
            with pytest.raises(PoolFull):
                own.run(work.add, 1)
            waits = own.options(block=True).run(work.add, 5)
            gate.touch()
            await first
            await asyncio.gather(*tasks)
            assert await waits == 5
            if maker.name != "executor":  # which has taken one ahead
                assert order == [3, 2, 1]

    on_loop(main)


def test_a_closed_pool_takes_nothing_and_has_finished_what_it_had(maker: Maker) -> None:
    async def main() -> None:
        own = maker(1)
        tasks = [own.run(work.add, number) for number in range(5)]
        await own.close()
        assert [await task for task in tasks] == list(range(5))
        with pytest.raises(PoolClosed):
            own.run(work.add, 1)

    on_loop(main)


# --- stopping -----------------------------------------------------------------------------------------------------
def test_a_task_out_of_time_is_stopped_and_its_neighbours_do_not_notice(made: Pool, maker: Maker) -> None:
    if "timeout" not in maker.keeps:
        with pytest.raises(UsageError, match="cannot be kept"):
            made.options(timeout=1)
        return

    async def main() -> None:
        neighbours = [made.run(work.sleep, 0.02) for _ in range(20)]
        with pytest.raises(TimeoutError, match=r"ran for longer than 0\.4 s"):
            await made.options(timeout=0.4).run(work.forever)
        assert await asyncio.gather(*neighbours) == [0.02] * 20
        assert await made.options(timeout=30).run(work.add, 2) == 2

    before = made.statistics().timed_out
    on_loop(main)
    assert made.statistics().timed_out == before + 1


def test_a_cancelled_task_is_stopped_where_it_runs(made: Pool, maker: Maker) -> None:
    maker.need("stop")

    async def main() -> None:
        stuck = [made.run(work.forever) for _ in range(2)]  # all workers
        await until(lambda: made.statistics().running == 2, 60)
        await asyncio.sleep(0.3)
        for task in stuck:
            task.cancel()
        assert await asyncio.wait_for(made.run(work.add, 3), 60) == 3
        future = made.submit(work.forever)
        await until(lambda: future.running(), 60)
        assert not future.cancel()
        assert made.stop(future)
        await until(future.cancelled, 60)

    on_loop(main)


def test_a_task_that_promised_to_look_ends_by_itself(made: Pool, maker: Maker, tmp_path: Path) -> None:
    maker.need("stop")
    path = tmp_path / "told"

    async def main() -> None:
        task = made.run(work.forever_politely, str(path), 20.0)
        await until(path.with_suffix(".begun").exists, 60)
        task.cancel()
        await until(lambda: path.exists() and path.read_text(), 60)

    on_loop(main)
    assert path.read_text() == "stopped by itself"


def test_waiting_tasks_are_cancelled(made: Pool) -> None:
    async def main() -> None:
        tasks = [made.run(work.sleep, 0.1) for _ in range(20)]
        for task in tasks[4:]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [value for value in done if value == 0.1]
        assert all(isinstance(value, asyncio.CancelledError) for value in done[4:])

    on_loop(main)


# --- deaths -------------------------------------------------------------------------------------------------------
def test_a_death_fails_only_its_task(made: Pool, maker: Maker) -> None:
    maker.need("death")

    async def main() -> None:
        neighbours = [made.run(work.sleep, 0.02) for _ in range(20)]
        with pytest.raises(WorkerDied, match=r"functions\.die") as caught:
            await made.run(work.die)
        assert isinstance(caught.value, concurrent.futures.BrokenExecutor)
        assert await asyncio.gather(*neighbours) == [0.02] * 20

    on_loop(main)


def test_a_death_among_tiny_tasks_fails_only_its_task(made: Pool, maker: Maker) -> None:
    maker.need("death")

    async def main() -> None:
        await asyncio.gather(*(made.run(work.die_at, number, -1) for number in range(300)))  # known to be tiny
        tasks = [made.run(work.die_at, number, 333) for number in range(800)]
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [number for number, value in enumerate(done) if value != number] == [333]
        assert isinstance(done[333], WorkerDied)

    on_loop(main)


def test_an_idempotent_task_is_run_again(made: Pool, maker: Maker, tmp_path: Path) -> None:
    if "death" not in maker.keeps:
        if maker.name == "executor":
            with pytest.raises(UsageError, match="cannot be kept"):
                made.options(idempotent=True)
        return
    again = made.options(idempotent=True).submit(work.die_once, str(tmp_path / "died"))
    assert again.result(60) == "second"
    assert made.statistics().retried >= 1


# --- what tasks say -----------------------------------------------------------------------------------------------
def test_reports_come_in_order_and_before_the_result(made: Pool, maker: Maker) -> None:
    if "messages" not in maker.keeps:
        with pytest.raises(UsageError, match="cannot be kept"):
            made.options(on_report=print)
        return
    heard: list[int] = []
    assert made.options(on_report=heard.append).submit(work.report_steps, 50).result(60) == "done"
    assert heard == list(range(50))
    assert made.submit(work.report_steps, 5).result(60) == "done"  # nobody listens


def test_a_stream_gives_what_is_yielded_and_the_error_at_its_place(made: Pool, maker: Maker, tmp_path: Path) -> None:
    if "messages" not in maker.keeps:
        with pytest.raises(UsageError, match="cannot be kept"):
            list(made.stream(work.count, 3))
        return

    async def main() -> None:
        assert [value async for value in made.stream(work.count, 70)] == list(range(70))
        got = []
        with pytest.raises(ValueError, match="after the last"):
            async for value in made.stream(work.count_and_fail, 5):
                got.append(value)
        assert got == list(range(5))
        path = tmp_path / "closed"
        async for value in made.stream(work.count_and_tell, 10_000, str(path)):
            if value == 3:
                break
        await until(path.exists, 60)

    on_loop(main)
    assert list(made.stream(work.count, 20)) == list(range(20))


# --- shared values, hooks -----------------------------------------------------------------------------------------
def test_a_value_that_was_put_is_shared_and_read_only(made: Pool, maker: Maker) -> None:
    if "put" not in maker.keeps:
        with pytest.raises(UsageError, match="put"):
            made.put_now(b"x")
        return
    if maker.name == "interpreter":
        shared = made.put_now(b"x" * 1_000_000)
        assert [made.submit(len, shared).result(60) for _ in range(3)] == [1_000_000] * 3
        return
    numpy = pytest.importorskip("numpy")
    data = numpy.arange(1_000_000)

    async def main() -> None:
        shared = await made.put({"data": data})
        sums = await asyncio.gather(*(made.run(work.total, shared, "data") for _ in range(6)))
        assert sums == [int(data.sum())] * 6
        with pytest.raises(ValueError, match="read-only"):
            await made.run(work.overwrite, shared, "data")

    on_loop(main)


def test_hooks_run_in_each_worker_and_one_that_raises_breaks_the_pool(maker: Maker) -> None:
    if "hooks" not in maker.keeps:
        with pytest.raises(UsageError, match="cannot be kept"):
            maker(1, initializer=work.set_up, initargs=(1,))
        return

    async def main() -> None:
        async with maker(1, initializer=work.set_up, initargs=("begun",)) as own:
            assert await own.run(work.get_seen) == ["begun"]
        async with maker(1, initializer=work.set_up_badly) as broken:
            with pytest.raises(PoolBroken, match="initializer"):
                await broken.run(work.add, 1)
            with pytest.raises(PoolBroken):
                await broken.run(work.add, 1)

    on_loop(main)


def test_what_only_this_program_has_goes_by_value(made: Pool, maker: Maker) -> None:
    if maker.name in ("executor", "interpreter"):
        pytest.skip("as the executor has it; cloudpickle in interpreters is not tried")
    pytest.importorskip("cloudpickle")
    factor = 3
    assert made.submit(lambda value: factor * value, 4).result(60) == 12
