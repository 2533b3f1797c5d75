"""Stopping tasks and losing workers: who fails, who does not notice, what is left."""

from __future__ import annotations

import asyncio
import concurrent.futures
import concurrent.futures.process
import os
import pickle
import signal
import time
from typing import Any

import pytest

import multiloop
from multiloop.errors import WorkerDied
from multiloop.pool import Pool
from tests.pool import functions as work
from tests.pool.test_run import in_pool
from tests.support import until, wait_until


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(") ", 1)[1][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_cancelling_the_awaiter_stops_an_endless_loop() -> None:
    async def main(made: Pool) -> None:
        task = made.run(work.forever)
        await until(lambda: made.statistics().workers and made.statistics().workers[0].task_seconds > 0)
        pid = made.statistics().workers[0].pid
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not is_alive(pid))
        assert await made.run(work.pid) != pid
        assert made.statistics().stopped == 1
        assert made.statistics().died == 0

    in_pool(main, workers=1)


def test_a_timeout_counts_from_the_start_and_stops_the_task() -> None:
    async def main(made: Pool) -> None:
        await made.run(work.pid)
        slow = made.run(work.sleep, 0.3)
        waiting = made.options(timeout=0.25).run(work.add, 1)  # waits for longer than it may run
        begun = time.monotonic()
        with pytest.raises(TimeoutError, match=r"functions\.forever ran for longer than 0\.2 s and was stopped"):
            await made.options(timeout=0.2).run(work.forever)
        assert time.monotonic() - begun > 0.45
        assert await slow == 0.3
        assert await waiting == 1
        assert made.statistics().timed_out == 1

    in_pool(main, workers=1)


def test_a_pools_own_timeout_holds_for_all_tasks_and_can_be_overridden() -> None:
    async def main(made: Pool) -> None:
        with pytest.raises(TimeoutError):
            await made.run(work.forever)
        assert await made.options(timeout=10).run(work.sleep, 0.5) == 0.5
        many = await asyncio.gather(*(made.run(work.add, number) for number in range(100)))
        assert many == list(range(100))

    in_pool(main, workers=1, task_timeout=0.3)


def test_neighbours_of_a_stopped_task_do_not_notice(tmp_path: Any) -> None:
    """Tasks that were sent ahead behind it run elsewhere, each of them once."""

    async def main(made: Pool) -> None:
        await made.run(work.touch, str(tmp_path / "warm"))
        for round_number in range(5):
            paths = [str(tmp_path / f"{round_number}-{number}") for number in range(20)]
            endless = made.run(work.forever)
            tasks = [made.run(work.touch, path) for path in paths]
            await asyncio.sleep(0.05)
            endless.cancel()
            assert await asyncio.gather(*tasks) == paths
            for path in paths:
                with open(path) as file:
                    assert file.read() == "begun\n"

    in_pool(main, workers=1)


def test_a_task_that_waits_is_cancelled_without_killing_anybody() -> None:
    async def main(made: Pool) -> None:
        before = await made.run(work.pid)
        slow = made.run(work.sleep, 0.2)
        waiting = [made.run(work.forever) for _ in range(5)]
        await asyncio.sleep(0.05)
        for task in waiting:
            task.cancel()
        assert await slow == 0.2
        assert await made.run(work.pid) == before
        assert made.statistics().stopped == 0
        assert made.statistics().cancelled == 5
        assert made.statistics().queued == 0

    in_pool(main, workers=1)


def test_a_task_that_asks_stops_by_itself_and_its_worker_lives_on(tmp_path: Any) -> None:
    path = tmp_path / "file"

    async def main(made: Pool) -> None:
        before = await made.run(work.pid)
        task = made.run(work.forever_politely, str(path))
        await until((tmp_path / "file.begun").exists)
        assert task.cancel()
        await until(path.exists)
        assert await made.run(work.pid) == before
        with pytest.raises(TimeoutError):
            await made.options(timeout=0.5).run(work.forever_politely, str(path), 10.0)
        assert await made.run(work.pid) == before

    in_pool(main, workers=1)
    assert path.read_text() == "stopped by itself"


