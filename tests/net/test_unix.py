"""Unix sockets: paths that appear, are shared, replaced and removed (N10)."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import LOOPS

import multiloop
from multiloop import http, net
from multiloop.errors import InvalidPath, UsageError

loops = pytest.mark.parametrize("loop", LOOPS)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:  # pytest's own paths are too long for sockets
        yield Path(name)


def _echo(connection: net.Socket) -> None:
    connection.on("data", connection.write)


@loops
def test_a_path_is_served_and_removed_at_the_end(folder: Path, loop: Any) -> None:
    path = str(folder / "s")

    async def main() -> None:
        server = net.create_server(_echo)
        await server.listen(path=path)
        assert server.address == path
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        async with net.connect(path=path) as client:
            client.write(b"x")
            assert await client.read(1) == b"x"
            assert client.remote_address == path
        await server.close()
        assert not os.path.exists(path)

    multiloop.run(main, loop=loop)


@pytest.mark.parametrize("umask", [0, 0o077])
def test_the_mode_does_not_depend_on_the_umask(folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:

        async def main() -> None:
            for mode in (0o600, 0o660, 0o666):
                server = net.create_server()
                await server.listen(path=str(folder / "s"), path_mode=mode)
                assert stat.S_IMODE(os.stat(folder / "s").st_mode) == mode
                await server.close()

        multiloop.run(main)
    finally:
        os.umask(before)


def test_a_stale_path_is_replaced_and_a_live_one_never(folder: Path) -> None:
    path = str(folder / "s")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(path)
    dead.close()

    async def main() -> None:
        server = net.create_server(_echo)
        await server.listen(path=path)
        with pytest.raises(OSError) as caught:
            await net.create_server().listen(path=path)
        assert caught.value.errno == errno.EADDRINUSE
        assert caught.value.filename == path
        async with net.connect(path=path) as client:  # still the first one's
            client.write(b"x")
            assert await client.read(1) == b"x"
        await server.close()

    multiloop.run(main)


def test_two_servers_that_start_at_once_on_a_stale_path_do_not_both_get_it(folder: Path) -> None:
    path = str(folder / "s")

    async def main() -> None:
        for _ in range(20):
            dead = socket.socket(socket.AF_UNIX)
            dead.bind(path)
            dead.close()
            servers = [net.create_server() for _ in range(4)]
            outcomes = await asyncio.gather(*(s.listen(path=path) for s in servers), return_exceptions=True)
            assert sum(isinstance(each, net.Server) for each in outcomes) == 1
            for server in servers:
                await server.close()

    multiloop.run(main)


def test_a_file_of_another_kind_is_left_alone(folder: Path) -> None:
    path = folder / "data"
    path.write_text("precious")

    async def main() -> None:
        with pytest.raises(OSError, match="data"):
            await net.create_server().listen(path=str(path))

    multiloop.run(main)
    assert path.read_text() == "precious"


def test_a_path_that_became_somebody_elses_is_not_removed(folder: Path) -> None:
    path = str(folder / "s")

    async def main() -> None:
        first = net.create_server()
        await first.listen(path=path)
        os.unlink(path)
        second = net.create_server(_echo)
        await second.listen(path=path)
        await first.close()
        async with net.connect(path=path) as client:
            client.write(b"x")
            assert await client.read(1) == b"x"
        await second.close()

    multiloop.run(main)


def test_a_path_that_is_too_long_is_refused_and_never_cut(folder: Path) -> None:
    path = str(folder / ("x" * 120))

    async def main() -> None:
        for server in (net.create_server(), http.create_server(lambda request: "x")):
            with pytest.raises(OSError) as caught:
                await server.listen(path=path)
            assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, path)
            with pytest.raises(InvalidPath):
                await server.listen(path="/tmp/a\0b")
            with pytest.raises(OSError, match="empty"):
                await server.listen(path="")
        with pytest.raises(OSError, match="at most"):
            await net.connect(path=path)
        with pytest.raises(InvalidPath):
            await net.connect(path="/tmp/a\0b")
        with pytest.raises(TypeError):
            net.connect(path=3)  # type: ignore[call-overload]

    multiloop.run(main)


@pytest.mark.parametrize("path", ["/tmp/" + "x" * 120, "/tmp/a\0b"])
def test_what_is_wrong_with_a_path_reaches_the_callback(path: str) -> None:
    told: list[Any] = []

    def main() -> None:
        net.connect(path=path, callback=lambda error, socket: told.append(("connect", type(error), socket)))
        server = net.create_server()
        server.listen(path=path, callback=lambda error, server: told.append(("listen", type(error), server)))
        assert told == [], "never inside the call"

    multiloop.run(main)
    kind = InvalidPath if "\0" in path else OSError
    assert sorted(told) == [("connect", kind, None), ("listen", kind, None)]


def test_missing_paths_and_folders_are_named(folder: Path) -> None:
    missing = str(folder / "missing" / "s")

    async def main() -> None:
        with pytest.raises(FileNotFoundError) as caught:
            await net.connect(path=missing)
        assert caught.value.filename == missing
        with pytest.raises(FileNotFoundError) as caught:
            await net.create_server().listen(path=missing)
        assert caught.value.filename == missing

    multiloop.run(main)


@loops
def test_a_full_backlog_is_waited_for(folder: Path, loop: Any) -> None:
    path = str(folder / "s")

    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen(0)
            first = await net.connect(path=path)
            second = net.connect(path=path)
            await asyncio.sleep(0.02)
            assert not second.done(), "taken for connected although the backlog is full"
            server.accept()[0].close()
            (await second).destroy()
            first.destroy()

    multiloop.run(main, loop=loop)


def test_abstract_names_have_no_file() -> None:
    async def main() -> None:
        name = f"\0multiloop-test-{os.getpid()}"
        server = net.create_server(_echo)
        await server.listen(path=name)
        async with net.connect(path=name) as client:
            client.write(b"x")
            assert await client.read(1) == b"x"
        await server.close()

    multiloop.run(main)


def test_a_unix_socket_cannot_be_reset(folder: Path) -> None:
    async def main() -> None:
        server = net.create_server(_echo)
        await server.listen(path=str(folder / "s"))
        client = await net.connect(path=str(folder / "s"))
        with pytest.raises(UsageError, match="no reset"):
            client.reset_and_destroy()
        client.set_no_delay().set_keep_alive()  # means nothing here, and harms nothing
        client.destroy()
        await server.close()

    multiloop.run(main)
