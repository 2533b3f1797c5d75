"""Workers killed, flooded, short of everything: nothing hangs, nothing is lost silently, nothing is left."""

import asyncio
import gc
import os
import random
import signal

import pytest
from tests.support import proportional_bytes, until
from tests.worker_threads import targets

import multiloop
from multiloop.worker_threads import MessageChannel, SharedBuffer, Worker, receive_message_on_port

pytestmark = pytest.mark.faults


def shared_memory_files():
    return {name for name in os.listdir("/dev/shm") if "multiloop" in name}  # others have theirs there


def children():
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:
        return file.read().split()


@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_workers_created_and_killed_at_any_moment_leave_nothing(count):
    chance = random.Random(1)
    before = shared_memory_files()
    codes = []

    async def main():
        buffer = SharedBuffer(1 << 16)
        running = set()
        for number in range(count):
            worker = Worker(targets.hold_buffer, worker_data=buffer, kind="process", stdout=number % 3 == 0)
            worker.on("error", lambda error: None)
            worker.on("exit", lambda code, worker=worker: (codes.append(code), running.discard(worker)))
            running.add(worker)
            worker.post_message(bytes(100_000))
            await asyncio.sleep(chance.random() * 0.05)
            if chance.random() < 0.5:
                os.kill(worker.pid, signal.SIGKILL)
            else:
                worker.terminate().unref()
            await until(lambda: len(running) < 8)
        await until(lambda: not running)
        buffer.close()

    multiloop.run(main)
    assert len(codes) == count
    assert set(codes) <= {1, 137}
    assert children() == []
    assert shared_memory_files() == before
    gc.collect()


def test_interpreters_created_and_terminated_leave_nothing(isolated):
    if isolated != "interpreter":
        pytest.skip("about interpreters")

    async def main():
        for number in range(20):
            worker = Worker(targets.hold_buffer, worker_data=None, kind="interpreter")
            if number % 2:
                async for _ in worker:
                    break
            assert await worker.terminate() == 1

    multiloop.run(main)


def test_a_killed_worker_costs_no_message_that_it_had_posted():
    async def main():
        for _ in range(5):
            worker = Worker(targets.flood, kind="process")
            worker.on("error", lambda error: None)
            got = []
            worker.on("message", got.append)
            await until(lambda got=got: len(got) > 50)
            os.kill(worker.pid, signal.SIGKILL)
            await worker.wait()
            assert got == list(range(len(got)))

    multiloop.run(main)


def test_posting_to_a_worker_while_it_is_killed_never_raises():
    async def main():
        worker = Worker(targets.stay, kind="process")
        worker.on("error", lambda error: None)
        async for _ in worker:
            break
        os.kill(worker.pid, signal.SIGKILL)
        while worker.post_message(bytes(200_000)):
            await asyncio.sleep(0)
        assert await worker.drain() is False
        await worker.wait()

    multiloop.run(main)


@pytest.mark.slow
def test_a_million_messages_to_a_slow_reader_arrive_in_order_and_memory_stays_bounded():
    """Of a kilobyte each; the sender waits when it is told to."""
    count = 1_000_000
    page = os.sysconf("SC_PAGESIZE")

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * page

    async def main():
        port1, port2 = MessageChannel()
        state = {"next": 0}

        def heard(value):
            assert value[0] == state["next"]
            state["next"] += 1

        port2.on("message", heard)
        before = resident()
        highest = 0
        filler = "x" * 1000
        for number in range(count):
            if not port1.post_message((number, filler)):
                highest = max(highest, resident())
                await port1.drain()
        await until(lambda: state["next"] == count, 60)
        assert highest - before < 33 << 20
        port1.close()

    multiloop.run(main)


def test_a_reader_that_never_reads_keeps_no_more_than_the_mark_waiting():
    async def main():
        port1, port2 = MessageChannel()
        posted = 0
        while port1.post_message("x" * 1000):
            posted += 1
        assert posted < 2500  # a mebibyte, and what the kernel takes
        assert receive_message_on_port(port2).message == "x" * 1000
        port1.close()
        port2.close()

    multiloop.run(main)


@pytest.mark.slow
def test_64_mebibytes_both_ways_at_once_a_hundred_times(isolated):
    async def main():
        worker = Worker(targets.echo, kind=isolated)
        big = bytes(64 << 20)
        messages = aiter(worker)
        for _ in range(100):
            worker.post_message(big)
            assert len(await anext(messages)) == len(big)
        await worker.terminate()

    multiloop.run(main)


def test_small_messages_pass_quickly_while_large_ones_travel(isolated):
    """Large values travel beside the stream: what comes behind them waits for one copy, not for a transmission."""

    async def main():
        worker = Worker(targets.echo, kind=isolated)
        messages = aiter(worker)
        worker.post_message("warm")
        await anext(messages)
        big = bytes(100 << 20)
        worker.post_message(big)
        assert worker.buffered_amount < 110 << 20  # beside the stream, not in it
        worker.post_message("small")
        assert len(await anext(messages)) == len(big)
        assert await anext(messages) == "small"
        await worker.terminate()

    multiloop.run(main)


def test_a_numpy_array_is_copied_exactly_once():
    """The pages of both processes together grow by the array once (proportional set size), not twice."""
    numpy = pytest.importorskip("numpy")

    async def main():
        worker = Worker(targets.keep_array, kind="process")
        messages = aiter(worker)
        assert await anext(messages) == "ready"
        array = numpy.ones(100_000_000, dtype="u1")
        before = proportional_bytes(os.getpid(), worker.pid)
        worker.post_message(array)
        assert await anext(messages) == 100_000_000
        grown = proportional_bytes(os.getpid(), worker.pid) - before
        assert grown < 1.1 * array.nbytes
        await worker.terminate()

    multiloop.run(main)