def test_a_task_that_promised_to_stop_and_does_not_is_killed() -> None:
    async def main(made: Pool) -> None:
        before = await made.run(work.pid)
        task = made.run(work.promise_and_forget)
        await asyncio.sleep(0.1)
        task.cancel()
        assert await made.run(work.pid) != before

    in_pool(main, workers=1)


def test_stop_ends_a_running_future_which_cancel_does_not() -> None:
    with Pool(workers=1) as made:
        future = made.submit(work.forever)
        wait_until(future.running)
        assert not future.cancel()
        waiting = [made.submit(work.forever) for _ in range(4)]
        assert waiting[3].cancel()
        assert made.stop(future)
        for other in waiting[:3]:
            assert made.stop(other)
        done, not_done = concurrent.futures.wait([future, *waiting], timeout=5)
        assert not not_done
        assert all(ended.cancelled() for ended in done)
        with pytest.raises(concurrent.futures.CancelledError):
            future.result()
        assert made.submit(work.add, 3).result() == 3
        assert not made.stop(future)


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT], ids=lambda number: number.name
)
def test_a_killed_worker_fails_only_its_task_and_names_the_signal(number: signal.Signals) -> None:
    async def main(made: Pool) -> Any:
        tasks = [made.run(work.die, number), *(made.run(work.add, value) for value in range(50))]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[1:] == list(range(50))
        assert made.statistics().died == 1
        return results[0]

    error = in_pool(main)
    assert type(error).__name__ == "WorkerDied"
    assert error.signal == number.name
    assert f"was killed by {number.name} while it ran tests.pool.functions.die" in str(error)
    assert isinstance(error, WorkerDied)
    assert isinstance(error, concurrent.futures.BrokenExecutor)
    assert isinstance(error, concurrent.futures.process.BrokenProcessPool)
    assert type(pickle.loads(pickle.dumps(error))) is WorkerDied


def test_a_worker_that_leaves_fails_its_task_with_the_exit_code() -> None:
    async def main(made: Pool) -> Any:
        with pytest.raises(WorkerDied, match="ended with exit code 3") as caught:
            await made.run(work.leave, 3)
        assert await made.run(work.add, 1) == 1
        return caught.value

    assert in_pool(main, workers=1).exit_code == 3


def test_a_worker_that_dies_while_it_is_idle_is_replaced() -> None:
    async def main(made: Pool) -> None:
        pid = await made.run(work.pid)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: made.statistics().died == 1)
        assert await made.run(work.pid) != pid

    in_pool(main, workers=1)


