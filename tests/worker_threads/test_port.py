"""MessagePort and MessageChannel: order, starting, closing, backpressure, moving, errors."""

import asyncio
import gc

import pytest
from tests.support import LOOPS, descriptors_left, open_descriptors, until
from tests.worker_threads import targets

import multiloop
from multiloop import events, timers
from multiloop.errors import ClosedError, NotSendable, TransferError, UsageError
from multiloop.worker_threads import (
    MessageChannel,
    MessagePort,
    Received,
    SharedBuffer,
    Worker,
    receive_message_on_port,
)


class ExplodingThere:
    def __reduce__(self):
        return (explode, ())


def explode():
    raise RuntimeError("there")


@pytest.mark.parametrize("loop", LOOPS)
def test_messages_arrive_in_order_both_ways(loop):
    got = {1: [], 2: []}

    async def main():
        port1, port2 = MessageChannel()
        port1.on("message", got[1].append)
        port2.on("message", got[2].append)
        for number in range(500):
            assert port1.post_message(number)
            port2.post_message(-number)
        await until(lambda: len(got[1]) == len(got[2]) == 500)
        port1.close()

    multiloop.run(main, loop=loop)
    assert got == {1: [-number for number in range(500)], 2: list(range(500))}


def test_a_channel_has_two_named_ends():
    channel = MessageChannel()
    assert channel == (channel.port1, channel.port2)
    assert isinstance(channel.port1, MessagePort)
    for port in channel:
        port.close()


def test_messages_wait_until_the_port_is_started():
    async def main():
        port1, port2 = MessageChannel()
        port1.post_message("early")
        await asyncio.sleep(0.01)
        heard = events.once(port2, "message")
        port1.post_message("late")
        assert await heard == ["early"]
        assert await events.once(port2, "message") == ["late"]  # it waited while nobody listened
        port1.close()

    multiloop.run(main)


def test_a_port_with_a_listener_keeps_the_program_and_one_without_does_not():
    seen = []

    def main():
        port1, port2 = MessageChannel()
        kept.extend((port1, port2))

        def heard(value):
            seen.append(value)
            port2.off("message", heard)  # the last listener: nothing keeps the program now

        port2.on("message", heard)
        timers.set_timeout(port1.post_message, 0.02, "value").unref()

    kept = []
    multiloop.run(main)
    assert seen == ["value"]
    for port in kept:
        port.close()


def test_an_unreferenced_port_lets_the_program_end():
    def main():
        port1, _ = MessageChannel()
        port1.on("message", print).unref()

    multiloop.run(main)


# --- closing ----------------------------------------------------------------------------------------------------------
def test_what_was_posted_before_close_comes_before_the_close_at_both_ends():
    log = []

    async def main():
        port1, port2 = MessageChannel()
        port1.on("close", lambda: log.append("closed 1"))
        port2.on("close", lambda: log.append("closed 2"))
        port2.on("message", log.append)
        port1.post_message("a")
        port1.post_message("b")
        port1.close()
        port1.close()
        assert not port1.post_message("too late")
        await until(lambda: "closed 2" in log)

    multiloop.run(main)
    assert [entry for entry in log if entry != "closed 1"] == ["a", "b", "closed 2"]
    assert log.count("closed 1") == 1


def test_closing_inside_a_listener_still_delivers_what_was_read():
    log = []

    async def main():
        port1, port2 = MessageChannel()

        def heard(value):
            log.append(value)
            port2.close()

        port2.on("message", heard)
        port2.on("close", lambda: log.append("closed"))
        for number in range(3):
            port1.post_message(number)
        await until(lambda: "closed" in log)

    multiloop.run(main)
    assert log == [0, 1, 2, "closed"]


def test_a_large_backlog_is_delivered_although_the_sender_closed():
    got = []

    async def main():
        port1, port2 = MessageChannel()
        for number in range(2000):
            port1.post_message((number, "x" * 1000))
        port1.close()
        async for number, _ in port2:
            got.append(number)

    multiloop.run(main)
    assert got == list(range(2000))


def test_posting_to_an_end_that_is_gone_returns_false():
    async def main():
        port1, port2 = MessageChannel()
        port2.close()
        await until(lambda: not port1.post_message("nobody"))
        port1.close()

    multiloop.run(main)


def test_dropped_ports_leave_nothing_open():
    gc.collect()
    before = open_descriptors()
    for _ in range(20):
        MessageChannel()
    assert not descriptors_left(before)


# --- iterating and reading at once ------------------------------------------------------------------------------------
def test_iterating_ends_with_the_port():
    async def main():
        port1, port2 = MessageChannel()
        port1.post_message(1)
        timers.set_timeout(lambda: (port1.post_message(2), port1.close()), 0.01)
        assert [value async for value in port2] == [1, 2]

    multiloop.run(main)


