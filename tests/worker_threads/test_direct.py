"""`post_message_to_thread`: any worker reaches any other by its id."""

import os
import signal

import pytest
from tests.worker_threads import targets

import multiloop
from multiloop import worker_threads as wt
from multiloop.errors import NotDelivered, NotSendable, UsageError
from multiloop.worker_threads import MessageChannel, SharedBuffer, Worker


def test_a_worker_is_reached_by_its_id_and_the_sender_hears_that_it_was_handled(kind):
    async def main():
        worker = Worker(targets.heed, kind=kind)
        messages = aiter(worker)
        assert await anext(messages) == worker.thread_id
        await wt.post_message_to_thread(worker.thread_id, {"a": [1]})
        assert await anext(messages) == ({"a": [1]}, 0)
        buffer = SharedBuffer(8)
        await wt.post_message_to_thread(worker.thread_id, buffer)
        same, source = await anext(messages)
        assert same is buffer
        assert source == 0
        await wt.post_message_to_thread(worker.thread_id, "end", timeout=30)
        assert await worker.wait() == 0

    multiloop.run(main)


def test_workers_reach_each_other_their_grandchildren_and_the_main_program(isolated):
    async def main():
        heard = []

        def hear(value, source):
            heard.append((value, source))

        wt.on("worker_message", hear)
        outer = Worker(targets.nest_and_heed, worker_data="process", kind=isolated)
        messages = aiter(outer)
        nested = await anext(messages)
        assert nested > 1_000_000
        await wt.post_message_to_thread(nested, "down")
        assert await anext(messages) == ("down", 0)
        for target, value in ((nested, "across"), (0, "up")):
            sender = Worker(targets.send_by_id, worker_data=(target, value), kind=isolated)
            assert [each async for each in sender] == ["handled"]
            found = await anext(messages) if target else heard.pop()
            assert found == (value, sender.thread_id)
        wt.off("worker_message", hear)
        await outer.terminate()

    multiloop.run(main)


def test_what_cannot_be_delivered_fails_and_says_why():
    async def main():
        worker = Worker(targets.heed, kind="process")
        deaf = Worker(targets.stay, kind="process")
        await anext(aiter(worker))
        await anext(aiter(deaf))
        port1, port2 = MessageChannel()
        with pytest.raises(NotDelivered, match="no worker 99"):
            await wt.post_message_to_thread(99, port2, [port2])
        assert port1.post_message("still open")
        with pytest.raises(NotDelivered, match="no worker 900000000003"):
            await wt.post_message_to_thread(900_000_000_003, 1)
        with pytest.raises(NotDelivered, match="no 'worker_message' listener"):
            await wt.post_message_to_thread(deaf.thread_id, 1)
        with pytest.raises(NotDelivered, match="raised KeyError: 'on purpose'") as caught:
            await wt.post_message_to_thread(worker.thread_id, "raise")
        assert caught.value.has_raised
        with pytest.raises(UsageError, match="this place itself"):
            wt.post_message_to_thread(0, 1)
        with pytest.raises(NotSendable):
            wt.post_message_to_thread(worker.thread_id, lambda: 1)
        with pytest.raises(UsageError, match="only event"):
            wt.on("message", print)
        sender = Worker(targets.send_by_id, worker_data=(77, 1), kind="process")
        assert [each async for each in sender] == ["NotDelivered: there is no worker 77"]
        sender = Worker(targets.send_by_id, worker_data=(0, 1), kind="process")
        assert [each async for each in sender] == ["NotDelivered: worker 0 has no 'worker_message' listener"]
        port1.close()
        port2.close()
        await worker.terminate()
        await deaf.terminate()

    multiloop.run(main)


def test_a_message_whose_worker_hangs_or_dies_does_not_hang_its_sender():
    async def main():
        worker = Worker(targets.heed, kind="process")
        worker.on("error", lambda error: None)
        await anext(aiter(worker))
        with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
            await wt.post_message_to_thread(worker.thread_id, "hang", timeout=0.05)
        waiting = wt.post_message_to_thread(worker.thread_id, "never seen")
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(NotDelivered, match="ended before"):
            await waiting
        await worker.wait()

    multiloop.run(main)


def test_once_listens_to_one_message():
    async def main():
        heard = []
        wt.once("worker_message", lambda value, source: heard.append(value))
        for outcome in ("handled", "NotDelivered: worker 0 has no 'worker_message' listener"):
            sender = Worker(targets.send_by_id, worker_data=(0, "x"), kind="process")
            assert [each async for each in sender] == [outcome]
        assert heard == ["x"]

    multiloop.run(main)
