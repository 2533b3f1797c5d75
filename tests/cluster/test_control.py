"""The control socket."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import stat
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from multiloop.cluster import _control
from multiloop.cluster._control import CommandFailed, ControlServer, call
from multiloop.cluster._exit_codes import ExitCode
from multiloop.errors import ConfigError


async def handle(command: str, arguments: Mapping[str, Any]) -> Any:
    if command == "fail":
        raise CommandFailed("it cannot be done")
    if command == "raise":
        raise ValueError("a bug")
    return {"command": command, **arguments}


class Running:
    """A control server on a loop in a thread."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()))

    async def _live(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = ControlServer(self.path, handle)
        server.start()
        self.path = server.path
        self._started.set()
        await self._stop.wait()
        server.close()
        while len(asyncio.all_tasks()) > 1:  # connections that were on their way are accepted, and cut
            await asyncio.sleep(0)
        for _ in range(3):  # their transports tell of their end one turn later
            await asyncio.sleep(0)

    def __enter__(self) -> str:
        self._thread.start()
        assert self._started.wait(5)
        assert self.path is not None
        return self.path

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


@pytest.fixture(autouse=True)
def _runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_a_command_and_its_arguments_get_an_answer(tmp_path: Path) -> None:
    with Running(str(tmp_path / "c.sock")) as path:
        assert call(path, "scale", workers=4) == {"command": "scale", "workers": 4}


def test_whose_number_is_not_that_of_the_listening_process_is_gone_with_its_socket(tmp_path: Path) -> None:
    path, elsewhere = str(tmp_path / "c.sock"), {"pid": os.getppid()}  # as another namespace counts
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(path)
        listener.listen()
        stopped = pool.submit(call, path, "stop", until_gone=True)
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(1000)
            connection.sendall(json.dumps({"ok": True, "result": elsewhere}).encode() + b"\n")
            assert not stopped.done()
        assert stopped.result(30) == elsewhere


def test_the_socket_is_private_and_gone_at_the_end() -> None:
    with Running(None) as path:
        assert path.endswith(f"/multiloop/{os.getpid()}.sock")
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
        assert call(None, "status") == {"command": "status"}
    assert not os.path.exists(path)


def test_a_failure_is_one_line(tmp_path: Path) -> None:
    with Running(str(tmp_path / "c.sock")) as path:
        with pytest.raises(CommandFailed, match="it cannot be done"):
            call(path, "fail")
        with pytest.raises(CommandFailed, match="log says why"):
            call(path, "raise")


def test_no_server_is_one_line_and_its_exit_code(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no server of this user runs here") as caught:
        call(None, "status")
    assert caught.value.exit_code == ExitCode.NO_SERVER
    with pytest.raises(ConfigError, match="there is no such socket"):
        call(str(tmp_path / "nothing"), "status")


def test_the_socket_of_a_dead_server_is_recognized_and_removed(tmp_path: Path) -> None:
    stale = os.path.join(_control.folder(), "1.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(stale)
    with pytest.raises(ConfigError, match="the one that made this socket is gone"):
        call(stale, "status")
    with Running(None) as path:
        assert _control.running() == [path]
    assert not os.path.exists(stale)


def test_it_answers_when_no_descriptor_is_left_and_one_after_the_other(tmp_path: Path) -> None:
    ask = b'{"command": "status"}\n'
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (
        Running(str(tmp_path / "c.sock")) as path,
        socket.socket(socket.AF_UNIX) as first,
        socket.socket(socket.AF_UNIX) as second,
    ):
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            first.connect(path)
            first.sendall(ask)
            assert b"true" in first.recv(4096)
            second.connect(path)
            second.sendall(ask)
            began_s = time.thread_time_ns(), time.process_time_ns()
            second.settimeout(0.3)
            with pytest.raises(TimeoutError):  # the spare one is in use
                second.recv(4096)
            used_ns = time.process_time_ns() - began_s[1] - (time.thread_time_ns() - began_s[0])
            assert used_ns < 0.1e9, "a busy loop"
            first.close()
            second.settimeout(10)
            assert b"true" in second.recv(4096)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_several_servers_must_be_told_apart(tmp_path: Path) -> None:
    with Running(os.path.join(_control.folder(), "1.sock")), Running(os.path.join(_control.folder(), "2.sock")):
        with pytest.raises(ConfigError, match=r"choose one: --control .*1\.sock \| .*2\.sock"):
            call(None, "status")


def test_a_live_servers_socket_is_never_taken(tmp_path: Path) -> None:
    with Running(str(tmp_path / "c.sock")) as path:

        async def second() -> None:
            ControlServer(path, handle).start()

        with pytest.raises(ConfigError, match=r"--control .*a server listens there already"):
            asyncio.run(second())
        assert call(path, "status")


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "multiloop").mkdir()
    (tmp_path / "multiloop").chmod(0o755)
    with pytest.raises(ConfigError, match="not a private folder"):
        _control.folder()


def test_a_missing_runtime_folder_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "nothing"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert _control.folder() == str(tmp_path / f"multiloop-{os.getuid()}")


@pytest.mark.parametrize("line", [b"nonsense\n", b"[1]\n", b"{}\n", b"\xff\xfe\n", b'"text"\n'])
def test_a_request_that_is_none_gets_an_answer_and_the_next_one_too(tmp_path: Path, line: bytes) -> None:
    with Running(str(tmp_path / "c.sock")) as path, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(path)
        with sock.makefile("rwb") as file:
            file.write(line + b'{"command": "status"}\n')
            file.flush()
            assert json.loads(file.readline())["ok"] is False
            assert json.loads(file.readline())["ok"] is True


def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    with Running(str(tmp_path / "c.sock")) as path, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(path)
        with pytest.raises(ConnectionError):
            sock.sendall(b"x" * 8_000_000)
