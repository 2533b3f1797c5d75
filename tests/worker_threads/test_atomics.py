"""Atomics: the compiled operations and the ones that lock, held to the same promises."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from tests.support import environment, until
from tests.worker_threads import targets

import multiloop
from multiloop.errors import PeerDied
from multiloop.worker_threads import Atomics, SharedBuffer, Worker, _primitives
from multiloop.worker_threads._locked import LockedAtomics


@pytest.fixture(params=["compiled", "locked"])
def form(request, monkeypatch):
    if request.param == "locked":
        monkeypatch.setenv("MULTILOOP_PURE", "1")
    elif _primitives.native() is None:
        pytest.skip("the extension is not built")
    return request.param


@pytest.fixture
def buffer(form):
    with SharedBuffer(64) as made:
        assert isinstance(made._attachment.head.ops, LockedAtomics) == (form == "locked")
        yield made


def test_each_returns_what_was_there_before(buffer):
    assert Atomics.store(buffer, 0, 10) == 10
    assert Atomics.add(buffer, 0, 5) == 10
    assert Atomics.sub(buffer, 0, 3) == 15
    assert Atomics.and_(buffer, 0, 0b110) == 12
    assert Atomics.or_(buffer, 0, 0b1001) == 4
    assert Atomics.xor(buffer, 0, 0b1111) == 13
    assert Atomics.exchange(buffer, 0, -1) == 2
    assert Atomics.compare_exchange(buffer, 0, 7, 8) == -1
    assert Atomics.load(buffer, 0) == -1
    assert Atomics.compare_exchange(buffer, 0, -1, 8) == -1
    assert buffer[0] == 8
    assert list(buffer)[1:] == [0] * 7


@pytest.mark.parametrize(
    ("format_", "low", "high"),
    [("i", -(2**31), 2**31 - 1), ("I", 0, 2**32 - 1), ("q", -(2**63), 2**63 - 1), ("Q", 0, 2**64 - 1)],
)
def test_arithmetic_wraps_and_arguments_must_fit(form, format_, low, high):
    with SharedBuffer(64, format_) as buffer:
        assert Atomics.store(buffer, 1, high) == high
        assert Atomics.add(buffer, 1, 1) == high
        assert Atomics.load(buffer, 1) == low
        assert Atomics.sub(buffer, 1, 1) == low
        assert buffer[1] == high
        for wrong in (low - 1, high + 1):
            for operation in (Atomics.store, Atomics.add, Atomics.exchange):
                with pytest.raises(OverflowError):
                    operation(buffer, 1, wrong)
            with pytest.raises(OverflowError):
                Atomics.compare_exchange(buffer, 1, wrong, 0)
        assert buffer[1] == high


def test_wrong_calls_are_refused(buffer):
    for index in (8, -1, 10**30):
        with pytest.raises(IndexError):
            Atomics.add(buffer, index, 1)
        with pytest.raises(IndexError):
            Atomics.load(buffer, index)
    with pytest.raises(TypeError):
        Atomics.store(buffer, 0, 1.5)
    with pytest.raises(TypeError):
        Atomics.add(bytearray(8), 0, 1)
    with SharedBuffer(8, "B") as plain:
        with pytest.raises(TypeError):
            Atomics.add(plain, 0, 1)
        with pytest.raises(TypeError):
            Atomics.notify(plain, 0)


def test_no_addition_of_any_thread_is_lost(buffer):
    def work():
        for _ in range(2000):
            Atomics.add(buffer, 3, 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert buffer[3] == 8000


def test_no_addition_of_any_worker_is_lost(form, kind):
    async def main():
        buffer = SharedBuffer(8)
        workers = [Worker(targets.count_up, worker_data=(buffer, 1000), kind=kind) for _ in range(2)]
        for worker in workers:
            async for _ in worker:
                pass
        assert buffer[0] == 2000
        buffer.close()

    multiloop.run(main)


# --- waiting ----------------------------------------------------------------------------------------------------------
def test_waiting_for_another_value_returns_at_once(buffer):
    assert Atomics.wait(buffer, 0, 1, 10) == "not-equal"
    assert Atomics.notify(buffer, 0) == 0


def test_waiting_ends_with_its_timeout(buffer):
    began = time.monotonic()
    assert Atomics.wait(buffer, 0, 0, 0.05) == "timed-out"
    assert time.monotonic() - began > 0.045
    assert Atomics.wait(buffer, 0, 0, 0) == "timed-out"
    assert Atomics.notify(buffer, 0) == 0


class Waiters:
    """Threads that wait on one element, entered one after the other."""

    def __init__(self, buffer, count, index=0, value=0):
        self.buffer = buffer
        self.outcomes = []
        self.threads = []
        for number in range(count):
            thread = threading.Thread(target=self.wait, args=(number, index, value))
            thread.start()
            self.threads.append(thread)
            deadline = time.monotonic() + 5
            while self.listed() <= number:
                assert time.monotonic() < deadline
                time.sleep(0.001)

    def listed(self):
        from multiloop.worker_threads._head import STATES_WORD

        return list(self.buffer._attachment.head.words[STATES_WORD : STATES_WORD + 256]).count(2) + len(self.outcomes)

    def wait(self, number, index, value):
        self.outcomes.append((number, Atomics.wait(self.buffer, index, value, 10)))

    def join(self):
        for thread in self.threads:
            thread.join()


def test_notify_wakes_whom_it_counts_the_longest_waiting_first(buffer):
    waiters = Waiters(buffer, 3)
    assert Atomics.notify(buffer, 1) == 0
    assert Atomics.notify(buffer, 0, 0) == 0
    assert Atomics.notify(buffer, 0, 1) == 1
    waiters.threads[0].join(5)
    assert waiters.outcomes == [(0, "ok")]
    assert Atomics.notify(buffer, 0) == 2
    waiters.join()
    assert Atomics.notify(buffer, 0) == 0


@pytest.mark.parametrize("format_", ["i", "I", "q", "Q"])
def test_every_integer_format_can_be_waited_on(form, format_):
    with SharedBuffer(64, format_) as buffer:
        high = 2 ** (8 * buffer.view.itemsize - 2)  # in the upper half of a wide element
        buffer[2] = high
        waiters = Waiters(buffer, 1, index=2, value=high)
        assert Atomics.notify(buffer, 2) == 1
        waiters.join()
        assert waiters.outcomes == [(0, "ok")]


def test_no_notification_is_lost_in_a_ping_pong(buffer):
    rounds = 300

    def answer():
        for number in range(rounds):
            while Atomics.load(buffer, 0) != 2 * number + 1:
                Atomics.wait(buffer, 0, 2 * number, 10)
            Atomics.store(buffer, 0, 2 * number + 2)
            Atomics.notify(buffer, 0)

    thread = threading.Thread(target=answer)
    thread.start()
    for number in range(rounds):
        Atomics.store(buffer, 0, 2 * number + 1)
        Atomics.notify(buffer, 0)
        while Atomics.load(buffer, 0) != 2 * number + 2:
            assert Atomics.wait(buffer, 0, 2 * number + 1, 10) != "timed-out"
    thread.join()


def test_a_worker_is_woken(form, kind):
    async def main():
        buffer = SharedBuffer(8)
        worker = Worker(targets.wait_for, worker_data=(buffer, 0), kind=kind)
        messages = aiter(worker)
        assert await anext(messages) == "waiting"
        await until(lambda: Atomics.notify(buffer, 0))
        assert await anext(messages) == "ok"
        await worker.terminate()
        buffer.close()

    multiloop.run(main)


def test_a_buffer_cannot_be_closed_under_a_waiter(buffer):
    waiters = Waiters(buffer, 1)
    with pytest.raises(BufferError):
        buffer.close()
    Atomics.notify(buffer, 0)
    waiters.join()


# --- wait_async -------------------------------------------------------------------------------------------------------
def test_wait_async_keeps_the_program_until_it_is_notified(buffer):
    seen = []

    async def main():
        Atomics.wait_async(buffer, 0, 0, callback=lambda error, outcome: seen.append((error, outcome)))
        await until(lambda: Atomics.notify(buffer, 0))

    multiloop.run(main)
    assert seen == [(None, "ok")]


def test_wait_async_gives_the_same_outcomes(buffer):
    async def main():
        assert await Atomics.wait_async(buffer, 0, 1) == "not-equal"
        assert await Atomics.wait_async(buffer, 0, 0, 0.02) == "timed-out"
        waiting = Atomics.wait_async(buffer, 0, 0)
        await until(lambda: Atomics.notify(buffer, 0))
        assert await waiting == "ok"

    multiloop.run(main)


def test_a_cancelled_wait_async_leaves_the_list(buffer):
    async def main():
        waiting = Atomics.wait_async(buffer, 0, 0)
        await until(lambda: buffer._attachment.head.words[18])
        waiting.cancel()
        await until(lambda: not buffer._attachment.head.words[18])
        with pytest.raises(asyncio.CancelledError):
            await waiting

    multiloop.run(main)


# --- peers that die ---------------------------------------------------------------------------------------------------
async def wait_until_forsaken(buffer):
    with pytest.raises(PeerDied, match="nobody will notify"):
        await Atomics.wait_async(buffer, 0, 0, 30)


def test_a_waiter_learns_that_its_peer_was_killed(form):
    async def main():
        buffer = SharedBuffer(8)
        worker = Worker(targets.hold_buffer, worker_data=buffer, kind="process")
        async for message in worker:
            assert message == "holding"
            break
        waiting = asyncio.ensure_future(wait_until_forsaken(buffer))
        await asyncio.sleep(0)
        os.kill(worker.pid, signal.SIGKILL)
        worker.on("error", lambda error: None)
        await waiting
        buffer.close()

    multiloop.run(main)


def test_a_waiter_learns_of_a_worker_that_was_terminated(form, isolated):
    async def main():
        buffer = SharedBuffer(8)
        worker = Worker(targets.hold_buffer, worker_data=buffer, kind=isolated)
        async for _ in worker:
            break
        await worker.terminate()
        await wait_until_forsaken(buffer)
        buffer.close()

    multiloop.run(main)


def test_a_worker_killed_before_it_opened_the_buffer_is_a_dead_peer_too():
    async def main():
        buffer = SharedBuffer(8)
        worker = Worker(targets.hold_buffer, worker_data=buffer, kind="process")
        os.kill(worker.pid, signal.SIGKILL)
        worker.on("error", lambda error: None)
        await wait_until_forsaken(buffer)
        buffer.close()

    multiloop.run(main)


def test_a_buffer_that_nobody_else_ever_had_waits_on(buffer):
    assert Atomics.wait(buffer, 0, 0, 0.8) == "timed-out"


def test_a_peer_that_closed_it_is_no_dead_one(buffer):
    from multiloop.worker_threads._shared import Attachment

    second = Attachment(os.dup(buffer._attachment.fd), buffer._attachment.identity)
    second.end()
    assert Atomics.wait(buffer, 0, 0, 0.8) == "timed-out"


def test_a_waiter_that_was_killed_is_passed_over(form):
    """Its entry stays in the list for a while: notify must neither count it nor wake it in the place of a living one."""
    code = (
        "import sys, os\n"
        "from multiloop.worker_threads._shared import SharedBuffer\n"
        "from multiloop.worker_threads._head import read_identity\n"
        "from multiloop.worker_threads import Atomics\n"
        "fd = int(sys.argv[1])\n"
        "buffer = SharedBuffer._open(fd, read_identity(fd))\n"
        "print('open', flush=True)\n"
        "Atomics.wait(buffer, 0, 0)\n"
    )
    with SharedBuffer(8) as buffer:
        fd = os.dup(buffer._attachment.fd)
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(fd)], pass_fds=[fd], env=environment(), stdout=subprocess.PIPE
        )
        os.close(fd)
        assert child.stdout.readline() == b"open\n"
        deadline = time.monotonic() + 10
        while not buffer._attachment.head.words[18]:
            assert time.monotonic() < deadline
        child.kill()
        child.wait()
        child.stdout.close()
        time.sleep(2.1)  # the time after which a waiter without a beat is taken for dead
        assert Atomics.notify(buffer, 0) == 0
        assert buffer._attachment.head.words[18] == 0
