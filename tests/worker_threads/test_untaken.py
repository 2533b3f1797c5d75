"""Messages that nobody took: what they hold goes with whoever could still take them, and no collector is needed for that."""

import asyncio
import gc

import pytest
from tests.support import open_descriptors, until
from tests.worker_threads import targets

import multiloop
from multiloop.worker_threads import MessageChannel, Worker, receive_message_on_port

SMALL = b"x"
LARGE = b"x" * 100_000  # travels in memory of its own, by a descriptor


@pytest.fixture(autouse=True)
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def warmed_up():
    """What is open once a loop and its threads are there."""
    channel = MessageChannel()
    for port in channel:
        port.close()
    await asyncio.sleep(0)
    return open_descriptors()


async def all_closed(before):
    await until(lambda: not open_descriptors() - before, 10)


@pytest.mark.parametrize("message", [SMALL, LARGE], ids=["small", "large"])
def test_what_a_worker_held_is_released_with_the_last_reference_after_its_end(kind, message):
    async def one():
        worker = Worker(targets.tell_data, worker_data=message, kind=kind)
        assert await worker.wait() == 0

    async def main():
        before = await warmed_up()
        for _ in range(3):
            await one()
        await all_closed(before)

    multiloop.run(main)


@pytest.mark.parametrize("message", [SMALL, LARGE], ids=["small", "large"])
def test_a_terminated_worker_holds_nothing_either(kind, message):
    async def one():
        worker = Worker(targets.tell_data_and_listen, worker_data=message, kind=kind)
        await until(lambda: worker._is_online)
        await worker.terminate()

    async def main():
        before = await warmed_up()
        for _ in range(3):
            await one()
        await all_closed(before)

    multiloop.run(main)


def test_an_ended_worker_that_is_kept_keeps_its_messages_but_no_socket(kind):
    async def main():
        before = await warmed_up()
        worker = Worker(targets.tell_data, worker_data=SMALL, kind=kind)
        await worker.wait()
        await all_closed(before)
        assert [value async for value in worker] == [SMALL]

    multiloop.run(main)


def test_a_listener_that_comes_after_the_end_gets_what_waits_although_the_worker_is_dropped(kind):
    async def main():
        before = await warmed_up()
        taken = []

        async def one():
            worker = Worker(targets.tell_data, worker_data=LARGE, kind=kind)
            await worker.wait()
            worker.on("message", taken.append)

        await one()
        await until(lambda: taken)
        assert taken == [LARGE]
        await all_closed(before)

    multiloop.run(main)


def test_a_listener_that_came_after_the_end_and_left_again_takes_nothing(kind):
    async def main():
        before = await warmed_up()
        taken = []

        async def one():
            worker = Worker(targets.tell_data, worker_data=LARGE, kind=kind)
            await worker.wait()
            worker.on("message", taken.append)
            worker.off("message", taken.append)
            await asyncio.sleep(0)

        await one()
        await all_closed(before)
        assert taken == []

    multiloop.run(main)


def test_a_dropped_port_lets_go_of_what_came_before_its_peer_closed():
    async def one():
        port1, port2 = MessageChannel()
        port1.on("close", lambda: None)  # so that it reads, and is the loop's
        port2.post_message(LARGE)
        port2.close()
        await until(lambda: port1._link.is_ended)

    async def main():
        before = await warmed_up()
        await one()
        await all_closed(before)

    multiloop.run(main)


def test_a_port_whose_peer_closed_keeps_its_messages_and_can_still_move():
    async def main():
        port1, port2 = MessageChannel()
        carrier1, carrier2 = MessageChannel()
        port1.on("close", lambda: None)
        port2.post_message(LARGE)
        port2.close()
        await until(lambda: port1._link.is_ended)
        assert await port1.drain() is False
        carrier1.post_message(port1, [port1])
        received = receive_message_on_port(carrier2)
        assert received is not None
        assert [value async for value in received.message] == [LARGE]
        carrier1.close()

    multiloop.run(main)


def test_a_listener_keeps_the_program_until_it_has_what_waited_at_a_port_whose_peer_closed():
    taken = []

    async def main():
        port1, port2 = MessageChannel()
        port1.on("close", lambda: None)
        port2.post_message(SMALL)
        port2.close()
        await until(lambda: port1._link.is_ended)
        port1.on("message", taken.append)

    multiloop.run(main)
    assert taken == [SMALL]
