"""locks: across workers, released however the holder ends."""

import asyncio
import os
import signal

import pytest
from tests.support import until
from tests.worker_threads import targets

import multiloop
from multiloop.errors import LockStolen, UsageError
from multiloop.worker_threads import Worker, locks


def test_one_at_a_time_in_the_order_of_the_requests():
    log = []

    async def main():
        async def work(number):
            async with locks.request("a") as lock:
                assert lock
                assert lock.held
                log.append(("in", number))
                await asyncio.sleep(0.002)
                log.append(("out", number))

        await asyncio.gather(*(work(number) for number in range(4)))

    multiloop.run(main)
    assert log == [(word, number) for number in range(4) for word in ("in", "out")]


def test_shared_holders_are_together_and_exclusive_ones_alone():
    async def main():
        first = await locks.request("a", mode="shared")
        second = await locks.request("a", mode="shared")
        waiting = locks.request("a")
        await asyncio.sleep(0.01)
        assert not waiting.done()
        first.release()
        second.release()
        second.release()
        third = await waiting
        assert third.held
        third.release()
        assert not third.held

    multiloop.run(main)


def test_if_available_does_not_wait():
    async def main():
        async with locks.request("a"):
            refused = await locks.request("a", if_available=True)
            assert not refused
            async with locks.request("a", if_available=True) as lock:
                assert not lock
        async with locks.request("a", if_available=True) as lock:
            assert lock

    multiloop.run(main)


def test_a_stolen_lock_tells_its_holder():
    async def main():
        with pytest.raises(LockStolen, match="'a' was stolen"):
            async with locks.request("a") as lock:
                thief = await locks.request("a", steal=True)
                assert lock.is_stolen
                assert not lock
        with pytest.raises(ZeroDivisionError):
            async with locks.request("a", steal=True):
                thief.release()
                await locks.request("a", steal=True)
                raise ZeroDivisionError

    multiloop.run(main)


def test_a_cancelled_request_is_withdrawn():
    async def main():
        first = await locks.request("a")
        cancelled = locks.request("a")
        waiting = locks.request("a")
        cancelled.cancel()
        first.release()
        (await waiting).release()
        snapshot = await locks.query()
        assert (snapshot.held, snapshot.pending) == ([], [])

    multiloop.run(main)


def test_the_query_shows_holders_and_waiters():
    async def main():
        lock = await locks.request("a")
        waiting = locks.request("a", mode="shared")
        held, pending = await locks.query()
        assert [tuple(each) for each in held] == [("a", "exclusive", 0)]
        assert [tuple(each) for each in pending] == [("a", "shared", 0)]
        lock.release()
        (await waiting).release()

    multiloop.run(main)


def test_with_a_callback():
    seen = []

    def main():
        locks.request("a", callback=lambda error, lock: (seen.append((error, bool(lock))), lock.release()))
        locks.query(callback=lambda error, snapshot: seen.append((error, len(snapshot.held))))

    multiloop.run(main)
    assert seen[0] == (None, True)
    assert seen[1][0] is None


def test_wrong_calls_are_refused():
    async def main():
        with pytest.raises(TypeError):
            locks.request(5)
        with pytest.raises(UsageError):
            locks.request("a", mode="both")
        with pytest.raises(UsageError):
            locks.request("a", steal=True, if_available=True)

    multiloop.run(main)


def test_a_lock_excludes_workers_from_each_other_and_from_the_program(kind):
    async def main():
        mine = await locks.request("tree")
        workers = [Worker(targets.take_lock, worker_data=("tree", 0.03), kind=kind) for _ in range(2)]
        log = []
        for worker in workers:
            worker.on("message", lambda word, worker=worker: log.append((*word, worker.thread_id)))
        for _ in range(500):
            if len((await locks.query()).pending) == 2:
                break
            await asyncio.sleep(0.01)
        assert log == []
        mine.release()
        await until(lambda: len(log) == 4)
        log.sort()  # by the clock that all share: messages of different workers may overtake each other
        words, owners = [entry[1] for entry in log], [entry[2] for entry in log]
        assert words == ["held", "released"] * 2
        assert owners[0] == owners[1] != owners[2] == owners[3]
        for worker in workers:
            await worker.wait()

    multiloop.run(main)


def test_a_killed_holder_loses_its_lock():
    async def main():
        worker = Worker(targets.hold_lock, worker_data="tree", kind="process")
        worker.on("error", lambda error: None)
        async for _ in worker:
            break
        waiting = locks.request("tree")
        await asyncio.sleep(0)
        os.kill(worker.pid, signal.SIGKILL)
        (await waiting).release()

    multiloop.run(main)


def test_a_terminated_holder_loses_its_lock(isolated):
    async def main():
        worker = Worker(targets.hold_lock, worker_data="tree", kind=isolated)
        async for _ in worker:
            break
        waiting = locks.request("tree")
        await worker.terminate()
        (await waiting).release()

    multiloop.run(main)


def test_a_worker_of_a_worker_takes_part(kind):
    async def main():
        mine = await locks.request("tree")
        worker = Worker(targets.nest, worker_data=("take_lock", ("tree", 0.001)), kind=kind)
        messages = aiter(worker)
        for _ in range(500):
            if (await locks.query()).pending:
                break
            await asyncio.sleep(0.01)
        ((_, _, nested_id),) = (await locks.query()).pending
        mine.release()
        for expected in ("held", "released"):
            thread_id, (_, word) = await anext(messages)
            assert (thread_id, word) == (nested_id, expected)
        await worker.wait()

    multiloop.run(main)