def test_iterating_goes_on_after_a_message_that_cannot_be_unpacked():
    async def main():
        port1, port2 = MessageChannel()
        port1.post_message(ExplodingThere())
        port1.post_message("fine")
        messages = aiter(port2)
        with pytest.raises(RuntimeError, match="there"):
            await anext(messages)
        assert await anext(messages) == "fine"
        port1.close()

    multiloop.run(main)


def test_a_listener_and_an_iteration_exclude_each_other():
    async def main():
        port1, port2 = MessageChannel()
        port2.on("message", print)
        with pytest.raises(UsageError, match="listener"):
            aiter(port2)
        port1.close()

    multiloop.run(main)


def test_receiving_at_once_needs_no_loop():
    port1, port2 = MessageChannel()
    assert receive_message_on_port(port2) is None
    port1.post_message(None)
    port1.post_message({"b": bytes(100_000)})
    assert receive_message_on_port(port2) == Received(None)
    assert receive_message_on_port(port2).message == {"b": bytes(100_000)}
    assert receive_message_on_port(port2) is None
    with pytest.raises(TypeError, match="MessagePort"):
        receive_message_on_port("port")
    port1.close()
    port2.close()


# --- errors -----------------------------------------------------------------------------------------------------------
def test_a_message_that_cannot_be_unpacked_is_a_messageerror_and_the_port_goes_on():
    log = []

    async def main():
        port1, port2 = MessageChannel()
        port2.on("messageerror", lambda error: log.append(repr(error)))
        port2.on("message", log.append)
        port1.post_message(ExplodingThere())
        port1.post_message("fine")
        await until(lambda: len(log) == 2)
        port1.close()

    multiloop.run(main)
    assert log == ["RuntimeError('there')", "fine"]


def test_without_a_listener_for_it_the_error_ends_the_program():
    async def main():
        port1, port2 = MessageChannel()
        port2.on("message", print)
        port1.post_message(ExplodingThere())
        port1.close()
        await asyncio.sleep(5)

    with pytest.raises(RuntimeError, match="there"):
        multiloop.run(main)


def test_what_cannot_be_pickled_raises_where_it_is_posted_and_the_port_goes_on():
    async def main():
        port1, port2 = MessageChannel()
        with pytest.raises(NotSendable, match=r'value\["f"\]'):
            port1.post_message({"f": lambda: None})
        port1.post_message("fine")
        assert await events.once(port2, "message") == ["fine"]
        port1.close()

    multiloop.run(main)


def test_an_exception_of_a_listener_loses_no_other_message():
    log = []

    async def main():
        port1, port2 = MessageChannel()
        before = multiloop.on_uncaught(lambda error: log.append(repr(error)))

        def heard(value):
            if value == 0:
                raise ValueError("listener")
            log.append(value)

        port2.on("message", heard)
        port1.post_message(0)
        port1.post_message(1)
        try:
            await until(lambda: len(log) == 2)
        finally:
            multiloop.on_uncaught(before)
        port1.close()

    multiloop.run(main)
    assert log == ["ValueError('listener')", 1]


# --- backpressure and fairness ----------------------------------------------------------------------------------------
def test_a_flood_returns_false_and_drain_waits_for_the_reader():
    async def main():
        port1, port2 = MessageChannel()
        sent = 0
        while port1.post_message("x" * 1000):
            sent += 1
        assert port1.buffered_amount > 1024 * 1024
        draining = port1.drain()
        await asyncio.sleep(0.02)
        assert not draining.done()
        got = []
        port2.on("message", got.append)
        assert await draining
        assert port1.buffered_amount <= 1024 * 1024
        await until(lambda: len(got) == sent + 1)
        port1.close()

    multiloop.run(main)


def test_large_messages_count_until_the_receiver_has_unpacked_them():
    async def main():
        port1, port2 = MessageChannel()
        assert port1.post_message(bytes(600_000))
        assert not port1.post_message(bytes(600_000))
        assert port1.buffered_amount > 1_200_000
        draining = port1.drain()
        await asyncio.sleep(0.02)
        assert not draining.done()
        assert len(receive_message_on_port(port2).message) == 600_000
        assert await draining
        port2.on("message", lambda value: None)
        await until(lambda: not port1.buffered_amount)
        port1.close()

    multiloop.run(main)


def test_drain_of_a_closed_port_is_false_and_a_cancelled_one_is_forgotten():
    async def main():
        port1, port2 = MessageChannel()
        while port1.post_message("x" * 1000):
            pass
        cancelled, waiting = port1.drain(), port1.drain()
        cancelled.cancel()
        port2.close()
        assert await waiting is False
        assert await port1.drain() is False

    multiloop.run(main)


