"""Channels: order, snapshots, backpressure, large messages, bad values, dead peers. On both loops, across processes."""

import asyncio
import hashlib
import os
import resource
import socket
import time

import pytest
from tests.support import LOOPS, descriptors_left, open_descriptors, start_python, until

import multiloop
from multiloop.errors import FrameError, FrameTooLarge, NotSendable
from multiloop.ipc import Channel, ChannelEnds, pair

PEER = """
import os, resource, sys
import multiloop
from multiloop.ipc import Channel, ChannelEnds

def on_message(value, descriptors):
    if value == "die":
        os.kill(os.getpid(), 9)
    elif value == "parting words":
        for index in range(1000):
            channel.send(index)
        channel.send(bytes(3_000_000))
        channel.close()
    elif value == "rss":
        channel.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    elif value == "deaf":
        channel.pause_reading()
    elif isinstance(value, (bytes, bytearray)) and len(value) > 100_000_000:
        import hashlib
        channel.send(hashlib.blake2b(value).hexdigest())
    else:
        channel.send(value, descriptors=descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

async def main():
    global channel
    channel = Channel(ChannelEnds.from_fds(int(sys.argv[1]), int(sys.argv[2])), on_message, lambda: None,
                      max_message_bytes=1 << 34)

multiloop.run(main, loop=sys.argv[3])
"""


class Inbox:
    """Keeps what a channel delivered."""

    def __init__(self):
        self.messages, self.errors, self.closed = [], [], 0

    def message(self, value, descriptors):
        self.messages.append((value, descriptors) if descriptors else value)

    def close(self):
        self.closed += 1

    def channel(self, ends, **options):
        return Channel(ends, self.message, self.close, on_error=self.errors.append, **options)


def with_two_ends(test, loop="uvloop", **options):
    """Run `test(left, right, left_inbox, right_inbox)` with both ends in this process; nothing may be left behind."""
    before = open_descriptors()

    async def main():
        ends, other_ends = pair()
        left_inbox, right_inbox = Inbox(), Inbox()
        left, right = left_inbox.channel(ends, **options), right_inbox.channel(other_ends, **options)
        await test(left, right, left_inbox, right_inbox)
        left.close()
        right.abort()
        await until(lambda: left.closed and right.closed)
        assert (left_inbox.closed, right_inbox.closed) == (1, 1)

    multiloop.run(main, loop=loop)
    assert not descriptors_left(before)


def with_a_child(test, loop="uvloop", **options):
    """Run `test(channel, inbox, child)` with the other end in a child that sends everything back."""
    before = open_descriptors()

    async def main():
        ends, child_ends = pair()
        child = start_python(PEER, *map(str, child_ends.pass_fds()), loop, pass_fds=child_ends.pass_fds())
        child_ends.close()
        inbox = Inbox()
        channel = inbox.channel(ends, **options)
        try:
            await test(channel, inbox, child)
            channel.close()
            await until(lambda: channel.closed)
            child.wait(10)
        finally:
            child.kill()
            child.wait(10)

    multiloop.run(main, loop=loop)
    assert not descriptors_left(before)


