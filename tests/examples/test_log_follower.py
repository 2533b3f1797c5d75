"""The log follower prints each added line once, whatever happens to the files."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import environment

FOLLOWER = Path(__file__).parents[2] / "examples" / "log_follower.py"


class Running:
    """The follower, started, and what it prints."""

    def __init__(self, *arguments: str | Path) -> None:
        command = [sys.executable, str(FOLLOWER), "--all", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
        self.printed: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.printed.put(line.rstrip("\n"))

    def prints(self, *lines: str) -> None:
        """Exactly these lines are the next."""
        assert [self.printed.get(timeout=20) for _ in lines] == list(lines)

    def ends(self) -> None:
        """Ends with a signal, cleanly, and prints nothing more."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 128 + signal.SIGTERM
        self.reader.join(20)
        assert self.printed.empty()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "app.log"
    path.write_text("first\n")
    return path


@pytest.fixture
def running() -> Iterator[list[Running]]:
    started: list[Running] = []
    yield started
    for each in started:
        each.process.kill()
        each.process.wait()
        each.reader.join()


def add(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_a_line_is_printed_when_its_end_has_come(log: Path, running: list[Running]) -> None:
    running.append(follower := Running(log))
    follower.prints("first")
    add(log, "second\nthi")
    follower.prints("second")
    add(log, "rd\n")
    follower.prints("third")
    add(log, "".join(f"{number}\n" for number in range(20_000)))
    follower.prints(*map(str, range(20_000)))
    follower.ends()


def test_it_follows_the_name_through_rotation_and_the_file_through_truncation(
    log: Path, running: list[Running]
) -> None:
    running.append(follower := Running(log))
    follower.prints("first")
    log.rename(log.with_suffix(".1"))
    add(log.with_suffix(".1"), "last of the old\n")
    add(log, "first of the new\n")
    follower.prints("last of the old", "first of the new")
    log.write_text("")
    add(log, "anew\n")
    follower.prints("anew")
    log.unlink()
    add(log, "back\n")
    follower.prints("back")
    follower.ends()


def test_several_files_are_labelled_and_may_appear_later(log: Path, running: list[Running]) -> None:
    other = log.parent / "other.log"
    running.append(follower := Running(log, other, "--grep", "^[a-f]"))
    follower.prints("app.log: first")
    add(other, "zero\nearly\n")
    follower.prints("other.log: early")
    add(log.parent / "third.log", "nobody asked\n")
    add(log, "done\n")
    follower.prints("app.log: done")
    follower.ends()


def test_what_cannot_be_followed_is_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere" / "a.log"
    ran = subprocess.run(
        [sys.executable, str(FOLLOWER), str(missing)], capture_output=True, text=True, env=environment(), timeout=60
    )
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[0].endswith(f"No such file or directory: '{missing.parent}'")
    assert len(ran.stderr.splitlines()) == 1
