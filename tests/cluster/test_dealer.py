"""Dealing connections: credit, duplicates, taking back; with real sockets and no processes."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
from typing import Any

import pytest

from multiloop._wire import messages as wire
from multiloop.cluster._link import was_read
from multiloop.cluster._policy import LeastConnections
from multiloop.ipc._handoff import HandoffSocket, handoff_pair
from tests.cluster.stage import Scene, play
from tests.support import until


def test_connections_wait_in_the_kernel_until_somebody_can_take_them() -> None:
    async def scene(stage: Scene) -> None:
        stage.connect(3)
        await asyncio.sleep(0.05)
        assert stage.dealer.accepted == 0
        worker = stage.worker(1)
        await stage.accepted(3)
        assert len(worker.receive_all()) == 3

    play(scene)


def test_a_worker_gets_no_more_than_its_credit_until_it_adopts() -> None:
    async def scene(stage: Scene) -> None:
        worker = stage.worker(1)
        stage.connect(10)
        await stage.accepted(4)
        await asyncio.sleep(0.05)
        assert stage.dealer.accepted == 4
        ids = worker.receive_all()
        worker.acknowledge(wire.ADOPTED, *ids[:3])
        await stage.accepted(7)
        assert len(worker.receive_all()) == 3

    play(scene, credit=4)


def test_a_worker_gets_no_more_than_it_has_room_for() -> None:
    async def scene(stage: Scene) -> None:
        worker = stage.worker(1, capacity=2)
        stage.connect(3)
        await stage.accepted(2)
        first, second = worker.receive_all()
        worker.acknowledge(wire.ADOPTED, first, second)
        await asyncio.sleep(0.05)
        assert stage.dealer.accepted == 2
        worker.acknowledge(wire.CLOSED, first)
        await stage.accepted(3)

    play(scene)


def test_the_duplicate_is_kept_until_the_first_byte_was_read() -> None:
    async def scene(stage: Scene) -> None:
        worker = stage.worker(1)
        (client,) = stage.connect()
        await stage.accepted(1)
        (number,) = worker.receive_all()
        worker.acknowledge(wire.ADOPTED, number)
        await until(lambda: worker.link.free == 32)
        worker.got[number].close()
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):  # the primary still has it: no FIN
            client.recv(1)
        worker.acknowledge(wire.RELEASED, number)
        await until(lambda: not stage.dealer.duplicates)
        assert client.recv(1) == b""

    play(scene)


def test_duplicates_are_capped_and_the_oldest_dropped() -> None:
    async def scene(stage: Scene) -> None:
        one, two = stage.worker(1), stage.worker(2)
        stage.connect(20)
        await stage.accepted(20)
        assert stage.dealer.duplicates <= 6
        assert set(one.link.held) | set(two.link.held) == set(range(15, 21))
        assert len(one.receive_all()) == len(two.receive_all()) == 10

    play(scene, max_duplicates=6)


def test_what_a_closed_worker_has_not_received_goes_to_another() -> None:
    async def scene(stage: Scene) -> None:
        one = stage.worker(1)
        stage.connect(5)
        await stage.accepted(5)
        received = one.receive()
        two = stage.worker(2)
        stage.dealer.close(1)
        assert len(two.receive_all()) + len(received) == 5
        assert one.receive_all() == []
        assert one.link.connections == len(received)
        assert one.link.free == 32 - len(received)

    play(scene)


def test_a_connection_never_has_two_owners_when_both_ends_receive() -> None:
    async def scene(stage: Scene) -> None:
        one = stage.worker(1)
        for _ in range(10):
            stage.connect(3)
            await stage.accepted(len(stage.clients))
        mine = one.receive()  # one record; the rest is pulled back
        two = stage.worker(2)
        stage.dealer.close(1)
        theirs = two.receive_all()
        assert len(mine) + len(theirs) == 30
        for client in stage.clients:
            client.send(b"x")
        readers = [*one.got.values(), *two.got.values()]
        assert len(readers) == 30
        assert all(sock.recv(2) == b"x" for sock in readers)

    play(scene)


def test_a_dead_workers_unread_connections_are_dealt_again_and_read_ones_closed() -> None:
    async def scene(stage: Scene) -> None:
        one = stage.worker(1)
        silent, spoke, was_read_from = stage.connect(3)
        await stage.accepted(3)
        by_peer = {one.got[n].getpeername(): one.got[n] for n in one.receive_all()}
        spoke.send(b"hello")
        was_read_from.send(b"hello")
        by_peer[was_read_from.getsockname()].recv(10)
        one.die()
        stage.dealer.bury(1)
        assert stage.dealer.waiting == 2
        assert was_read_from.recv(10) == b""
        two = stage.worker(2)
        assert len(two.receive_all()) == 2
        again = {sock.getpeername(): sock for sock in two.got.values()}
        assert again[spoke.getsockname()].recv(10) == b"hello"
        silent.send(b"now")
        assert again[silent.getsockname()].recv(10) == b"now"

    play(scene)


def test_the_last_words_of_a_dead_worker_count() -> None:
    async def scene(stage: Scene) -> None:
        one = stage.worker(1)
        (client,) = stage.connect()
        await stage.accepted(1)
        (number,) = one.receive_all()
        one.acknowledge(wire.ADOPTED | wire.RELEASED, number)
        one.die()
        stage.dealer.bury(1)
        assert stage.dealer.waiting == 0
        assert client.recv(1) == b""

    play(scene)


def test_behind_a_full_table_silent_connections_give_up_their_duplicates_and_nobody_waits_for_ever() -> None:
    async def scene(stage: Scene) -> None:
        worker = stage.worker(1)
        stage.connect(20)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        first_free = os.dup(0)
        os.close(first_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (first_free + 4, hard))
        try:
            await stage.accepted(20)  # the worker adopts and releases none of them
            assert stage.dealer.duplicates <= 4
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert len(worker.receive_all()) == 20

    play(scene)


def test_a_descriptor_that_did_not_arrive_is_dealt_again_and_the_worker_left_alone_for_a_moment() -> None:
    async def scene(stage: Scene) -> None:
        one = stage.worker(1)
        stage.connect()
        await stage.accepted(1)
        (number,) = one.receive_all()
        one.acknowledge(wire.NOT_RECEIVED, number)
        await until(lambda: stage.dealer.waiting == 1)
        assert one.link.connections == 0
        stage.dealer.retry()
        assert stage.dealer.waiting == 0
        assert len(one.receive_all()) == 1

    play(scene)


def test_a_full_socket_keeps_the_connection_for_another_worker() -> None:
    async def scene(stage: Scene) -> None:
        one, two = stage.worker(1), stage.worker(2)
        while one.link.end.send(b"x" * 8000):
            pass
        stage.connect(4)
        await stage.accepted(4)
        assert len(two.receive_all()) == 4
        assert one.link.congested

    play(scene)


def test_connections_given_back_are_dealt_to_others_and_confirmed() -> None:
    async def scene(stage: Scene) -> None:
        one = stage.worker(1)
        client, _ = stage.connect(2)
        await stage.accepted(2)
        one.receive_all()
        stage.dealer.close(1)
        one.give_back(*one.got.values())
        await until(lambda: stage.dealer.waiting == 2)
        assert one.end.receive() is None  # not confirmed before somebody has them
        two = stage.worker(2)
        assert one.taken() == [0 << 1 | 1, 1 << 1 | 1]
        two.receive_all()
        client.send(b"again")
        assert b"again" in {sock.recv(10) for sock in two.got.values() if sock.getpeername() == client.getsockname()}

    play(scene)


def test_least_connections_counts_what_is_open() -> None:
    async def scene(stage: Scene) -> None:
        one, two = stage.worker(1), stage.worker(2)
        stage.connect(4)
        await stage.accepted(4)
        ids = one.receive_all()
        one.acknowledge(wire.ADOPTED | wire.CLOSED, *ids)
        await until(lambda: one.link.connections == 0)
        stage.connect(2)
        await stage.accepted(6)
        assert len(one.receive_all()) == 2
        assert len(two.receive_all()) == 2

    play(scene, policy=LeastConnections())


@pytest.mark.parametrize(("lies", "said"), [(False, "no idea"), (True, "not offered")])
def test_a_policy_that_raises_or_lies_loses_no_connection(
    lies: bool, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Bad:
        def pick(self, connection: Any, workers: Any) -> Any:
            assert connection.peer[0] == "127.0.0.1"
            if lies:
                return object()
            raise RuntimeError("no idea")

    async def scene(stage: Scene) -> None:
        one, _ = stage.worker(1), stage.worker(2)
        stage.connect(2)
        await stage.accepted(2)
        assert len(one.receive_all()) == 2

    logging.getLogger("multiloop").propagate = True
    play(scene, policy=Bad())
    assert said in caplog.text
    found = {id(record) for record in caplog.records if "the policy failed" in record.message}
    assert len(found) == 1  # a line a second, not one for each connection; several handlers may have caught it


def test_emptying_the_backlog_takes_everything_in() -> None:
    async def scene(stage: Scene) -> None:
        stage.connect(10)
        stage.dealer.empty_backlog()
        assert stage.dealer.waiting == 10
        worker = stage.worker(1)
        assert len(worker.receive_all()) == 10

    play(scene)


def test_the_kernel_knows_whether_a_connection_was_read_from() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as sock:
            assert not was_read(sock.fileno())
            client.send(b"hello")
            assert not was_read(sock.fileno())
            client.shutdown(socket.SHUT_WR)
            assert not was_read(sock.fileno())
            sock.recv(1)
            assert was_read(sock.fileno())
        with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as sock:
            client.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
            assert not was_read(sock.fileno())
    reader, writer = os.pipe()
    assert was_read(reader)
    os.close(reader)
    os.close(writer)


def test_a_handoff_socket_tells_the_end_apart_from_nothing() -> None:
    ours, theirs = handoff_pair()
    assert theirs.receive() is None
    ours.send(b"last")
    ours.close()
    got = theirs.receive()
    assert got is not None
    assert bytes(got[0]) == b"last"
    with pytest.raises(EOFError):
        theirs.receive()
    with pytest.raises(OSError):
        theirs.send(b"nobody")
    theirs.close()


def test_received_descriptors_are_not_inherited() -> None:
    ours, theirs = handoff_pair()
    with socket.socket() as sock:
        ours.send(b"x", [sock.fileno()])
    got = theirs.receive()
    assert got is not None
    (descriptor,) = got[1]
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    ours.close()
    theirs.close()
    assert HandoffSocket.fileno(ours) == -1
