"""The guard names calls that block on a loop, once for each place, with what to use instead; and nothing else."""

from __future__ import annotations

import asyncio
import concurrent.futures
import fcntl
import glob
import logging
import os
import queue
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import LOOPS, environment

import multiloop
from multiloop import fs, health
from multiloop.errors import BlockingCallError, UsageError
from multiloop.health import _guard


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[logging.LogRecord]]:
    """What the guard logs."""
    caught: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = caught.append  # type: ignore[method-assign]
    monkeypatch.setattr(_guard.log, "handlers", [handler])
    monkeypatch.setattr(_guard.log, "propagate", False)
    return caught


def guarded(call: Callable[[], Any], loop: Any = "auto", **options: Any) -> tuple[health.BlockingCall, ...]:
    """Make a call on a guarded loop; returns what was found."""

    async def main() -> None:
        call()

    with health.guard_blocking_calls(**options) as guard:
        multiloop.run(main, loop=loop)
    return guard.found


def refused(function: Callable[..., Any], *arguments: Any) -> None:
    try:
        function(*arguments)
    except OSError:
        pass


def closed_port() -> tuple[str, int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()  # type: ignore[no-any-return]


def blocking_connect() -> None:
    with socket.socket() as sock:
        sock.settimeout(0.5)
        refused(sock.connect, closed_port())


def blocking_receive() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"x")
        assert ours.recv(1) == b"x"


def wait_for_event() -> None:
    threading.Event().wait(0.001)


def wait_for_queue() -> None:
    with pytest.raises(queue.Empty):
        queue.Queue[int]().get(timeout=0.001)


def wait_for_future() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as executor, health.allow_blocking_calls():
        future = executor.submit(time.sleep, 0.05)
        _result_of(future)


def _result_of(future: concurrent.futures.Future[None]) -> None:
    token = _guard._allowed.set(False)
    future.result()
    _guard._allowed.reset(token)


def wait_for_thread() -> None:
    thread = threading.Thread(target=time.sleep, args=(0.05,))
    thread.start()
    thread.join()


def lock_a_file() -> None:
    descriptor = os.memfd_create("locked")
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.close(descriptor)


def remove_a_tree() -> None:
    with health.allow_blocking_calls():
        os.makedirs("tree/below")
    shutil.rmtree("tree")


SEEN = {
    "open": (lambda: open(__file__).close(), "await fs.read_file(path)"),
    "os.open": (lambda: os.close(os.open(__file__, os.O_RDONLY)), "fs.open"),
    "Path.write_text": (lambda: Path("written").write_text("x"), "await fs.write_file(path, data)"),
    "append": (lambda: open("written", "a").close(), "await fs.append_file(path, data)"),
    "time.sleep": (lambda: time.sleep(0.001), "await timers.sleep(seconds)"),
    "connect": (blocking_connect, "await net.connect(port, host)"),
    "recv": (blocking_receive, "net.Socket"),
    "getaddrinfo": (lambda: refused(socket.getaddrinfo, "localhost", 80), "await dns.lookup(name)"),
    "gethostbyname": (lambda: refused(socket.gethostbyname, "localhost"), "await dns.lookup(name)"),
    "subprocess.run": (lambda: subprocess.run(["true"], check=True), "await child_process.exec_file"),
    "os.system": (lambda: os.system("true"), "await child_process.exec_file"),
    "sqlite3": (lambda: sqlite3.connect(":memory:").close(), "await multiloop.offload"),
    "Event.wait": (wait_for_event, "asyncio.Event"),
    "Queue.get": (wait_for_queue, "asyncio.Queue"),
    "Future.result": (wait_for_future, "asyncio.wrap_future"),
    "Thread.join": (wait_for_thread, "await multiloop.offload(thread.join)"),
    "flock": (lock_a_file, "await multiloop.offload"),
    "listdir": (lambda: os.listdir("."), "await fs.readdir(path)"),
    "glob": (lambda: glob.glob("*"), "await fs.glob(pattern)"),
    "rmtree": (remove_a_tree, "await fs.rm(path, recursive=True)"),
}


@pytest.mark.parametrize("name", SEEN)
def test_what_blocks_is_named_with_what_to_use_instead(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: list[logging.LogRecord]
) -> None:
    monkeypatch.chdir(tmp_path)
    call, instead = SEEN[name]
    found = guarded(call)
    assert found, "nothing was found"
    assert found[0].file == __file__
    assert instead in found[0].instead
    assert records[0].getMessage() == str(found[0])
    assert f"blocks the event loop at {__file__}:{found[0].line} in " in str(found[0])
    assert records[0].stack_info


def quiet_calls() -> None:
    """What looks as if it blocked, and does not."""
    import wave  # noqa: F401 - not loaded before: importing it opens files

    time.sleep(0)
    os.close(os.open("/dev/null", os.O_RDONLY))
    with socket.socket() as sock:
        sock.setblocking(False)
        refused(sock.connect, closed_port())
        refused(sock.recv, 1)
    socket.getaddrinfo("127.0.0.1", 80)
    socket.getaddrinfo("::1", 80, type=socket.SOCK_STREAM)
    thread = threading.Thread(target=int)
    thread.start()
    event = threading.Event()
    event.set()
    event.wait()
    items: queue.Queue[int] = queue.Queue()
    items.put(1)
    items.get()
    while thread.is_alive():
        pass
    thread.join()


