"""A dealer on a loop with a real listening socket, clients, and workers that answer what they are told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from multiloop._wire import messages as wire
from multiloop.cluster._dealer import Dealer
from multiloop.cluster._policy import RoundRobin
from multiloop.ipc._handoff import handoff_pair
from tests.support import descriptors_left, open_descriptors, until


class FakeWorker:
    """The worker's end of a handoff: receives when told, answers what it is told."""

    def __init__(self, dealer: Dealer, number: int) -> None:
        ours, self.end = handoff_pair()
        self.number = number
        self.link = dealer.add(number, ours, self.end.copy(), seat=number)
        self.got: dict[int, socket.socket] = {}
        self.prefixes: dict[int, bytes] = {}
        self.confirmed: list[int] = []  # TAKEN answers that came between connections

    def receive(self) -> list[int]:
        """Take one record of connections; returns their ids."""
        got = self.end.receive()
        if got is None:
            return []
        record, descriptors = got
        if wire.kind_of(record) == wire.TAKEN:
            self.confirmed += wire.unpack_numbers(record)
            return []
        entries = wire.unpack_entries(record)
        for entry, descriptor in zip(entries, descriptors, strict=True):
            self.got[entry[0]] = socket.socket(fileno=descriptor)
            self.prefixes[entry[0]] = entry[3]
        return [entry[0] for entry in entries]

    def receive_all(self) -> list[int]:
        ids: list[int] = []
        while more := self.receive():
            ids += more
        return ids

    def acknowledge(self, flags: int, *ids: int) -> None:
        assert self.end.send(wire.pack_numbers(wire.ACKS, [number << wire.ACK_BITS | flags for number in ids]))

    def give_back(self, *socks: socket.socket, flags: int = wire.KEPT) -> None:
        entries = [(number, 0, flags, b"") for number in range(len(socks))]
        assert self.end.send(wire.pack_entries(wire.RETURNED, entries), [sock.fileno() for sock in socks])

    def refuse(self, number: int) -> None:
        """Say that the server here is full."""
        self.acknowledge(wire.ADOPTED | wire.CLOSED | wire.REFUSED, number)
        with self.got.pop(number) as sock:
            self.give_back(sock, flags=0)

    def taken(self) -> list[int]:
        got = self.end.receive()
        assert got is not None
        assert wire.kind_of(got[0]) == wire.TAKEN
        return list(wire.unpack_numbers(got[0]))

    def die(self) -> None:
        self.end.close()
        for sock in self.got.values():
            sock.close()


class Scene:
    """A dealer with a listening socket, some workers and clients."""

    def __init__(self, dealer: Dealer) -> None:
        self.dealer = dealer
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.listener.setblocking(False)
        self.clients: list[socket.socket] = []
        self.workers: dict[int, FakeWorker] = {}
        dealer.listen(self.listener, 0)

    def worker(self, number: int, capacity: int | None = None) -> FakeWorker:
        worker = self.workers[number] = FakeWorker(self.dealer, number)
        self.dealer.open(number, capacity)
        return worker

    def connect(self, count: int = 1) -> list[socket.socket]:
        made = [socket.create_connection(self.listener.getsockname(), timeout=2) for _ in range(count)]
        self.clients += made
        return made

    async def accepted(self, count: int) -> None:
        await until(lambda: self.dealer.accepted == count)

    def close(self) -> None:
        self.dealer.shut()
        self.listener.close()
        for client in self.clients:
            client.close()
        for worker in self.workers.values():
            worker.die()


def play(scene: Callable[[Scene], Awaitable[None]], **options: Any) -> None:
    """Run a scene on a loop; afterwards no descriptor may be left."""

    async def main() -> None:
        policy = options.pop("policy", None) or RoundRobin()
        stage = Scene(Dealer(asyncio.get_running_loop(), policy, **options))
        try:
            await scene(stage)
        finally:
            stage.close()

    asyncio.run(asyncio.sleep(0))
    before = open_descriptors()
    asyncio.run(main())
    assert not descriptors_left(before)
