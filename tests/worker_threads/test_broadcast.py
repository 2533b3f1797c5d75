"""BroadcastChannel: every other channel of the name in the tree, never the sender."""

import asyncio

import pytest
from tests.support import until
from tests.worker_threads import targets

import multiloop
from multiloop import events
from multiloop.errors import ClosedError, NotSendable, TransferError
from multiloop.worker_threads import (
    BroadcastChannel,
    MessageChannel,
    SharedBuffer,
    Worker,
    receive_message_on_port,
)


def test_it_reaches_all_others_of_the_name_but_not_the_sender():
    log = []

    async def main():
        channels = [BroadcastChannel(name) for name in ("a", "a", "a", "b")]
        for number, channel in enumerate(channels):
            channel.on("message", lambda value, number=number: log.append((number, value)))
        channels[0].post_message("x")
        channels[0].post_message("y")
        await until(lambda: len(log) == 4)
        await asyncio.sleep(0.01)
        for channel in channels:
            channel.close()

    multiloop.run(main)
    assert sorted(log) == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]


def test_an_open_channel_keeps_the_program_until_it_is_closed():
    seen = []

    def main():
        first, second = BroadcastChannel("a"), BroadcastChannel("a")
        second.on("message", lambda value: (seen.append(value), first.close(), second.close()))
        second.on("close", lambda: seen.append("closed"))
        first.post_message("value")

    multiloop.run(main)
    assert seen == ["value", "closed"]


def test_an_unreferenced_channel_does_not():
    multiloop.run(lambda: BroadcastChannel("a").unref() and None)


def test_a_closed_channel_says_so_and_hears_nothing():
    async def main():
        first, second = BroadcastChannel("a"), BroadcastChannel("a")
        second.on("message", lambda value: pytest.fail("heard"))
        second.close()
        second.close()
        first.post_message("x")
        first.close()
        with pytest.raises(ClosedError, match="'a' is closed"):
            first.post_message("y")
        await asyncio.sleep(0.01)

    multiloop.run(main)


def test_names_become_strings():
    async def main():
        first, second = BroadcastChannel(5), BroadcastChannel("5")
        assert first.name == "5"
        first.post_message("x")
        assert await events.once(second, "message") == ["x"]
        first.close()
        second.close()

    multiloop.run(main)


def test_it_can_be_iterated_over_and_read_at_once():
    async def main():
        first, second = BroadcastChannel("a"), BroadcastChannel("a")
        first.post_message("now")
        assert receive_message_on_port(second).message == "now"
        assert receive_message_on_port(second) is None
        messages = aiter(second)
        first.post_message("later")
        assert await anext(messages) == "later"
        second.close()
        assert [value async for value in messages] == []
        first.close()

    multiloop.run(main)


def test_large_values_are_copied_once_for_all_and_nobody_sees_what_another_writes():
    numpy = pytest.importorskip("numpy")

    async def main():
        channels = [BroadcastChannel("a") for _ in range(3)]
        waiting = [events.once(channel, "message") for channel in channels[1:]]
        channels[0].post_message(numpy.zeros(100_000))
        (first,), (second,) = [await op for op in waiting]
        first[:] = 1
        assert second.sum() == 0
        for channel in channels:
            channel.close()

    multiloop.run(main)


def test_what_cannot_be_broadcast_is_refused():
    async def main():
        channel = BroadcastChannel("a")
        with pytest.raises(NotSendable):
            channel.post_message(lambda: None)
        port, other = MessageChannel()
        with pytest.raises(TransferError):
            channel.post_message(port)
        for each in (channel, port, other):
            each.close()

    multiloop.run(main)


def test_it_reaches_workers_and_comes_back(kind):
    async def main():
        channel = BroadcastChannel("tree")
        heard = []
        channel.on("message", heard.append)
        workers = [Worker(targets.broadcast_echo, worker_data="tree", kind=kind) for _ in range(3)]
        for worker in workers:
            async for message in worker:
                assert message == "listening"
                break
        channel.post_message("hello")
        await until(lambda: len([value for value in heard if value[1] == "hello"]) == 3)
        assert sorted(value for value in heard if value[1] == "hello") == [(w.thread_id, "hello") for w in workers]
        channel.close()
        for worker in workers:
            await worker.wait()

    multiloop.run(main)


def test_a_worker_without_a_loop_can_broadcast(kind):
    async def main():
        channel = BroadcastChannel("news")
        worker = Worker(targets.broadcast_once, worker_data=("news", {"a": 1}), kind=kind)
        assert await events.once(channel, "message") == [{"a": 1}]
        channel.close()
        await worker.wait()

    multiloop.run(main)


def test_it_reaches_the_workers_of_workers_and_siblings(kind):
    async def main():
        channel = BroadcastChannel("tree")
        heard = []
        channel.on("message", heard.append)
        deep = Worker(targets.nest, worker_data=("broadcast_echo", "tree"), kind=kind)
        ((nested_id, word),) = [message async for message in _first(deep)]
        assert word == "listening"
        sibling = Worker(targets.broadcast_once, worker_data=("tree", "from the sibling"), kind=kind)
        await until(lambda: (nested_id, "from the sibling") in heard)
        assert "from the sibling" in heard
        await deep.wait()
        await sibling.wait()
        channel.close()

    async def _first(worker):
        async for message in worker:
            yield message
            return

    multiloop.run(main)


def test_a_shared_buffer_can_be_broadcast(kind):
    async def main():
        channel = BroadcastChannel("buffers")
        buffer = SharedBuffer(16)
        worker = Worker(targets.write_what_is_broadcast, worker_data="buffers", kind=kind)
        async for _ in worker:
            break
        channel.post_message(buffer)
        await worker.wait()
        assert buffer[0] == 99
        buffer.close()
        channel.close()

    multiloop.run(main)