@pytest.mark.parametrize("loop", LOOPS)
def test_what_does_not_block_is_not_named(loop: Any, records: list[logging.LogRecord]) -> None:
    sys.modules.pop("wave", None)
    assert guarded(quiet_calls, loop) == ()


@pytest.mark.parametrize("loop", LOOPS)
def test_asynchronous_calls_are_not_named(loop: Any, records: list[logging.LogRecord]) -> None:
    async def main() -> None:
        await fs.read_file(__file__)
        await asyncio.to_thread(time.sleep, 0.001)
        await multiloop.offload(lambda: open(__file__).close())
        process = await asyncio.create_subprocess_exec("true")
        await process.wait()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        assert await reader.read() == b"x"
        writer.close()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x")
        writer.close()

    async def program() -> None:
        nonlocal server
        server = await asyncio.start_server(greet, "127.0.0.1")
        await main()
        server.close()

    server: Any = None
    with health.guard_blocking_calls() as guard:
        multiloop.run(program, loop=loop)
    assert guard.found == ()


def test_without_a_loop_anything_may_block(records: list[logging.LogRecord]) -> None:
    with health.guard_blocking_calls(raises=True) as guard:
        time.sleep(0.001)
        open(__file__).close()
    assert guard.found == ()


def test_each_place_is_named_once(records: list[logging.LogRecord]) -> None:
    def often() -> None:
        for _ in range(5):
            time.sleep(0.001)
        time.sleep(0.001)

    found = guarded(often)
    assert [call.line for call in found] == [found[0].line, found[0].line + 1]
    assert len(records) == 2


def test_raising_happens_before_anything_is_done_and_each_time(tmp_path: Path) -> None:
    path = tmp_path / "never"

    def twice() -> None:
        for _ in range(2):
            with pytest.raises(BlockingCallError, match="never") as raised:
                path.write_text("x")
            assert raised.value.call.instead.startswith("await fs.write_file")

    assert len(guarded(twice, raises=True)) == 2
    assert not path.exists()


def test_ignored_files_and_allowed_lines_are_not_named(records: list[logging.LogRecord]) -> None:
    def allowed() -> None:
        with health.allow_blocking_calls():
            time.sleep(0.001)

    assert guarded(allowed, raises=True) == ()
    assert guarded(lambda: time.sleep(0.001), raises=True, ignore=["elsewhere.py", "test_guard"]) == ()
    with pytest.raises(UsageError, match="several texts"):
        health.guard_blocking_calls(ignore="test")


def test_a_call_of_a_package_is_put_down_to_the_line_that_called_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: list[logging.LogRecord]
) -> None:
    package = tmp_path / "site-packages" / "driver"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import time\n\ndef query():\n    time.sleep(0.001)\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    monkeypatch.chdir(tmp_path)
    import driver  # type: ignore[import-not-found]

    [call] = guarded(lambda: driver.query())
    assert (call.file, call.through) == (__file__, "driver")
    assert "(through driver)" in str(call)


def test_switched_off_it_leaves_nothing_wrapped(records: list[logging.LogRecord]) -> None:
    def everything() -> list[Any]:
        owners: list[Any] = [socket.socket, threading.Condition, threading.Thread, subprocess.Popen]
        return [dict(vars(owner)) for owner in owners] + [time.sleep]

    before = everything()
    outer = health.guard_blocking_calls()
    with health.guard_blocking_calls() as inner:
        assert inner.is_on
        assert everything() != before
    assert not inner.is_on
    assert everything() != before
    assert guarded(lambda: time.sleep(0.001), raises=False)
    outer.off()
    outer.off()
    assert everything() == before
    count = len(outer.found)

    async def main() -> None:
        time.sleep(0.001)

    asyncio.run(main())
    assert len(outer.found) == count


def test_what_somebody_wrapped_over_ours_is_left_in_peace(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = health.guard_blocking_calls()
    ours = threading.Thread.join

    def theirs(self: threading.Thread, timeout: float | None = None) -> None:
        ours(self, timeout)

    monkeypatch.setattr(threading.Thread, "join", theirs)
    guard.off()
    assert threading.Thread.join is theirs

    async def main() -> None:
        wait_for_thread()  # through a wrapper of ours that does nothing any more

    asyncio.run(main())
    assert guard.found == ()
    monkeypatch.undo()
    monkeypatch.setattr(threading.Thread, "join", ours.__wrapped__)  # type: ignore[attr-defined]
    threading.Thread.join = ours.__wrapped__  # type: ignore[attr-defined,method-assign]


def test_sleep_as_an_attribute_of_a_class_still_takes_one_argument(records: list[logging.LogRecord]) -> None:
    with health.guard_blocking_calls():

        class Patient:
            pause = time.sleep

        Patient().pause(0)


def test_statistics_count_the_places(records: list[logging.LogRecord]) -> None:
    async def main() -> None:
        assert health.statistics().blocking_calls == 0
        time.sleep(0.001)
        assert health.statistics().blocking_calls == 1

    with health.guard_blocking_calls():
        multiloop.run(main)


def test_a_process_that_has_no_guard_loads_none_of_it() -> None:
    code = "from multiloop import health; import sys; sys.exit('multiloop.health._guard' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), timeout=60).returncode == 0
