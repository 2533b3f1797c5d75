"""Reading heads in the primary: nothing is lost, slow and silent clients hold nobody up, 503 when nobody comes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter

import pytest

from multiloop import _limits as limits
from multiloop._wire import messages as wire
from multiloop.cluster._heads import Patience
from multiloop.cluster._policy import Sticky
from tests.cluster.stage import Scene, play
from tests.support import until


def by_cookie() -> Sticky:
    return Sticky("cookie", "sid")


def head(sid: str, *, pad: int = 0) -> bytes:
    return f"GET /{'x' * pad} HTTP/1.1\r\nHost: x\r\nCookie: sid={sid}\r\n\r\n".encode()


async def received(stage: Scene, count: int) -> dict[int, list[int]]:
    """By worker, the ids of what it has received, once there are so many in all."""
    ids: dict[int, list[int]] = {number: [] for number in stage.workers}

    def all_here() -> bool:
        for number, worker in stage.workers.items():
            ids[number] += worker.receive_all()
        stage.dealer.retry()
        return sum(map(len, ids.values())) == count

    await until(all_here)
    assert not stage.dealer.waiting
    return ids


def test_connections_with_the_same_cookie_go_to_the_same_worker_with_what_was_read() -> None:
    async def scene(stage: Scene) -> None:
        for number in (1, 2, 3, 4):
            stage.worker(number)
        sent = {}
        for index, client in enumerate(stage.connect(40)):
            sent[client.getsockname()] = head(str(index % 10)) + b"body of it"
            client.send(sent[client.getsockname()])
        await received(stage, 40)
        went: dict[bytes, Counter[int]] = {}
        for number, worker in stage.workers.items():
            for connection, sock in worker.got.items():
                prefix = worker.prefixes[connection]
                assert prefix == sent[sock.getpeername()]
                went.setdefault(prefix, Counter())[number] += 1
        assert all(len(workers) == 1 for workers in went.values())
        assert len({number for workers in went.values() for number in workers}) > 1

    play(scene, policy=by_cookie())


def test_a_head_may_come_byte_by_byte_and_what_follows_stays_in_the_socket() -> None:
    async def scene(stage: Scene) -> None:
        worker = stage.worker(1)
        (client,) = stage.connect()
        for byte in head("7"):
            client.send(bytes([byte]))
            await asyncio.sleep(0)
        await received(stage, 1)
        ((number, sock),) = worker.got.items()
        assert worker.prefixes[number] == head("7")
        client.send(b"more")
        await until(lambda: sock.recv(10, socket.MSG_PEEK) == b"more")

    play(scene, policy=by_cookie())


def test_a_head_that_is_too_long_is_handed_on_as_far_as_it_came() -> None:
    async def scene(stage: Scene) -> None:
        worker = stage.worker(1)
        (client,) = stage.connect()
        long = head("1", pad=20_000)
        client.sendall(long)
        await received(stage, 1)
        ((number, sock),) = worker.got.items()
        prefix = worker.prefixes[number]
        assert len(prefix) == wire.MAX_PREFIX_BYTES
        sock.setblocking(True)
        rest = b""
        while len(prefix + rest) < len(long):
            rest += sock.recv(65536)
        assert prefix + rest == long

    play(scene, policy=by_cookie())


def test_many_long_heads_fit_into_no_single_record() -> None:
    async def scene(stage: Scene) -> None:
        worker = stage.worker(1)
        clients = stage.connect(30)
        for client in clients:
            client.sendall(head("1", pad=7000))
        await received(stage, 30)
        assert len(worker.got) == 30
        assert {len(prefix) for prefix in worker.prefixes.values()} == {len(head("1", pad=7000))}

    play(scene, policy=by_cookie())


def test_a_dead_workers_connections_are_dealt_again_with_their_heads() -> None:
    async def scene(stage: Scene) -> None:
        one = stage.worker(1)
        unread, read = stage.connect(2)
        for client in (unread, read):
            client.send(head("1"))
        await received(stage, 2)
        by_peer = {sock.getpeername(): sock for sock in one.got.values()}
        read.send(b"more")
        by_peer[read.getsockname()].recv(10)
        one.die()
        stage.dealer.bury(1)
        two = stage.worker(2)
        await until(lambda: two.receive_all() or two.got)
        ((number, sock),) = two.got.items()
        assert sock.getpeername() == unread.getsockname()
        assert two.prefixes[number] == head("1")
        assert read.recv(10) == b""

    play(scene, policy=by_cookie())


def test_silent_clients_are_closed_in_time_and_slow_ones_handed_on() -> None:
    async def scene(stage: Scene) -> None:
        worker = stage.worker(1)
        silent, slow, gone = stage.connect(3)
        slow.send(b"GET / HT")
        gone.send(b"GET")
        gone.close()
        await until(lambda: stage.dealer.accepted == 3)

        def looked() -> bool:
            stage.dealer.retry()
            return not stage.dealer.waiting

        await until(looked)
        assert silent.recv(10) == b""
        assert len(worker.receive_all()) == 1
        assert list(worker.prefixes.values()) == [b"GET / HT"]

    play(scene, policy=by_cookie(), patience=Patience(0.2, 0.2))


def test_where_the_deadlines_are_known_a_late_head_is_answered_and_no_worker_bothered() -> None:
    async def scene(stage: Scene) -> None:
        worker = stage.worker(1)
        (slow,) = stage.connect()
        slow.send(b"GET / HT")
        slow.setblocking(False)
        assert (await answer_to(stage, slow)).startswith(b"HTTP/1.1 408 ")
        assert not stage.dealer.waiting
        assert not worker.receive_all()

    play(scene, policy=by_cookie(), patience=Patience(10, 0.2, refuses=True))


def test_who_arrives_when_nobody_has_served_for_long_is_answered_503_until_somebody_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "NOBODY_READY_S", 0.1)

    async def scene(stage: Scene) -> None:
        early = stage.connect()[0]
        early.send(head("0"))
        for _ in range(5):  # nobody was ever there: a server that starts is worth waiting for
            stage.dealer.retry()
            await asyncio.sleep(0.05)
        assert stage.dealer.accepted == 0
        worker = stage.worker(1)
        await received(stage, 1)
        stage.dealer.close(1)
        (client,) = stage.connect()
        client.send(head("1"))
        client.setblocking(False)
        assert (await answer_to(stage, client)).startswith(b"HTTP/1.1 503 ")
        stage.dealer.open(1)
        (late,) = stage.connect()
        late.send(head("2"))
        await received(stage, 1)
        assert head("2") in worker.prefixes.values()

    play(scene, policy=by_cookie())


async def answer_to(stage: Scene, client: socket.socket) -> bytes:
    seen: list[bytes] = []

    def has_answer() -> bool:
        stage.dealer.retry()
        with contextlib.suppress(BlockingIOError):
            seen.append(client.recv(1000))
        return any(seen)

    await until(has_answer)
    return b"".join(seen)


def test_a_request_that_was_read_is_answered_503_when_nobody_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NOBODY_READY_S", 0.1)

    async def scene(stage: Scene) -> None:
        stage.worker(1)
        (client,) = stage.connect()
        await until(lambda: stage.dealer.accepted == 1)
        stage.dealer.close(1)
        client.send(head("1") + b"some body")
        client.setblocking(False)

        answer = await answer_to(stage, client)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in answer
        assert not stage.dealer.waiting

    play(scene, policy=by_cookie())


def test_a_request_that_was_read_waits_for_a_worker_that_comes_in_time() -> None:
    async def scene(stage: Scene) -> None:
        stage.worker(1)
        (client,) = stage.connect()
        await until(lambda: stage.dealer.accepted == 1)
        stage.dealer.close(1)
        client.send(head("1"))
        await until(lambda: stage.dealer.links() and not stage.dealer._heads.count)
        stage.dealer.retry()
        two = stage.worker(2)
        await until(lambda: two.receive_all() or two.got)
        assert list(two.prefixes.values()) == [head("1")]

    play(scene, policy=by_cookie())


def test_a_sticky_client_waits_for_its_busy_worker_and_no_longer_than_that_serves() -> None:
    async def scene(stage: Scene) -> None:
        one, two = stage.worker(1), stage.worker(2)
        stage.connect(6)  # all from one address
        await until(lambda: stage.dealer.waiting == 2)
        mine, other = (one, two) if one.link.free == 0 else (two, one)
        assert other.link.connections == 0
        ids = mine.receive_all()
        mine.acknowledge(wire.ADOPTED, ids[0])
        await until(lambda: stage.dealer.waiting == 1)
        assert len(mine.receive_all()) == 1
        stage.dealer.close(mine.number)
        await until(lambda: not stage.dealer.waiting)
        assert len(other.receive_all()) == 1

    play(scene, policy=Sticky(), credit=4)


def test_accepting_stops_when_too_many_wait_for_one_worker_and_goes_on() -> None:
    async def scene(stage: Scene) -> None:
        one, two = stage.worker(1), stage.worker(2)
        stage.connect(30)
        await until(lambda: stage.dealer.waiting == 8)
        await asyncio.sleep(0.05)
        assert stage.dealer.accepted == 12
        mine = one if one.link.free == 0 else two
        got = 0
        while got < 30:
            ids = mine.receive_all()
            got += len(ids)
            if ids:
                mine.acknowledge(wire.ADOPTED, *ids)
            await asyncio.sleep(0.001)
        assert stage.dealer.accepted == 30

    play(scene, policy=Sticky(), credit=4, max_duplicates=16)
