"""A reader is handed its chunk by the transport's call itself: in every order of events nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import random
import subprocess
import sys
import warnings
from typing import Any

import pytest
from tests.net.test_socket import run_pair
from tests.support import LOOPS, environment, until

import multiloop
from multiloop import net, timers

loops = pytest.mark.parametrize("loop", LOOPS)


@loops
def test_a_waiting_reader_goes_on_within_the_call_of_the_transport(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        got: list[bytes] = []

        async def read() -> None:
            async for chunk in peer:
                got.append(chunk)

        reading = asyncio.ensure_future(read())
        await asyncio.sleep(0.005)
        seen: list[list[bytes]] = []
        asyncio.get_running_loop().call_soon(lambda: (peer._protocol.data_received(b"at once"), seen.append(list(got))))
        await until(lambda: seen)
        assert seen == [[b"at once"]]
        client.end()
        await reading

    run_pair(test, loop)


@loops
def test_a_chunk_that_comes_in_the_middle_of_another_tasks_step_waits_a_turn(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        reading = asyncio.ensure_future(peer.read())
        await asyncio.sleep(0.005)
        peer._protocol.data_received(b"one")  # this task is in the middle of a step
        peer._protocol.data_received(b"two")
        assert not reading.done()
        assert await reading == b"one"
        assert await peer.read() == b"two"

    run_pair(test, loop)


@loops
def test_a_reader_whose_context_is_in_use_waits_a_turn(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        context = contextvars.copy_context()
        reading = asyncio.get_running_loop().create_task(peer.read(), context=context)
        await asyncio.sleep(0.005)
        asyncio.get_running_loop().call_soon(peer._protocol.data_received, b"x", context=context)
        assert await reading == b"x"

    run_pair(test, loop)


@loops
def test_cancelling_before_and_after_a_chunk_of_the_same_turn_loses_nothing(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        now = asyncio.get_running_loop().call_soon
        for cancel_first in (True, False):
            reading = asyncio.ensure_future(peer.read())
            await asyncio.sleep(0.005)
            steps = [reading.cancel, lambda: peer._protocol.data_received(b"kept")]
            for step in steps if cancel_first else reversed(steps):
                now(step)
            await asyncio.wait([reading])
            # After the chunk it had already been read: then the cancel came too late.
            assert reading.cancelled() is cancel_first
            assert (await peer.read() if cancel_first else reading.result()) == b"kept"

    run_pair(test, loop)


@loops
def test_reads_work_with_what_asyncio_has(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.read(), 0.005)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await anext(peer)
        task = asyncio.create_task(anext(aiter(peer)))
        other = asyncio.create_task(peer.__anext__())
        await asyncio.sleep(0.002)
        with pytest.raises(multiloop.errors.UsageError, match="one reader at a time"):
            await other
        client.write(b"a")
        assert await asyncio.shield(task) == b"a"
        client.write(b"b")
        assert await asyncio.gather(peer.read()) == [b"b"]
        client.end()
        assert await anext(peer, b"the end") == b"the end"

    run_pair(test, loop)


@loops
def test_one_who_pauses_or_listens_while_another_reads_takes_nothing_away(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        reading = asyncio.ensure_future(peer.read())
        await asyncio.sleep(0.002)
        peer.pause()
        client.write(b"a")
        assert await reading == b"a"
        reading = asyncio.ensure_future(peer.read())
        await asyncio.sleep(0.002)
        got: list[bytes] = []
        peer.resume()
        peer.on("data", got.append)
        client.write(b"b")
        assert await reading == b"b"
        client.write(b"c")
        await until(lambda: got == [b"c"])

    run_pair(test, loop)


@loops
def test_random_cancels_and_pauses_lose_and_double_no_byte(loop: Any) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)

    async def test(client: net.Socket, peer: net.Socket) -> None:
        total = 200_000
        sent = bytes(chance.randrange(256) for _ in range(1000)) * (total // 1000)

        async def send() -> None:
            at = 0
            while at < total:
                size = chance.choice((1, 10, 1000, 20_000))
                if not client.write(sent[at : at + size]):
                    await client.drain()
                at += size
                if chance.random() < 0.3:
                    await asyncio.sleep(chance.random() * 0.001)
            client.end()

        got = bytearray()
        sending = asyncio.ensure_future(send())
        ended = False
        while not ended:
            size = chance.choice((-1, -1, 7, 5000))
            reading = asyncio.ensure_future(peer.read(size))
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() * 0.001)
                reading.cancel()
            if chance.random() < 0.1:
                peer.pause()
            await asyncio.wait([reading])
            if not reading.cancelled():
                got += (chunk := reading.result())
                ended = not chunk
        await sending
        assert bytes(got) == sent, f"seed {seed}"

    run_pair(test, loop)


@loops
def test_next_ticks_of_a_reader_run_before_other_callbacks(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        order: list[str] = []

        async def read() -> None:
            async for _ in peer:
                timers.next_tick(order.append, "tick")

        reading = asyncio.ensure_future(read())
        await asyncio.sleep(0.002)

        def arrive() -> None:
            timers.set_immediate(order.append, "immediate")
            peer._protocol.data_received(b"x")

        asyncio.get_running_loop().call_soon(arrive)
        await until(lambda: len(order) == 2)
        assert order == ["tick", "immediate"]
        client.end()
        await reading

    run_pair(test, loop)


@loops
def test_sys_exit_in_a_reader_is_the_exit_code(loop: Any) -> None:
    code = """if True:
        import sys, multiloop
        from multiloop import net, timers
        async def main():
            async def handle(socket):
                async for chunk in socket:
                    sys.exit(6)
            server = net.create_server(handle)
            await server.listen(0)
            client = await net.connect(server.address[1], "127.0.0.1")
            await timers.sleep(0.01)
            client.write(b"x")
        multiloop.run(main, loop=sys.argv[1])
    """
    ran = subprocess.run([sys.executable, "-c", code, loop], env=environment(), capture_output=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (6, b"")


@loops
def test_one_who_reads_in_the_step_that_cancelled_another_is_served(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        now = asyncio.get_running_loop().call_later
        for cancelled in (asyncio.ensure_future(peer.read()), None):
            if cancelled is None:
                cancelled = peer.read(callback=lambda error, data: None)
            await asyncio.sleep(0.002)
            cancelled.cancel()
            now(0.002, client.write, b"for the second")
            assert await peer.read() == b"for the second"
        first = asyncio.ensure_future(peer.read())
        await asyncio.sleep(0.002)
        first.cancel()
        now(0.002, peer.destroy)
        with pytest.raises(multiloop.errors.ClosedError):
            await peer.read()

    run_pair(test, loop)


@loops
def test_a_read_is_awaited_once_and_missed_when_it_is_not(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        client.write(b"a")
        reading = peer.read()
        assert asyncio.iscoroutine(reading)
        assert not asyncio.isfuture(reading)
        assert await reading == b"a"
        with pytest.raises(RuntimeError, match="awaited before"):
            await reading
        reading = peer.read()
        reading.close()  # says that it is not wanted
        del reading
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            peer.read()
            gc.collect()
        assert [str(warning.message) for warning in seen] == [
            "a read() of a socket was never awaited: nothing was read"
        ]

    run_pair(test, loop)


@loops
def test_a_waiting_coroutine_that_is_closed_or_thrown_into_leaves_the_socket_to_others(loop: Any) -> None:
    class Thrown(Exception):
        pass

    async def test(client: net.Socket, peer: net.Socket) -> None:
        async def read() -> bytes:
            return await peer.read()

        for end in (lambda waiting: waiting.close(), lambda waiting: waiting.throw(Thrown)):
            waiting = read()
            waiting.send(None)  # it waits
            with contextlib.suppress(Thrown):
                end(waiting)
            client.write(b"for the next")
            assert await peer.read() == b"for the next"

    run_pair(test, loop)


@loops
def test_a_chunk_that_was_handed_over_and_not_taken_is_the_next_again(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        waiting: Any = peer.read()
        waiting.send(None)
        handed: list[Any] = []
        # A task that does not step when it is resumed: it keeps for later what it was told.
        waiting.add_done_callback(handed.append, context=contextvars.copy_context())
        client.write(b"one")
        await until(lambda: handed)
        client.write(b"two")
        await until(lambda: peer.bytes_read == 6)
        waiting.close()
        assert await peer.read() == b"one"
        assert await peer.read() == b"two"

    run_pair(test, loop)


@loops
def test_a_task_that_cancels_itself_before_it_waits_takes_nothing(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        async def read() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel("by itself")
            async for _ in peer:
                pytest.fail("a cancelled task has read")

        reading = asyncio.ensure_future(read())
        await asyncio.sleep(0)
        client.write(b"kept")
        with pytest.raises(asyncio.CancelledError, match="by itself"):
            await reading
        assert await peer.read() == b"kept"

    run_pair(test, loop)


@loops
def test_of_two_tasks_with_one_iterator_the_second_is_refused_and_the_first_served(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        chunks = aiter(peer)
        first, second = (asyncio.create_task(anext(chunks)) for _ in range(2))  # type: ignore[arg-type]
        with pytest.raises(multiloop.errors.UsageError, match="one reader at a time"):
            await second
        client.write(b"a")
        assert await first == b"a"
        client.write(b"b")
        assert await anext(chunks) == b"b"

    run_pair(test, loop)


async def _iterate(socket: net.Socket) -> None:
    async for chunk in socket:
        if not socket.write(chunk):
            await socket.drain()


async def _iterate_and_drain(socket: net.Socket) -> None:
    async for chunk in socket:
        socket.write(chunk)
        await socket.drain()


async def _read(socket: net.Socket) -> None:
    while chunk := await socket.read():
        if not socket.write(chunk):
            await socket.drain()


async def _read_pieces(socket: net.Socket) -> None:
    while chunk := await socket.read(1000):
        if not socket.write(chunk):
            await socket.drain()


async def _restarted(socket: net.Socket) -> None:
    task = asyncio.ensure_future(_iterate(socket))
    while not task.done():
        await asyncio.wait([task], timeout=0.001)
        if task.cancel():
            await asyncio.wait([task])
            # What was written before the cancel still goes on, in order.
            task = asyncio.ensure_future(_iterate(socket))
    await task


@loops
@pytest.mark.parametrize("echo", [_iterate, _iterate_and_drain, _read, _read_pieces, _restarted])
def test_every_form_of_an_echo_gives_back_each_byte_in_order_and_ends(loop: Any, echo: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        sent = b"".join(number.to_bytes(4, "big") for number in range(100_000))
        serving = asyncio.ensure_future(echo(peer))

        async def send() -> None:
            for at in range(0, len(sent), 7001):
                if not client.write(sent[at : at + 7001]):
                    await client.drain()
            client.end()

        sending = asyncio.ensure_future(send())
        assert await client.read_all() == sent
        await asyncio.gather(sending, serving)
        assert not peer.error

    run_pair(test, loop)


@loops
def test_a_drain_that_need_not_wait_is_over_and_nobody_can_change_it(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        client.write(b"a")
        drained = client.drain()
        assert drained.done()
        assert not drained.cancel()
        drained.ref().unref()
        assert not drained.has_ref
        assert await client.drain() is None
        client.destroy()
        with pytest.raises(multiloop.errors.ClosedError):
            await client.drain()

    run_pair(test, loop)