@pytest.mark.parametrize("loop", LOOPS)
def test_messages_arrive_once_and_in_order(loop):
    async def test(left, right, left_inbox, right_inbox):
        values = [index if index % 7 else os.urandom(index * 40) for index in range(3000)]
        for value in values:
            left.send(value)
            right.send(value)
        await until(lambda: len(left_inbox.messages) == len(right_inbox.messages) == 3000)
        assert left_inbox.messages == right_inbox.messages == values

    with_two_ends(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_child_sends_back_what_it_got(loop):
    async def test(channel, inbox, child):
        values = [1, "two", {"three": [4]}, os.urandom(2_000_000), bytearray(300_000), None]
        for value in values:
            channel.send(value)
        await until(lambda: len(inbox.messages) == len(values))
        assert inbox.messages == values

    with_a_child(test, loop)


def test_a_message_is_a_snapshot():
    async def test(left, right, left_inbox, right_inbox):
        data, items = bytearray(b"a" * 5_000_000), [1, 2]
        left.send((data, items))
        data[:] = b"b" * len(data)
        data += b"longer"  # no view of it is held
        items.append(3)
        await until(lambda: right_inbox.messages)
        assert right_inbox.messages == [(bytearray(b"a" * 5_000_000), [1, 2])]

    with_two_ends(test)


@pytest.mark.parametrize("loop", LOOPS)
def test_both_sides_send_64_mib_at_once(loop):
    async def test(channel, inbox, child):
        value = os.urandom(1 << 20) * 64
        for _ in range(3):  # each comes back while the next one goes out
            channel.send(value)
        await until(lambda: len(inbox.messages) == 3, 60)
        assert all(message == value for message in inbox.messages)

    with_a_child(test, loop)


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_a_message_of_1_gib_takes_its_own_memory_and_stops_nobody(loop):
    async def test(channel, inbox, child):
        channel.send("rss")
        await until(lambda: inbox.messages)
        before = inbox.messages.pop()
        value = os.urandom(1 << 20) * 1024
        digest = hashlib.blake2b(value).hexdigest()
        own_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        late = []

        async def tick():
            while True:
                start = time.perf_counter()
                await asyncio.sleep(0.005)
                late.append(time.perf_counter() - start - 0.005)

        ticking = asyncio.create_task(tick())
        channel.send(value)
        await until(lambda: inbox.messages, 120)
        ticking.cancel()
        assert inbox.messages.pop() == digest
        assert sorted(late)[int(len(late) * 0.99)] < 0.05
        channel.send("rss")
        await until(lambda: inbox.messages)
        assert inbox.messages.pop() - before < (1 << 30) + 64 * 2**20
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - own_before < 64 * 2**20

    with_a_child(test, loop, max_message_bytes=1 << 34)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_urgent_frame_passes_a_large_message(loop):
    async def test(left, right, left_inbox, right_inbox):
        seen = []
        right.handlers[7] = lambda frame: seen.append((bytes(frame.body), len(right_inbox.messages)))
        left.send(bytes(50_000_000))
        left.send_frame(7, b"now", urgent=True)
        await until(lambda: right_inbox.messages)
        assert seen == [(b"now", 0)]

    with_two_ends(test, loop)


def test_send_says_when_to_wait_and_drain_waits():
    async def test(left, right, left_inbox, right_inbox):
        right.pause_reading()
        sent = 1
        while left.send(bytes(10_000)):
            sent += 1
        assert left.buffered_bytes >= left.high_water_bytes
        draining = asyncio.ensure_future(left.drain())
        await asyncio.sleep(0.05)
        assert not draining.done()
        assert right_inbox.messages == []
        right.resume_reading()
        assert await draining
        await until(lambda: len(right_inbox.messages) == sent)

    with_two_ends(test)


@pytest.mark.slow
def test_a_million_messages_to_a_slow_process_cost_no_memory_and_lose_none():
    async def test(channel, inbox, child):
        got = 0

        def count(value, descriptors):
            nonlocal got
            assert value[0] == got
            got += 1

        channel._on_message = count
        channel.send((0, b""))
        await until(lambda: got == 1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for index in range(1, 1_000_000):
            if not channel.send((index, b"x" * 1000)):
                assert await channel.drain()
        await until(lambda: got == 1_000_000, 60)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024

    with_a_child(test)


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_both_sides_send_64_mib_at_once_a_hundred_times(loop):
    async def test(channel, inbox, child):
        value = os.urandom(1 << 20) * 64
        for round_ in range(50):
            channel.send(value)
            channel.send(value)  # while the first one comes back
            await until(lambda wanted=2 * round_ + 2: len(inbox.messages) == wanted, 60)
            assert inbox.messages[-1] == value
            inbox.messages[:] = [None] * len(inbox.messages)

    with_a_child(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_flood_to_a_slow_reader_stays_within_the_mark(loop):
    async def test(left, right, left_inbox, right_inbox):
        got = []
        right._on_message = lambda value, descriptors: got.append(value[0])
        most = 0
        for index in range(30_000):
            if not left.send((index, b"x" * 1000)):
                most = max(most, left.buffered_bytes)
                assert await left.drain()
        await until(lambda: len(got) == 30_000)
        assert got == list(range(30_000))
        assert most < left.high_water_bytes + 2000

    with_two_ends(test, loop)


def test_what_cannot_be_pickled_raises_at_the_call_and_the_channel_goes_on():
    async def test(left, right, left_inbox, right_inbox):
        with pytest.raises(NotSendable, match=r'value\["a"\]\[1\]'):
            left.send({"a": [1, lambda: 0]})
        left.send("after")
        await until(lambda: right_inbox.messages)
        assert right_inbox.messages == ["after"]

    with_two_ends(test)


class Explodes:
    def __reduce__(self):
        return int, ("no number",)


def test_a_failure_while_unpickling_is_reported_and_the_channel_goes_on():
    async def test(left, right, left_inbox, right_inbox):
        left.send("before")
        left.send(Explodes())
        left.send("after")
        await until(lambda: len(right_inbox.messages) == 2)
        assert right_inbox.messages == ["before", "after"]
        [error] = right_inbox.errors
        assert isinstance(error, ValueError)

    with_two_ends(test)


def test_an_exception_in_a_listener_loses_no_message():
    errors, got = [], []

    async def main():
        ends, other_ends = pair()

        def listener(value, descriptors):
            got.append(value)
            raise KeyError(value)

        left, right = Inbox().channel(ends), Channel(other_ends, listener, lambda: None)
        for index in range(3):
            left.send(index)
        await until(lambda: len(got) == 3)
        left.abort()
        right.abort()

    multiloop.on_uncaught(errors.append)
    try:
        multiloop.run(main)
    finally:
        multiloop.on_uncaught(None)
    assert [error.args[0] for error in errors] == [0, 1, 2]


def test_an_async_listener_is_awaited():
    got = []

    async def main():
        ends, other_ends = pair()

        async def listener(value, descriptors):
            await asyncio.sleep(0.01)
            got.append(value)

        left, right = Inbox().channel(ends), Channel(other_ends, listener, lambda: None)
        left.send(1)
        left.close()
        await until(lambda: right.closed)

    multiloop.run(main)
    assert got == [1]


def test_a_message_over_the_limit_is_refused_where_it_is_sent():
    async def test(left, right, left_inbox, right_inbox):
        for value in (bytes(200_000), bytearray(200_000), [b"x" * 50_000] * 3 + ["y" * 90_000]):
            with pytest.raises(FrameTooLarge):
                left.send(value)
        left.send("after")
        await until(lambda: right_inbox.messages)

    with_two_ends(test, max_message_bytes=100_000)


def test_a_message_over_the_receivers_limit_closes_the_channel_with_the_reason():
    async def main():
        ends, other_ends = pair()
        inbox = Inbox()
        left, right = Inbox().channel(ends), inbox.channel(other_ends, max_message_bytes=1000)
        left.send("fits")
        left.send(b"x" * 2000)
        await until(lambda: left.closed and right.closed)
        assert inbox.messages == ["fits"]
        assert isinstance(right.error, FrameTooLarge)
        assert inbox.errors == [right.error]

    multiloop.run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_foreign_bytes_close_the_channel_with_the_reason(loop):
    async def main():
        ends, other_ends = pair()
        inbox = Inbox()
        channel = inbox.channel(ends)
        other_ends.stream.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await until(lambda: channel.closed)
        assert isinstance(channel.error, FrameError)
        assert inbox.closed == 1
        other_ends.close()

    multiloop.run(main, loop=loop)


def test_a_raw_kind_without_a_handler_is_an_error_and_the_channel_goes_on():
    async def test(left, right, left_inbox, right_inbox):
        left.send_frame(99, b"?")
        left.send("after")
        await until(lambda: right_inbox.messages)
        assert isinstance(right_inbox.errors[0], FrameError)
        assert "99" in str(right_inbox.errors[0])

    with_two_ends(test)


@pytest.mark.parametrize("loop", LOOPS)
def test_sending_to_a_killed_peer_returns_false_and_never_raises(loop):
    async def test(channel, inbox, child):
        channel.send("die")
        while not channel.closed:
            channel.send(bytes(10_000))
            await asyncio.sleep(0)
        assert channel.send("still there?") is False
        assert channel.send_frame(1, b"") is False
        assert await channel.drain() is False
        assert inbox.closed == 1

    with_a_child(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_what_a_peer_sent_before_it_left_is_delivered_although_writing_to_it_fails(loop):
    async def test(channel, inbox, child):
        channel.send("parting words")
        while not channel.closed:
            channel.send(bytes(50_000))  # nobody reads these: our writes fail before all is read
            await asyncio.sleep(0)
        expected = [*range(1000), bytes(3_000_000)]
        assert [message for message in inbox.messages if message != bytes(50_000)] == expected

    with_a_child(test, loop)


def test_finish_delivers_what_is_there_although_a_copy_of_the_peers_end_is_open():
    async def main():
        ends, other_ends = pair()
        stream, descriptors = (os.dup(fd) for fd in other_ends.pass_fds())
        inbox = Inbox()
        left, right = inbox.channel(ends), Inbox().channel(other_ends)
        for index in range(100):
            right.send(index)
        right.close()
        await until(lambda: right.closed)
        assert not left.closed  # the copies hide the end
        left.finish()
        await until(lambda: left.closed)
        assert inbox.messages == list(range(100))
        assert inbox.closed == 1
        os.close(stream)
        os.close(descriptors)

    multiloop.run(main)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("size", [10, 30_000_000])
def test_close_flushes_before_it_closes(loop, size):
    async def main():
        ends, other_ends = pair()
        inbox = Inbox()
        left, right = Inbox().channel(ends), inbox.channel(other_ends)
        left.send(b"x" * size)
        left.close()
        left.close()
        assert left.send("too late") is False
        await until(lambda: left.closed and right.closed)
        assert inbox.messages == [b"x" * size]

    multiloop.run(main, loop=loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_two_ends_that_close_with_much_to_send_do_not_wait_for_each_other(loop):
    async def main():
        ends, other_ends = pair()
        left, right = Inbox().channel(ends), Inbox().channel(other_ends)
        for channel in (left, right):
            channel.send(b"x" * 20_000_000)
            channel.close()
        await until(lambda: left.closed and right.closed)

    multiloop.run(main, loop=loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_what_was_sent_leaves_before_the_program_ends_although_unrefd(loop):
    child = """
import sys
import multiloop
from multiloop.ipc import Channel, ChannelEnds

async def main():
    channel = Channel(ChannelEnds.from_fds(int(sys.argv[1]), int(sys.argv[2])), print, lambda: None)
    channel.unref()
    for size in (10, 5_000_000, 20):
        channel.send(bytes(size))

multiloop.run(main, loop=sys.argv[3])
"""

    async def main():
        ends, child_ends = pair()
        started = start_python(child, *map(str, child_ends.pass_fds()), loop, pass_fds=child_ends.pass_fds())
        child_ends.close()
        inbox = Inbox()
        channel = inbox.channel(ends)
        await until(lambda: channel.closed)
        assert [len(message) for message in inbox.messages] == [10, 5_000_000, 20]
        assert started.wait(10) == 0

    multiloop.run(main, loop=loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_pausing_and_resuming_at_any_time_loses_nothing(loop):
    async def test(left, right, left_inbox, right_inbox):
        right.pause_reading()
        right.resume_reading()
        await asyncio.sleep(0)
        right.resume_reading()
        right.pause_reading()
        right.pause_reading()
        right.resume_reading()
        for index in range(100):
            left.send(index)
            if index % 10 == 0:
                right.pause_reading()
                await asyncio.sleep(0)
                right.resume_reading()
        await until(lambda: len(right_inbox.messages) == 100)
        assert right_inbox.messages == list(range(100))

    with_two_ends(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_abort_at_once_leaves_nothing(loop):
    before = open_descriptors()

    async def main():
        ends, other_ends = pair()
        left, right = Inbox().channel(ends), Inbox().channel(other_ends)
        left.send(b"x" * 1_000_000)
        left.abort()
        await until(lambda: left.closed and right.closed)

    multiloop.run(main, loop=loop)
    assert not descriptors_left(before)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_program_that_ends_closes_its_channels(loop):
    before = open_descriptors()

    async def main():
        ends, other_ends = pair()
        Inbox().channel(ends).unref()
        Inbox().channel(other_ends).unref()

    multiloop.run(main, loop=loop)
    assert not descriptors_left(before)


def test_an_open_channel_keeps_the_program_until_it_closes():
    ended = []

    async def main():
        ends, other_ends = pair()
        left = Inbox().channel(ends)
        Channel(other_ends, lambda value, descriptors: ended.append(value), lambda: ended.append("closed"))
        left.send("one")
        multiloop.timers.set_timeout(left.close, 0.02)

    multiloop.run(main)
    assert ended == ["one", "closed"]


def test_ends_are_not_inherited_unless_passed():
    ends, other_ends = pair()
    assert not any(end.get_inheritable() for end in (*ends, *other_ends))
    taken = ChannelEnds.from_fds(*(os.dup(fd) for fd in ends.pass_fds()))
    assert taken.stream.family == socket.AF_UNIX
    assert not any(end.get_inheritable() for end in taken)
    for each in (ends, other_ends, taken):
        each.close()
