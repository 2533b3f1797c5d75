"""A connection that one worker read from and gave back is the next worker's: its death is judged by what *it* has read."""

from __future__ import annotations

import socket

from multiloop._wire import messages as wire
from multiloop.cluster._link import bytes_read, was_read
from tests.support import until

from .stage import Scene, play


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


async def kept_by_two(stage: Scene) -> tuple[socket.socket, socket.socket]:
    """A client whose first worker read a request, gave the connection back and left; and the second worker's socket."""
    one = stage.worker(1)
    (client,) = stage.connect()
    await stage.accepted(1)
    (number,) = one.receive_all()
    client.send(b"first")
    assert one.got[number].recv(10) == b"first"
    one.acknowledge(wire.ADOPTED | wire.RELEASED, number)
    stage.dealer.close(1)
    one.give_back(one.got[number])
    await until(lambda: stage.dealer.waiting == 1)
    two = stage.worker(2)
    await until(lambda: stage.dealer.waiting == 0)
    one.acknowledge(wire.CLOSED, number)
    one.die()
    stage.dealer.bury(1)
    (again,) = two.receive_all()
    return client, two.got[again]


def test_it_is_dealt_once_more_when_that_one_dies_before_it_read() -> None:
    async def scene(stage: Scene) -> None:
        client, _ = await kept_by_two(stage)
        client.send(b"second")
        stage.workers[2].die()
        stage.dealer.bury(2)
        three = stage.worker(3)
        (number,) = three.receive_all()
        assert three.got[number].recv(10) == b"second"

    play(scene)


def test_it_is_closed_when_that_one_had_read() -> None:
    async def scene(stage: Scene) -> None:
        client, theirs = await kept_by_two(stage)
        client.send(b"second")
        assert theirs.recv(3) == b"sec"
        stage.workers[2].die()
        stage.dealer.bury(2)
        assert stage.dealer.waiting == 0
        assert is_closed(client)

    play(scene)


def test_a_number_that_is_used_again_carries_nothing_over() -> None:
    async def scene(stage: Scene) -> None:
        client, theirs = await kept_by_two(stage)
        two = stage.workers[2]
        two.acknowledge(wire.ADOPTED | wire.RELEASED | wire.CLOSED, next(iter(two.got)))
        theirs.close()
        await until(lambda: stage.dealer.duplicates == 0)
        client.close()
        (other,) = stage.connect()  # gets the descriptor's number in the dealer
        await stage.accepted(2)
        (number,) = two.receive_all()
        other.send(b"hello")
        assert two.got[number].recv(2) == b"he"
        two.die()
        stage.dealer.bury(2)
        assert stage.dealer.waiting == 0
        assert is_closed(other)

    play(scene)


def test_how_much_was_read_is_counted_in_bytes() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as sock,
    ):
        client.send(b"0123456789")
        assert sock.recv(4) == b"0123"
        assert bytes_read(sock.fileno()) == 4
        assert was_read(sock.fileno(), 3)
        assert not was_read(sock.fileno(), 4)
        client.shutdown(socket.SHUT_WR)
        assert bytes_read(sock.fileno()) == 4
