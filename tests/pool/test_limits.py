"""Queues, priorities, recycling, initializers, context, cores: what a pool can be told."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import pytest

import multiloop
from multiloop import pool
from multiloop.errors import PoolBroken, PoolFull, UsageError
from multiloop.pool import Pool, _machine
from tests.pool import functions as work
from tests.pool.test_run import in_pool
from tests.support import until


def test_a_full_queue_raises_at_once_or_waits() -> None:
    async def main(made: Pool) -> None:
        tasks = [made.run(work.sleep, 0.1) for _ in range(3)]
        with pytest.raises(PoolFull) as caught:
            made.run(work.add, 1)
        assert (caught.value.unfinished, caught.value.limit) == (3, 3)
        waiting = [made.options(block=True).run(work.add, number) for number in range(20)]
        assert made.statistics().waiting_for_room == 20
        waiting[3].cancel()
        waiting[7].cancel()
        assert await asyncio.gather(*tasks) == [0.1] * 3
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [number for number, value in enumerate(results) if number == value] == [
            number for number in range(20) if number not in (3, 7)
        ]
        assert await made.run(work.add, 1) == 1

    in_pool(main, workers=1, max_queue=2)


def test_places_are_given_back_whatever_becomes_of_a_task() -> None:
    async def main(made: Pool) -> None:
        for _ in range(3):
            endings = [made.run(work.die), made.run(work.fail), made.run(work.add, 1), made.run(work.forever)]
            await asyncio.gather(*endings[:3], return_exceptions=True)
            endings[3].cancel()
            with pytest.raises(TimeoutError):
                await made.options(timeout=0.05).run(work.forever)
        assert await asyncio.gather(*(made.run(work.add, number) for number in range(4))) == [0, 1, 2, 3]

    in_pool(main, workers=1, max_queue=3)


def test_closing_finishes_also_what_waits_for_room() -> None:
    async def main() -> None:
        made = Pool(workers=1, max_queue=0)
        running = made.run(work.sleep, 0.1)
        waiting = made.options(block=True).run(work.add, 1)
        await made.close()
        assert running.result() == 0.1
        assert waiting.result() == 1

    multiloop.run(main)


def test_higher_priorities_go_first_and_equal_ones_in_order() -> None:
    async def main(made: Pool) -> Any:
        order: list[Any] = []

        def run(name: str, priority: int) -> Any:
            task = made.options(priority=priority).run(work.sleep, 0.01)
            task.add_done_callback(lambda _: order.append(name))
            return task

        await made.run(work.sleep, 0)
        tasks = [run("running", 0)]
        tasks += [run("low", -1), run("a", 0), run("high", 5), run("b", 0), run("higher", 9), run("high too", 5)]
        await asyncio.gather(*tasks)
        return order

    assert in_pool(main, workers=1) == ["running", "higher", "high", "high too", "a", "b", "low"]


def test_workers_are_recycled_after_so_many_tasks() -> None:
    async def main(made: Pool) -> Any:
        pids = [await made.run(work.pid) for _ in range(9)]
        many = await asyncio.gather(*(made.run(work.pid) for _ in range(30)))
        return pids, many, made.statistics().recycled

    pids, many, recycled = in_pool(main, workers=1, recycle_after_tasks=3)
    assert len(set(pids)) == 3
    assert all(many.count(pid) <= 3 for pid in set(many))
    assert recycled >= 12


def test_workers_that_hold_much_memory_are_recycled_and_those_that_used_much_are_not() -> None:
    async def main(made: Pool) -> None:
        first = await made.run(work.pid)
        await made.run(work.grow_a_moment, 100 * 2**20)
        await asyncio.sleep(0.3)
        assert await made.run(work.pid) == first
        await made.run(work.grow, 100 * 2**20)
        await asyncio.sleep(0.3)
        assert await made.run(work.pid) != first
        assert made.statistics().recycled == 1

    in_pool(main, workers=1, recycle_above_rss=90 * 2**20)


def test_old_workers_are_recycled() -> None:
    async def main(made: Pool) -> None:
        first = await made.run(work.pid)
        await asyncio.sleep(0.6)
        assert await made.run(work.pid) != first

    in_pool(main, workers=1, recycle_after_age=0.5)


def test_the_initializer_runs_first_and_the_finalizer_last(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ends"
    monkeypatch.setenv("POOL_TEST_FILE", str(path))

    async def main(made: Pool) -> Any:
        await made.ready()
        return await made.run(work.get_seen)

    seen = in_pool(main, workers=2, initializer=work.set_up, initargs=("ready",), finalizer=work.tell_end)
    assert seen == ["ready"]
    assert path.read_text() == "end\nend\n"


def test_a_failing_initializer_breaks_the_pool_with_its_own_error(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        made = Pool(workers=2, initializer=work.set_up_badly)
        with pytest.raises(PoolBroken, match="its initializer raised ValueError") as caught:
            await made.run(work.add, 1)
        assert isinstance(caught.value.__cause__, ValueError)
        with pytest.raises(PoolBroken):
            await made.run(work.add, 1)
        with pytest.raises(PoolBroken):
            made.submit(work.add, 1)
        with pytest.raises(PoolBroken):
            await made.ready()
        await made.close()

    multiloop.run(main)
    assert "its initializer raised" in caplog.text


def test_workers_that_cannot_start_break_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        made = Pool(workers=2, initializer=work.leave, initargs=(7,))
        with pytest.raises(PoolBroken, match="exit code 7 before it was ready"):
            await made.run(work.add, 1)
        await made.close()
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        made = Pool(workers=2)
        with pytest.raises(PoolBroken, match="/nowhere/python"):
            await made.run(work.add, 1)
        await made.close()

    multiloop.run(main)


def test_ready_starts_all_workers_before_the_first_task() -> None:
    async def main(made: Pool) -> None:
        await made.ready()
        assert [worker.state for worker in made.statistics().workers] == ["ready"] * 3
        await made.ready()

    in_pool(main, workers=3)


def test_a_pool_grows_with_its_work_and_no_further() -> None:
    async def main(made: Pool) -> None:
        for _ in range(5):
            await made.run(work.pid)
        assert len(made.statistics().workers) == 1
        await asyncio.gather(*(made.run(work.sleep, 0.2) for _ in range(10)))
        assert len(made.statistics().workers) == 3

    in_pool(main, workers=3)


def test_resizing_while_tasks_run_loses_none() -> None:
    async def main(made: Pool) -> None:
        await made.ready()
        tasks = [made.run(work.sleep, 0.02) for _ in range(40)]
        await asyncio.sleep(0)
        made.resize(1)
        await until(lambda: len(made.statistics().workers) == 1)
        tasks += [made.run(work.sleep, 0.02) for _ in range(20)]
        await asyncio.sleep(0)
        made.resize(3)
        await until(lambda: len(made.statistics().workers) == 3)
        assert await asyncio.gather(*tasks) == [0.02] * 60
        with pytest.raises(ValueError, match="at least 1"):
            made.resize(0)

    in_pool(main, workers=4)


def test_named_context_variables_and_the_trace_travel() -> None:
    async def main(made: Pool) -> None:
        assert await made.run(work.get_variable) == ("unset", None)
        work.variable.set("request 1")
        pool.traceparent.set("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        assert await made.run(work.get_variable) == (
            "request 1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )

    in_pool(main, context=["tests.pool.functions:variable"])

    async def plain(made: Pool) -> None:
        assert await made.run(work.get_variable) == ("unset", None)

    in_pool(plain)


def test_the_variables_of_one_task_are_gone_in_the_next() -> None:
    async def main(made: Pool) -> None:
        token = work.variable.set("first")
        assert (await made.run(work.get_variable))[0] == "first"
        work.variable.reset(token)
        assert (await made.run(work.get_variable))[0] == "unset"

    in_pool(main, workers=1, context=["tests.pool.functions:variable"])


def test_nice_and_cores_are_set_in_the_workers() -> None:
    allowed = sorted(os.sched_getaffinity(0))

    async def main(made: Pool) -> Any:
        await made.ready()
        pids = await asyncio.gather(*(made.run(work.sleep, 0.05) for _ in range(4)))
        assert pids
        found = await asyncio.gather(*(made.run(work.cores) for _ in range(20)))
        return await made.run(work.niceness), found

    niceness, found = in_pool(main, nice=3, cores="spread")
    assert niceness == min(19, os.nice(0) + 3)
    assert all(len(cores) == 1 for cores in found)
    assert {core for cores in found for core in cores} <= set(allowed)


def test_inside_a_server_pools_give_way_and_share_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_machine, "defaults", _machine._Defaults())
    pool.inside_server(processes=64)
    assert _machine.share_of_cores() == 1
    assert in_pool(lambda made: made.run(work.niceness)) == min(19, os.nice(0) + 10)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"workers": 0}, ValueError),
        ({"workers": -1}, ValueError),
        ({"workers": "2"}, TypeError),
        ({"kind": "fork"}, ValueError),
        ({"engine": "nowhere"}, UsageError),
        ({"max_queue": -1}, ValueError),
        ({"task_timeout": 0}, ValueError),
        ({"recycle_after_tasks": 0}, ValueError),
        ({"initializer": 3}, TypeError),
        ({"initializer": lambda: None}, UsageError),
        ({"context": ["nothing"]}, ValueError),
        ({"context": ["tests.pool.functions:add"]}, ValueError),
        ({"cores": [9999]}, ValueError),
        ({"cores": []}, ValueError),
    ],
)
def test_wrong_options_raise_at_once(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Pool(**options)


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": "1"}, {"priority": 1.5}, {"callback": 3}, {"on_report": 3}]
)
def test_wrong_options_of_tasks_raise_at_once(options: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Pool(workers=1).options(**options)


def test_statistics_tell_what_happened() -> None:
    async def main(made: Pool) -> Any:
        await asyncio.gather(*(made.run(work.sleep, 0.02) for _ in range(10)))
        with pytest.raises(ValueError, match="broken"):
            await made.run(work.fail)
        slow = made.run(work.spin, 0.3)
        ahead = [made.run(work.add, 1) for _ in range(5)]
        await until(lambda: any(worker.task_seconds > 0.05 for worker in made.statistics().workers))
        during = made.statistics()
        await asyncio.gather(slow, *ahead)
        return during, made.statistics()

    during, after = in_pool(main, workers=1, name="counted")
    assert during.name == "counted"
    assert during.running == 1
    assert during.queued == 5
    assert during.workers[0].task == "tests.pool.functions.spin"
    assert during.workers[0].rss > 2**20
    assert (after.completed, after.failed, after.queued, after.running) == (16, 1, 0, 0)
    assert after.run.count == 17
    assert 0.019 <= after.run.p50 <= after.run.max  # quantiles are right within 4 %
    assert after.run.max >= 0.3
    assert after.wait.max >= 0.1
    assert 0 < after.utilization <= 1


def test_a_finished_pool_keeps_nothing_of_its_tasks() -> None:
    import gc
    import weakref

    class Marked(list[int]):
        pass

    async def main(made: Pool) -> None:
        argument = work.BadReduce("never")
        watched = weakref.ref(argument)
        task = made.run(work.ignore, [1])
        del argument
        gc.collect()
        assert watched() is None
        await task
        assert task.call is None  # type: ignore[attr-defined]

    in_pool(main)


def test_an_idle_pool_costs_nothing() -> None:
    """Workers sleep once there is nothing to do: they use no time of any core."""

    def used(pid: int) -> int:
        with open(f"/proc/{pid}/schedstat") as file:
            return int(file.read().split()[0])

    async def main(made: Pool) -> None:
        await made.ready()
        await asyncio.gather(*(made.run(work.add, number) for number in range(500)))
        pids = [worker.pid for worker in made.statistics().workers]
        before, now = [], [used(pid) for pid in pids]
        for _ in range(20):  # on a starved machine they may come to their last tasks late
            await asyncio.sleep(0.3)
            before, now = now, [used(pid) for pid in pids]
            if now == before:
                return
        raise AssertionError(f"they never rest: {before}, {now}")

    in_pool(main)


def test_the_loop_goes_on_while_workers_compute() -> None:
    async def main(made: Pool) -> None:
        tasks = [made.run(work.spin, 0.2) for _ in range(4)]
        turns = 0
        while not all(task.done() for task in tasks):
            turns += 1
            await asyncio.sleep(0.001)
        assert turns > 3

    in_pool(main)
