"""Several doors behind one dealer: who serves what, refusals, limits over all workers."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from multiloop._wire import messages as wire
from multiloop.cluster._dealer import Dealer
from multiloop.cluster._policy import RoundRobin
from tests.cluster.stage import Scene, play
from tests.support import until


def test_connections_go_only_to_those_who_serve_their_door() -> None:
    async def scene(stage: Scene) -> None:
        one, two = stage.worker(1), stage.worker(2)
        door = stage.dealer.door(RoundRobin())
        with socket.create_server(("127.0.0.1", 0)) as second:
            second.setblocking(False)
            stage.dealer.listen(second, 7, door)
            stage.clients += [socket.create_connection(second.getsockname()) for _ in range(3)]
            await asyncio.sleep(0.02)
            assert stage.dealer.accepted == 0
            stage.dealer.join(2, door)
            await stage.accepted(3)
            assert len(two.receive_all()) == 3
            stage.connect(2)
            await stage.accepted(5)
            assert (len(one.receive_all()), len(two.receive_all())) == (1, 1)
            stage.dealer.leave(2, door)
            stage.clients.append(socket.create_connection(second.getsockname()))
            await asyncio.sleep(0.02)
            assert stage.dealer.accepted == 5
            stage.dealer.unlisten(second)
            stage.dealer.forget(7)

    play(scene)


def test_a_refused_connection_goes_to_another_worker() -> None:
    async def scene(stage: Scene) -> None:
        one, two = stage.worker(1), stage.worker(2)
        stage.connect(2)
        await stage.accepted(2)
        (mine,), (other,) = one.receive_all(), two.receive_all()
        two.acknowledge(wire.ADOPTED, other)
        one.refuse(mine)
        await until(lambda: two.receive_all())
        assert one.receive_all() == []
        assert one.confirmed == [1]
        stage.connect(3)  # one is full: two gets them all
        await stage.accepted(5)
        assert len(two.receive_all()) == 3

    play(scene)


def test_accepting_stops_when_all_are_full_and_resumes_when_a_connection_ends() -> None:
    async def scene(stage: Scene) -> None:
        one = stage.worker(1)
        stage.connect(2)
        await stage.accepted(2)
        kept, refused = one.receive_all()
        one.acknowledge(wire.ADOPTED, kept)
        one.refuse(refused)
        await until(lambda: stage.dealer.waiting == 1)
        stage.connect(1)
        await asyncio.sleep(0.02)
        assert stage.dealer.accepted == 2  # the third waits in the kernel
        one.acknowledge(wire.CLOSED, kept)
        await until(lambda: stage.dealer.waiting == 0)
        (taken,) = one.receive_all()  # for one that is gone, one
        assert stage.dealer.accepted == 2
        one.acknowledge(wire.ADOPTED | wire.CLOSED, taken)
        await stage.accepted(3)
        assert len(one.receive_all()) == 1

    play(scene)


def test_a_full_worker_is_asked_again_after_a_while() -> None:
    async def scene(stage: Scene) -> None:
        one = stage.worker(1)
        stage.connect(1)
        await stage.accepted(1)
        (refused,) = one.receive_all()
        one.refuse(refused)
        await until(lambda: stage.dealer.waiting == 1)
        stage.dealer.retry()
        assert len(one.receive_all()) == 1

    play(scene)


def test_above_the_limit_over_all_workers_connections_are_dropped() -> None:
    async def scene(stage: Scene) -> None:
        dropped: list[Any] = []
        stage.dealer.max_connections = 2
        stage.dealer.on_drop = lambda local, remote: dropped.append((local, remote))
        one, two = stage.worker(1), stage.worker(2)
        clients = stage.connect(3)
        await stage.accepted(3)
        assert dropped == [(stage.listener.getsockname(), clients[2].getsockname())]
        assert clients[2].recv(1) == b""
        (mine,) = one.receive_all()
        one.acknowledge(wire.ADOPTED | wire.CLOSED, mine)
        await until(lambda: one.link.connections == 0)
        stage.connect(1)
        await stage.accepted(4)
        assert len(one.receive_all()) == 1
        assert len(two.receive_all()) == 1
        assert len(dropped) == 1

    play(scene)


def test_what_waits_behind_a_door_that_is_closed_is_closed() -> None:
    async def scene(stage: Scene) -> None:
        dealer: Dealer = stage.dealer
        one = stage.worker(1)
        door = dealer.door(RoundRobin())
        with socket.create_server(("127.0.0.1", 0)) as second:
            second.setblocking(False)
            dealer.listen(second, 7, door)
            dealer.join(1, door)
            client = socket.create_connection(second.getsockname())
            stage.clients.append(client)
            await stage.accepted(1)
            (number,) = one.receive_all()
            dealer.close(1)
            one.refuse(number)
            stage.dealer.unlisten(second)
            dealer.forget(7)
            await until(lambda: not dealer.waiting)
            client.close()

    play(scene)