def test_an_endless_ping_pong_starves_no_timer():
    async def main():
        port1, port2 = MessageChannel()
        port1.on("message", port1.post_message)
        port2.on("message", port2.post_message)
        for _ in range(50):
            port1.post_message("ball")
        for _ in range(5):
            await timers.sleep(0.005)
        port1.close()

    multiloop.run(main)


def test_both_sides_sending_much_at_once_do_not_block_each_other():
    async def main():
        port1, port2 = MessageChannel()
        big = bytes(8 << 20)
        for _ in range(8):
            port1.post_message(big)
            port2.post_message(big)
        got = []
        port1.on("message", lambda value: got.append(len(value)))
        port2.on("message", lambda value: got.append(len(value)))
        await until(lambda: len(got) == 16, 30)
        assert set(got) == {len(big)}
        port1.close()

    multiloop.run(main)


# --- moving -----------------------------------------------------------------------------------------------------------
def test_a_transferred_port_goes_on_with_everything_that_was_in_it():
    async def main():
        port1, port2 = MessageChannel()
        carrier1, carrier2 = MessageChannel()
        for number in range(500):  # more than the kernel takes: some wait in port1
            port1.post_message((number, "x" * 1000))
        port2.start()
        await asyncio.sleep(0.01)  # some were read by port2
        carrier1.post_message(port2, [port2])
        carrier1.post_message(port1, [port1])
        moved2 = receive_message_on_port(carrier2).message
        moved1 = receive_message_on_port(carrier2).message
        moved1.post_message((500, ""))
        moved1.close()
        assert [number async for number, _ in moved2] == list(range(501))
        carrier1.close()
        carrier2.close()

    multiloop.run(main)


def test_a_message_that_takes_several_reads_is_received_now():
    """The kernel ends a read behind the bytes that came with descriptors."""
    port1, port2 = MessageChannel()
    carrier1, carrier2 = MessageChannel()
    carrier1.post_message([port1, "x" * 60_000], [port1])
    moved, text = receive_message_on_port(carrier2).message
    assert len(text) == 60_000
    assert receive_message_on_port(carrier2) is None
    for port in (moved, port2, carrier1, carrier2):
        port.close()


def test_a_worker_that_dies_behind_a_message_of_several_reads_has_sent_it():
    async def main():
        worker = Worker(targets.post_port_and_die, kind="process")
        worker.on("error", lambda error: None)
        got = []
        worker.on("message", got.append)
        assert await worker.wait() == 137
        assert [text for _, text in got] == [str(number) * 60_000 for number in range(3)]
        for port, _ in got:
            port.close()

    multiloop.run(main)


def test_the_old_object_says_that_it_was_transferred():
    port1, port2 = MessageChannel()
    carrier1, carrier2 = MessageChannel()
    carrier1.post_message(port1, [port1])
    assert "transferred" in repr(port1)
    with pytest.raises(ClosedError, match="transferred"):
        port1.post_message("x")
    with pytest.raises(TransferError, match="transferred before"):
        carrier1.post_message(port1, [port1])
    port1.close()
    for port in (port2, carrier1, carrier2):
        port.close()
    del port1, port2
    gc.collect()


@pytest.mark.parametrize("case", ["not listed", "itself", "its other end", "closed"])
def test_impossible_transfers_detach_nothing(case):
    port1, port2 = MessageChannel()
    carrier1, carrier2 = MessageChannel()
    buffer = SharedBuffer(8)
    target, what, transfer_list = {
        "not listed": (carrier1, port1, [buffer]),
        "itself": (port1, port1, [buffer, port1]),
        "its other end": (port1, port2, [buffer, port2]),
        "closed": (carrier1, port1, [buffer, port1]),
    }[case]
    if case == "closed":
        port1.close()
    with pytest.raises(TransferError):
        target.post_message([what, buffer], transfer_list)
    buffer[0] = 1
    if case != "closed":
        assert port1.post_message("still")
        assert receive_message_on_port(port2).message == "still"
    for port in (port1, port2, carrier1, carrier2):
        port.close()
    buffer.close()


def test_a_port_inside_a_message_nobody_reads_is_closed_with_it():
    async def main():
        port1, port2 = MessageChannel()
        carrier1, carrier2 = MessageChannel()
        closed = events.once(port2, "close")
        carrier1.post_message(port1, [port1])
        carrier2.close()
        carrier1.close()
        await closed

    multiloop.run(main)


def test_a_port_with_a_backlog_of_its_own_starts_to_read_all_the_same():
    async def main():
        port1, port2 = MessageChannel()
        while port1.post_message("x" * 1000):
            pass
        port2.post_message("answer")
        assert await anext(aiter(port1)) == "answer"
        port1.close()
        port2.close()

    multiloop.run(main)
