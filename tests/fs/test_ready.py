"""Reads of what is in memory: made on the loop, without a thread, and never with a wait."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.support import descriptors_left, open_descriptors

import multiloop
from multiloop import fs
from multiloop.fs import _ready

WITH_PROMISE = {"ext2/ext3", "ext4", "xfs", "btrfs", "f2fs"}


def kind_of_file_system(path: Path) -> str:
    done = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    if _ready.whole is None:
        pytest.skip("the pure form, or a system without the promise: a thread makes every call")
    if (kind := kind_of_file_system(tmp_path)) not in WITH_PROMISE and not (kind == "tmpfs" and is_without_swap()):
        pytest.skip(f"{kind}: a thread makes every call")
    return tmp_path


def in_memory(path: Any) -> bytes | None:
    """The same for what is in memory: the kernel may still say "not now" while somebody renames or makes names nearby."""
    for _ in range(1000):
        if (data := whole(path)) is not None:
            return data
    return None


def is_without_swap() -> bool:
    return "SwapTotal:             0 kB" in Path("/proc/meminfo").read_text()


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def whole(path: Any) -> bytes | None:
    assert _ready.whole is not None
    return _ready.whole(path)


def test_looking_at_opening_and_reading_what_is_in_memory_takes_no_thread(place: Path) -> None:
    path = written(place / "small", b"x" * 4096)
    script = """if True:
        import sys, multiloop
        from multiloop import fs
        from multiloop.loop._threads import Threads
        taken = []
        submit = Threads.submit
        Threads.submit = lambda self, job: (taken.append(job), submit(self, job))
        async def main():
            path = sys.argv[1]
            for _ in range(100):
                assert len(await fs.read_file(path)) == 4096
                assert (await fs.stat(path)).size == (await fs.lstat(path)).size == 4096
                assert await fs.exists(path)
                async with fs.open(path) as file:
                    assert await file.read(10) == b"x" * 10
            assert len(taken) < 100  # of 700: the kernel may say "not now" while names change nearby
        multiloop.run(main)
    """
    subprocess.run([sys.executable, "-c", script, path], check=True)


@pytest.mark.parametrize("form", ["str", "bytes", "PathLike", "not ASCII", "not text"])
def test_every_form_of_a_path_is_read(place: Path, form: str) -> None:
    name: Any = {"not ASCII": "grüße", "not text": os.fsdecode(b"\xff\xfe")}.get(form, "plain")
    path = written(place / name, b"content")
    given: Any = {"bytes": os.fsencode(path), "PathLike": path}.get(form, str(path))
    assert in_memory(given) == b"content"


def test_what_is_not_a_small_file_in_memory_is_left_to_a_thread(place: Path) -> None:
    (place / "folder").mkdir()
    (place / "link").symlink_to(place / "nowhere")
    assert whole(place / "missing") is None
    assert whole(place / "link") is None
    assert whole(place / "folder") is None
    assert whole(written(place / "empty", b"")) is None
    assert whole(written(place / "large", b"x" * (64 * 1024 + 1))) is None
    assert in_memory(written(place / "just not large", b"x" * 64 * 1024)) == b"x" * 64 * 1024
    assert whole(f"{place}/nul\0byte") is None
    assert whole("/proc/self/status") is None
    assert whole("/dev/zero") is None
    assert whole(17.5) is None


def test_a_file_in_shared_memory_is_read_at_once_where_nothing_is_swapped_out() -> None:
    if _ready.whole is None or not os.path.isdir("/dev/shm"):
        pytest.skip("the pure form, or a system without the promise: a thread makes every call")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = written(Path(folder, "file"), b"x" * 5000)
        assert in_memory(path) == (b"x" * 5000 if is_without_swap() else None)


def test_a_fifo_is_not_opened_by_the_attempt(place: Path) -> None:
    os.mkfifo(place / "fifo")
    opened = threading.Event()

    def write() -> None:
        with open(place / "fifo", "wb") as fifo:
            opened.set()
            fifo.write(b"sent")

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(100):
        assert whole(place / "fifo") is None
    assert not opened.is_set()
    with open(place / "fifo", "rb") as fifo:
        assert fifo.read() == b"sent"
    writer.join()


def test_a_file_that_is_not_in_memory_is_read_by_a_thread(place: Path) -> None:
    async def main() -> None:
        if kind_of_file_system(place) == "tmpfs":
            pytest.skip("what is on a tmpfs is always in memory")
        path = place / "cold"
        for _ in range(100):  # the kernel drops what nobody else holds at that moment
            with open(path, "wb") as file:
                file.write(b"c" * 40_000)
                file.flush()
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if whole(path) is None:
                break
        assert whole(path) is None
        assert await fs.read_file(path) == b"c" * 40_000
        assert in_memory(path) == b"c" * 40_000

    multiloop.run(main)


def test_reading_in_a_row_lets_the_timers_fire(place: Path) -> None:
    async def main() -> None:
        path = written(place / "small", b"x")
        fired = asyncio.Event()
        multiloop.timers.set_timeout(fired.set, 0.005)
        while not fired.is_set():  # would go on for ever if a read that is done at once did not give way
            await fs.read_file(path)

    multiloop.run(main)


def test_a_callback_comes_after_the_call_that_started_it(place: Path) -> None:
    async def main() -> None:
        path = written(place / "small", b"x")
        got: list[Any] = []
        operation = fs.read_file(path, callback=lambda error, data: got.append((error, data)))
        assert not got
        assert not operation.done()
        await asyncio.sleep(0)
        assert got == [(None, b"x")]

    multiloop.run(main)


def test_more_reads_than_a_turn_allows_all_arrive(place: Path) -> None:
    async def main() -> None:
        paths = [written(place / str(index), str(index).encode()) for index in range(400)]
        assert await asyncio.gather(*[fs.read_file(path) for path in paths]) == [p.name.encode() for p in paths]

    multiloop.run(main)


def test_a_read_cancelled_before_it_arrives_is_dropped(place: Path) -> None:
    async def main() -> None:
        path = written(place / "small", b"x")
        operation = fs.read_file(path)
        assert operation.cancel()
        with pytest.raises(asyncio.CancelledError):
            await operation
        assert await fs.read_file(path) == b"x"

    multiloop.run(main)


def test_a_handle_reads_on_from_where_the_last_read_ended(place: Path) -> None:
    async def main() -> None:
        async with fs.open(written(place / "file", b"0123456789")) as file:
            assert await file.read(4) == b"0123"
            assert await file.read(2, 8) == b"89"
            assert await file.read(4) == b"4567"
            assert await file.read(4) == b"89"
            assert await file.read(4) == b""

    multiloop.run(main)


def test_a_read_of_a_handle_does_not_overtake_its_write(place: Path) -> None:
    async def main() -> None:
        async with fs.open(written(place / "file", b"old"), "r+") as file:
            for turn in range(200):
                data = b"%03d" % turn
                _, got = await asyncio.gather(file.write(data, 0), file.read(3, 0))
                assert got == data

    multiloop.run(main)


def test_a_closed_handle_refuses_to_read_what_is_in_memory(place: Path) -> None:
    async def main() -> None:
        file = await fs.open(written(place / "file", b"x"))
        await file.close()
        with pytest.raises(multiloop.errors.ClosedError):
            await file.read(1)

    multiloop.run(main)


def test_looking_follows_links_or_does_not(place: Path) -> None:
    async def main() -> None:
        (place / "link").symlink_to(written(place / "file", b"12345"))
        assert (await fs.stat(place / "link")).size == 5
        assert (await fs.lstat(place / "link")).is_symbolic_link()
        (place / "broken").symlink_to(place / "nowhere")
        assert (await fs.lstat(place / "broken")).is_symbolic_link()
        assert not await fs.exists(place / "broken")
        with pytest.raises(FileNotFoundError):
            await fs.stat(place / "broken")

    multiloop.run(main)


def test_what_is_not_a_file_is_looked_at_but_not_opened(place: Path) -> None:
    async def main() -> None:
        assert _ready.opened is not None
        os.mkfifo(place / "fifo")
        assert (await fs.stat(place / "fifo")).is_fifo()
        assert (await fs.stat(place)).is_directory()
        assert _ready.opened(place / "fifo", os.O_RDONLY) is None
        assert _ready.opened(place, os.O_RDONLY) is None

    multiloop.run(main)


@pytest.mark.parametrize(
    "flags", [os.O_RDWR, os.O_WRONLY, os.O_TRUNC, os.O_CREAT, os.O_DIRECT, os.O_SYNC, os.O_TMPFILE]
)
def test_only_plain_reading_is_opened_at_once(place: Path, flags: int) -> None:
    assert _ready.opened is not None
    path = written(place / "file", b"kept")
    assert _ready.opened(path, flags) is None
    assert path.read_bytes() == b"kept"


def test_an_open_cancelled_before_it_arrives_leaves_no_descriptor(place: Path) -> None:
    path = written(place / "file", b"x")

    async def main() -> None:
        await fs.read_file(path)
        before = open_descriptors()
        for _ in range(50):
            operation = fs.open(path)
            assert operation.cancel()
        assert not await asyncio.to_thread(descriptors_left, before)

    multiloop.run(main)


def test_a_file_without_a_name_is_closed_by_a_thread(place: Path) -> None:
    async def main() -> None:
        file = await fs.open(written(place / "file", b"x"))
        (place / "file").unlink()
        assert file._close_at_once() is None
        assert await file.read(1) == b"x"
        await file.close()
        assert file.closed

    multiloop.run(main)


def test_closing_waits_for_the_read_in_flight(place: Path) -> None:
    async def main() -> None:
        data = os.urandom(1_000_000)
        for _ in range(20):
            file = await fs.open(written(place / "file", data))
            read = file.read(len(data))  # too large for the loop: a thread has it
            closed = file.close()
            assert await read == data
            await closed

    multiloop.run(main)


def test_a_file_below_a_directory_is_read_whole_with_its_time_or_not_at_all(place: Path) -> None:
    root = place / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a").write_bytes(b"x" * 1000)
    os.utime(root / "sub" / "a", ns=(7, 1_234_567_890_123_456_789))
    (root / "empty").write_bytes(b"")
    (place / "secret").write_bytes(b"SECRET")
    (root / "link").symlink_to("sub/a")
    (root / "out").symlink_to(place)
    os.mkfifo(root / "fifo")
    before = open_descriptors()
    read = _ready.below_whole
    assert read is not None
    for limit in (1000, 64 * 1024):
        found = next(filter(None, (read(root, b"sub/a", limit) for _ in range(1000))), None)
        assert found == (b"x" * 1000, 1_234_567_890_123_456_789)
    for path in (b"sub", b"empty", b"missing", b"link", b"out/secret", b"../secret", b"fifo", b"sub/a/", b"a\0b"):
        assert not any(read(root, path, 64 * 1024) for _ in range(10)), path
    assert read(root, b"sub/a", 999) is None
    assert read(place / "nowhere", b"sub/a", 1000) is None
    assert open_descriptors() == before
