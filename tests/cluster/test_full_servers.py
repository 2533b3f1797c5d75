"""Workers whose server is full: how often what waits is carried to them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from multiloop._wire import messages as wire
from multiloop.cluster._intake import Intake
from multiloop.ipc._handoff import handoff_pair
from tests.cluster.stage import Scene, play
from tests.support import until


class Limited:
    """A server with a limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.served: list[tuple[socket.socket, Callable[[], None]]] = []
        self.refused = 0

    def adopt(self, sock: socket.socket, *, on_closed: Callable[[], None], **_: Any) -> bool:
        if len(self.served) >= self.limit:
            self.refused += 1
            return False
        self.served.append((socket.socket(fileno=sock.detach()), on_closed))
        return True

    def end_one(self) -> None:
        sock, tell = self.served.pop()
        tell()
        sock.close()


class Workers:
    """Some workers with their real intakes, on the loop of the primary."""

    def __init__(self, stage: Scene, limits: list[int]) -> None:
        self.servers = [Limited(limit) for limit in limits]
        self.intakes = []
        for number, server in enumerate(self.servers, 1):
            ours, theirs = handoff_pair()
            stage.dealer.add(number, ours, theirs.copy(), seat=number)
            intake = Intake(asyncio.get_running_loop(), theirs, server, (socket.AF_INET,).__getitem__)  # type: ignore[arg-type]
            self.intakes.append(intake)
            stage.dealer.open(number)

    @property
    def served(self) -> int:
        return sum(len(server.served) for server in self.servers)

    @property
    def refused(self) -> int:
        return sum(server.refused for server in self.servers)

    def close(self) -> None:
        for server, intake in zip(self.servers, self.intakes, strict=True):
            while server.served:
                server.end_one()
            intake.close()


def test_what_waits_for_full_workers_stays_where_it_is() -> None:
    async def scene(stage: Scene) -> None:
        workers = Workers(stage, [2, 2])
        began = asyncio.get_running_loop().time()
        stage.connect(7)
        await until(lambda: stage.dealer.refused >= 2 and stage.dealer.waiting > 0)
        for _ in range(300):  # each turn was another round through both workers
            stage.dealer.retry()
            await asyncio.sleep(0.001)
        assert workers.served == 4
        rounds = 2 + asyncio.get_running_loop().time() - began  # each worker is asked once in FULL_RETRY_S
        assert 2 <= workers.refused <= 3 + 2 * rounds
        workers.close()

    play(scene)


def test_as_soon_as_a_connection_of_a_full_worker_closes_the_next_one_is_served_there() -> None:
    async def scene(stage: Scene) -> None:
        workers = Workers(stage, [2, 2])
        stage.connect(12)
        await until(lambda: workers.served == 4 and stage.dealer.waiting > 0)
        for server in (workers.servers * 4)[:8]:
            before = workers.refused
            server.end_one()
            await until(lambda: workers.served == 4)
            assert workers.refused == before
        assert stage.dealer.accepted == 12
        assert stage.dealer.waiting == 0
        workers.close()

    play(scene)


def test_a_limit_that_is_raised_is_noticed() -> None:
    async def scene(stage: Scene) -> None:
        workers = Workers(stage, [1])
        stage.connect(30)
        await until(lambda: workers.served == 1 and stage.dealer.waiting > 0)
        workers.servers[0].limit = 30
        await until(lambda: stage.dealer.retry() or workers.served == 30)
        workers.close()

    play(scene)


def test_that_a_connection_was_refused_is_known_before_it_comes_back() -> None:
    async def scene(stage: Scene) -> None:
        primary, theirs = handoff_pair()
        server = Limited(1)
        intake = Intake(asyncio.get_running_loop(), theirs, server, (socket.AF_INET,).__getitem__)  # type: ignore[arg-type]
        pairs = [socket.socketpair() for _ in range(2)]
        entries = [(number, 0, 0, b"abc") for number in (7, 8)]
        primary.send(wire.pack_entries(wire.CONNECTIONS, entries), [there.fileno() for _, there in pairs])
        intake.read_one()
        server.end_one()
        records = []

        def heard() -> bool:
            while (got := primary.receive()) is not None:
                records.append(bytes(got[0]))
                for descriptor in got[1]:
                    socket.close(descriptor)
            return len(records) == 2

        await until(heard)
        refused, ended = wire.ADOPTED | wire.CLOSED | wire.REFUSED, wire.ADOPTED | wire.CLOSED
        assert list(wire.unpack_numbers(records[0])) == [8 << wire.ACK_BITS | refused, 7 << wire.ACK_BITS | ended]
        assert wire.unpack_entries(records[1]) == [(1, 0, 0, b"abc")]
        intake.close()
        primary.close()
        for here, there in pairs:
            here.close()
            there.close()

    play(scene)