@pytest.mark.parametrize("when", ["exit", "crash"])
def test_a_crash_while_arguments_are_unpickled_fails_only_that_task(when: str) -> None:
    async def main(made: Pool) -> None:
        tasks = [made.run(work.add, 1), made.run(work.ignore, work.BadReduce(when)), made.run(work.add, 2)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[0::2] == [1, 2]
        assert isinstance(results[1], Exception)

    in_pool(main, workers=1)


def test_a_task_that_forks_and_returns_twice_gives_one_result() -> None:
    async def main(made: Pool) -> None:
        results = await asyncio.gather(*(made.run(work.fork_and_return, value) for value in range(20)))
        assert results == list(range(20))
        got: list[str] = []
        assert await made.options(on_report=got.append).run(work.fork_and_report, 3) == 3
        assert got == ["from the worker"]
        assert made.statistics().died == 0

    in_pool(main, workers=1)


def test_idempotent_tasks_run_again_when_their_worker_dies(tmp_path: Any) -> None:
    path = str(tmp_path / "first")

    async def main(made: Pool) -> None:
        assert await made.options(idempotent=True).run(work.die_once, path) == "second"
        assert made.statistics().retried == 1
        with pytest.raises(WorkerDied):
            await made.options(idempotent=True).run(work.die)
        assert made.statistics().retried == 3
        assert made.statistics().died == 4

    in_pool(main, workers=1)


def test_tasks_behind_a_long_one_are_taken_by_an_idle_worker() -> None:
    async def main(made: Pool) -> None:
        await asyncio.gather(*(made.run(work.sleep, 0.05) for _ in range(8)))  # two workers are up
        slow = made.run(work.sleep, 60)
        await asyncio.gather(*(made.run(work.sleep, 0.01) for _ in range(6)))
        assert not slow.done()
        slow.cancel()

    in_pool(main)


def test_a_tiny_task_that_turns_out_long_does_not_hold_up_the_others() -> None:
    async def main(made: Pool) -> None:
        for _ in range(3):
            await asyncio.gather(*(made.run(work.sleep, 0) for _ in range(200)))  # proven tiny
        slow = made.run(work.sleep, 60)
        await asyncio.gather(*(made.run(work.sleep, 0) for _ in range(200)))
        assert not slow.done()
        slow.cancel()

    in_pool(main)


def test_workers_killed_all_the_time_lose_nothing_but_their_task() -> None:
    kill_workers_under_load(kills=12, tasks=1000)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workers_killed_all_the_time_for_a_minute() -> None:
    kill_workers_under_load(kills=0, tasks=20_000, seconds=60)


def kill_workers_under_load(kills: int, tasks: int, seconds: float = 0) -> None:
    """Every 50 ms a worker is killed. Every task has its own result or its own error, and nothing hangs."""
    killed = 0

    async def kill(made: Pool, until_s: float) -> None:
        nonlocal killed
        turn = 0
        while time.monotonic() < until_s or killed < kills:
            await asyncio.sleep(0.05)
            pids = [worker.pid for worker in made.statistics().workers if worker.pid and worker.state != "booting"]
            if pids:
                turn += 1
                try:
                    os.kill(pids[turn % len(pids)], signal.SIGKILL)
                    killed += 1
                except ProcessLookupError:
                    pass

    async def main(made: Pool) -> None:
        killer = asyncio.ensure_future(kill(made, time.monotonic() + seconds))
        done = failed = 0
        number = 0
        while not killer.done() or number < tasks:
            batch = range(number, number + 100)
            number += 100
            results = await asyncio.gather(
                *(made.run(work.add, value) if value % 3 else made.run(work.identity, [value]) for value in batch),
                return_exceptions=True,
            )
            for value, result in zip(batch, results, strict=True):
                if isinstance(result, WorkerDied):
                    assert result.signal == "SIGKILL"
                    failed += 1
                else:
                    assert result == (value if value % 3 else [value])
                    done += 1
            await asyncio.sleep(0.001)
        await killer
        statistics = made.statistics()
        assert failed <= statistics.died <= killed + 2
        assert done + failed == number
        assert await made.run(work.add, 1) == 1

    in_pool(main)


def count_children() -> int:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return len(file.read().split())


def create_and_kill(count: int) -> None:
    """Nothing is left of workers: no process, no descriptor, no thread, no file in shared memory."""
    descriptors = len(os.listdir("/proc/self/fd"))
    made_so_far = 0

    async def main() -> None:
        nonlocal made_so_far
        while made_so_far < count:
            made = Pool(workers=5)
            await made.ready()
            tasks = [made.run(work.forever) for _ in range(5)]
            pids = [worker.pid for worker in made.statistics().workers]
            made_so_far += 5
            if made_so_far % 10:
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(0.02)  # those that had not begun are run by new workers
            await made.close(force=True)
            await asyncio.gather(*tasks, return_exceptions=True)

    multiloop.run(main)
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2  # the lifeline
    assert not [name for name in os.listdir("/dev/shm") if "multiloop" in name]
    with open("/proc/self/maps") as file:
        assert "multiloop-pool" not in file.read()


def test_fifty_workers_created_and_killed_leave_nothing() -> None:
    create_and_kill(50)


@pytest.mark.slow
def test_a_thousand_workers_created_and_killed_leave_nothing() -> None:
    create_and_kill(1000)
