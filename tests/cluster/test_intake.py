"""The worker's end of the handoff, with a service that does nothing."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from multiloop._wire import messages as wire
from multiloop.cluster._intake import Intake
from multiloop.ipc._handoff import HandoffSocket, handoff_pair
from tests.support import descriptors_left, open_descriptors, until


class FakeService:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.adopted: list[dict[str, Any]] = []

    def adopt(self, sock: socket.socket, **how: Any) -> None:
        self.adopted.append({"sock": sock, **how})

    def close(self) -> None:
        for one in self.adopted:
            one["sock"].close()


class Scene:
    """An intake, the primary's end, and connected pairs to hand over."""

    def __init__(self, family: int) -> None:
        self.primary, theirs = handoff_pair()
        self.service = FakeService()
        self.intake = Intake(asyncio.get_running_loop(), theirs, self.service, (family,).__getitem__)  # type: ignore[arg-type]
        self.pairs: list[tuple[socket.socket, socket.socket]] = []

    def hand_over(self, *ids: int) -> None:
        made = [socket.socketpair() for _ in ids]
        self.pairs += made
        entries = [(number, 0, wire.KEPT, b"abc") for number in ids]
        assert self.primary.send(wire.pack_entries(wire.CONNECTIONS, entries), [there.fileno() for _, there in made])

    async def acks(self, count: int) -> dict[int, int]:
        """The flags of so many connections, as they come."""
        flags: dict[int, int] = {}

        def heard() -> bool:
            while (record := receive(self.primary)) is not None:
                for value in wire.unpack_numbers(record):
                    flags[value >> wire.ACK_BITS] = flags.get(value >> wire.ACK_BITS, 0) | value & wire.ACK_FLAGS
            return len(flags) >= count

        await until(heard)
        return flags

    def close(self) -> None:
        self.intake.close()
        self.service.close()
        self.primary.close()
        for here, there in self.pairs:
            here.close()
            there.close()


def receive(end: HandoffSocket) -> bytes | None:
    try:
        got = end.receive()
    except EOFError:
        return None
    return None if got is None else bytes(got[0])


def play(scene: Callable[[Scene], Awaitable[None]], family: int = socket.AF_INET) -> None:
    async def main() -> None:
        stage = Scene(family)
        try:
            await scene(stage)
        finally:
            stage.close()

    asyncio.run(asyncio.sleep(0))
    before = open_descriptors()
    asyncio.run(main())
    assert not descriptors_left(before)


def test_adopting_is_acknowledged_without_a_word_from_the_client() -> None:
    async def scene(stage: Scene) -> None:
        stage.hand_over(7, 8)
        assert await stage.acks(2) == {7: wire.ADOPTED, 8: wire.ADOPTED}
        (first, _) = stage.service.adopted
        assert first["prefix"] == b"abc"
        assert first["kept"] is True
        assert first["listener"] == 0

    play(scene)


def test_the_first_byte_and_the_end_are_acknowledged() -> None:
    async def scene(stage: Scene) -> None:
        stage.hand_over(7)
        await stage.acks(1)
        stage.service.adopted[0]["on_first_byte"]()
        assert await stage.acks(1) == {7: wire.RELEASED}
        stage.service.adopted[0]["on_closed"]()
        assert await stage.acks(1) == {7: wire.CLOSED}

    play(scene)


def test_on_a_unix_socket_the_first_byte_is_acknowledged_before_it_is_acted_on() -> None:
    async def scene(stage: Scene) -> None:
        stage.hand_over(7)
        await stage.acks(1)
        stage.service.adopted[0]["on_first_byte"]()
        record = receive(stage.primary)
        assert record is not None
        assert list(wire.unpack_numbers(record)) == [7 << wire.ACK_BITS | wire.RELEASED]

    play(scene, socket.AF_UNIX)


def test_a_descriptor_that_found_no_room_is_reported() -> None:
    async def scene(stage: Scene) -> None:
        stage.hand_over(1, 2, 3)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limits[1]))  # room for one
        try:
            stage.intake.read_one()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        acks = await stage.acks(3)
        assert acks[1] == wire.ADOPTED
        assert wire.NOT_RECEIVED in acks.values()
        assert len(stage.service.adopted) == list(acks.values()).count(wire.ADOPTED)

    play(scene)


def test_connections_given_back_are_closed_here_once_the_primary_has_them() -> None:
    async def scene(stage: Scene) -> None:
        here, there = socket.socketpair()
        here.setblocking(False)
        assert stage.intake.give_back(there, 0)
        await until(lambda: (got := stage.primary.receive()) is not None and close_all(got[1]) == 1)
        with pytest.raises(BlockingIOError):
            here.recv(1)
        settled = asyncio.ensure_future(stage.intake.settle())
        await asyncio.sleep(0)
        assert not settled.done()
        stage.primary.send(wire.pack_numbers(wire.TAKEN, [1 << 1 | 1]))
        await settled
        assert here.recv(1) == b""
        here.close()

    play(scene)


def test_a_connection_that_was_lost_on_the_way_back_is_offered_again() -> None:
    async def scene(stage: Scene) -> None:
        here, there = socket.socketpair()
        assert stage.intake.give_back(there, 0)
        await until(lambda: (got := stage.primary.receive()) is not None and close_all(got[1]) == 1)
        stage.primary.send(wire.pack_numbers(wire.TAKEN, [1 << 1]))
        await until(lambda: (got := stage.primary.receive()) is not None and close_all(got[1]) == 1)
        here.close()

    play(scene)


def test_no_more_than_the_primary_can_hold_is_on_its_way_back() -> None:
    async def scene(stage: Scene) -> None:
        for _ in range(50):
            here, there = socket.socketpair()
            here.close()
            stage.intake.give_back(there, 0)
        got = 0

        def heard() -> bool:
            nonlocal got
            while (record := stage.primary.receive()) is not None:
                got += close_all(record[1])
            return got >= 32

        await until(heard)
        await asyncio.sleep(0.02)
        heard()
        assert got == 32
        stage.primary.send(wire.pack_numbers(wire.TAKEN, [number << 1 | 1 for number in range(1, 33)]))
        await until(lambda: heard() and got == 50)

    play(scene)


def test_an_intake_whose_primary_is_gone_closes_what_it_holds() -> None:
    async def scene(stage: Scene) -> None:
        here, there = socket.socketpair()
        stage.primary.close()
        stage.intake.give_back(there, 0)
        await stage.intake.settle()
        await asyncio.sleep(0.01)
        assert here.recv(1) == b""
        here.close()

    play(scene)


def close_all(descriptors: list[int]) -> int:
    for descriptor in descriptors:
        socket.close(descriptor)
    return len(descriptors)
