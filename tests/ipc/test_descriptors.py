"""Descriptors arrive with their message, or are missed and sent again, or are given up: never lost in silence."""

import asyncio
import os
import resource

import pytest
from tests.ipc.test_channel import with_a_child, with_two_ends
from tests.support import LOOPS, until

import multiloop
from multiloop._limits import DESCRIPTOR_ATTEMPTS


def a_file(text):
    """A descriptor to an unlinked file with this text."""
    descriptor = os.memfd_create("test")
    os.write(descriptor, text.encode())
    return descriptor


def text_of(descriptor):
    try:
        return os.pread(descriptor, 1000, 0).decode()
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("loop", LOOPS)
def test_descriptors_go_to_a_child_and_back_in_order_with_other_messages(loop):
    async def test(channel, inbox, child):
        for index in range(200):
            if index % 3:
                channel.send(index)
            else:
                files = [a_file(f"{index}/{part}") for part in range(index % 4 + 1)]
                channel.send(index, descriptors=files)
                for file in files:
                    os.close(file)  # at once: the channel keeps its own until they have arrived
        await until(lambda: len(inbox.messages) == 200)
        for index, message in enumerate(inbox.messages):
            if index % 3:
                assert message == index
            else:
                assert message[0] == index
                assert [text_of(fd) for fd in message[1]] == [f"{index}/{part}" for part in range(index % 4 + 1)]

    with_a_child(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_both_sides_give_many_descriptors_at_once(loop):
    async def test(left, right, left_inbox, right_inbox):
        counts = {"l": 0, "r": 0}

        def count(value, descriptors):
            counts[value] += 1
            for descriptor in descriptors:
                os.close(descriptor)

        left._on_message = right._on_message = count
        file = a_file("shared")
        for _ in range(1000):
            if not left.send("l", descriptors=[file]) | right.send("r", descriptors=[file, file]):
                assert await left.drain()
                assert await right.drain()
        os.close(file)
        await until(lambda: counts == {"l": 1000, "r": 1000})
        assert await left.acknowledged()
        assert await right.acknowledged()

    with_two_ends(test, loop)


def test_a_raw_frame_gets_real_descriptors_and_an_owned_one_is_closed_by_the_channel():
    async def test(left, right, left_inbox, right_inbox):
        frames = []
        right.handlers[5] = frames.append
        file = a_file("owned")
        left.send_frame(5, b"body", descriptors=[file], own=True)
        await until(lambda: frames)
        assert text_of(frames[0].descriptors[0]) == "owned"
        assert await left.acknowledged()
        with pytest.raises(OSError):
            os.fstat(file)
        left.close()
        file = a_file("owned")
        assert left.send_frame(5, b"", descriptors=[file], own=True) is False
        with pytest.raises(OSError):
            os.fstat(file)

    with_two_ends(test)


def test_a_closed_descriptor_raises_at_the_call():
    async def test(left, right, left_inbox, right_inbox):
        file = a_file("x")
        os.close(file)
        with pytest.raises(OSError):
            left.send("x", descriptors=[file])
        left.send("after")
        await until(lambda: right_inbox.messages == ["after"])

    with_two_ends(test)


def at_the_limit_of_open_files():
    """Take every free descriptor number; returns how to give them back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("loop", LOOPS)
def test_a_descriptor_that_found_no_room_is_sent_again(loop):
    async def test(left, right, left_inbox, right_inbox):
        file = a_file("persistent")
        left.send("with", descriptors=[file])
        left.send("behind")
        os.close(file)
        give_back = at_the_limit_of_open_files()
        multiloop.timers.set_timeout(give_back, 0.03)
        await until(lambda: len(right_inbox.messages) == 2)
        assert await left.acknowledged()
        assert text_of(right_inbox.messages[0][1][0]) == "persistent"
        assert right_inbox.messages[1] == "behind"

    with_two_ends(test, loop)


def test_a_descriptor_that_never_finds_room_is_given_up_and_the_messages_go_on():
    async def test(left, right, left_inbox, right_inbox):
        file = a_file("unlucky")
        left.send("with", descriptors=[file])
        left.send("behind")
        os.close(file)
        give_back = at_the_limit_of_open_files()
        try:
            await until(lambda: len(right_inbox.messages) == 2)
        finally:
            give_back()
        assert right_inbox.messages == [("with", (-1,)), "behind"]
        assert await left.acknowledged()
        assert DESCRIPTOR_ATTEMPTS == 4

    with_two_ends(test)


@pytest.mark.parametrize("loop", LOOPS)
def test_descriptors_in_flight_to_a_killed_peer_are_closed(loop):
    async def test(channel, inbox, child):
        file = a_file("x")
        channel.send("die")
        while not channel.closed:
            channel.send("x", descriptors=[file] * 20)
            for message in inbox.messages:
                for descriptor in message[1]:
                    os.close(descriptor)
            inbox.messages.clear()
            await channel.drain()
        os.close(file)
        assert await channel.acknowledged() is False
        for message in inbox.messages:
            for descriptor in message[1]:
                os.close(descriptor)

    with_a_child(test, loop)


def test_a_message_whose_descriptors_died_with_the_peer_is_delivered_without_them():
    async def test(left, right, left_inbox, right_inbox):
        right._descriptors._writing = True  # never flushed: as if it were killed between the two sockets
        file = a_file("never sent")
        right.send("with", descriptors=[file])
        right.send("behind")
        os.close(file)
        await asyncio.sleep(0.02)
        right.abort()
        await until(lambda: left.closed)
        assert left_inbox.messages == [("with", (-1,)), "behind"]

    with_two_ends(test)
