"""Programs that are measured: started, watched, ended, with everything they started.

What lives here: the process tree, its CPU time and memory, and a running program as a context. What must not: load.

CPU time is user and system time of the whole tree, and of children that were waited for: nothing that a server pushes
into another process is free.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_STOP_S = 5.0
_ANSWER_S = 30.0


class Failed(RuntimeError):
    """A program did not do what it should: the message has the end of what it said."""


class Missing(RuntimeError):
    """Something that a side needs is not on this machine: the message says how to get it."""


def tree(pid: int) -> list[int]:
    """Return a process and everything below it; what ends meanwhile is left out."""
    found = [pid]
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                found += tree(int(child))
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def cpu_s(pid: int) -> float:
    """Seconds of CPU that the tree has used, user and system, with children that were waited for."""
    total = 0
    for member in tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += ticks_of(Path(f"/proc/{member}/stat").read_text())
    return total / _TICKS


def ticks_of(stat: str) -> int:
    """utime, stime, cutime and cstime of a line of /proc/PID/stat (the name in it may hold spaces and brackets)."""
    fields = stat.rpartition(") ")[2].split()
    return sum(int(field) for field in fields[11:15])


def memory_kb(pid: int, *, shared_once: bool = False) -> int:
    """KiB of resident memory of the tree; with `shared_once` each shared page counts in parts (PSS)."""
    name, pattern = ("smaps_rollup", r"Pss:\s+(\d+)") if shared_once else ("status", r"VmRSS:\s+(\d+)")
    total = 0
    for member in tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found = re.search(pattern, Path(f"/proc/{member}/{name}").read_text())
            total += int(found.group(1)) if found else 0
    return total


def free_port() -> int:
    """A port that nobody has right now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def run(
    command: Sequence[object],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    core: int | None = None,
    timeout_s: float = 300.0,
) -> str:
    """Run a program to its end and return what it printed.

    Raises Failed when it takes too long, cannot be started or ends with another code than 0.
    """
    words = pinned(command, core)
    try:
        done = subprocess.run(
            words, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{_short(words)} took over {timeout_s:.0f} s") from None
    except FileNotFoundError as error:
        raise Failed(f"{error.filename} is not there") from error
    if done.returncode:
        raise Failed(f"{_short(words)} ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-800:]}")
    return done.stdout


def pinned(command: Sequence[object], core: int | None) -> list[str]:
    """The command line that keeps a program on one core."""
    words = [str(word) for word in command]
    return words if core is None else ["taskset", "-c", str(core), *words]


def _short(words: Sequence[str]) -> str:
    return " ".join(words)[-160:]


@dataclass(frozen=True, slots=True)
class Running:
    """A program that runs."""

    pid: int
    port: int
    log: Path

    def cpu_s(self) -> float:
        """Seconds of CPU of its tree."""
        return cpu_s(self.pid)


@contextlib.contextmanager
def started(
    command: Sequence[object],
    *,
    port: int,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    core: int | None = None,
) -> Iterator[Running]:
    """Start a program that listens on `port`; it runs inside the context and is gone, with its children, behind it.

    Raises Failed when it takes no connection in time.
    """
    words = pinned(command, core)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as out:
        process = subprocess.Popen(
            words, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=cwd,
            env={**os.environ, **(env or {})}, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for_port(process, words, port, log)
        yield Running(process.pid, port, log)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a program of ours to end, then end what is left of its tree."""
    left = tree(process.pid)
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    for member in {*left, *tree(process.pid)}:
        if (member != process.pid or process.poll() is None) and _is_of_session(member, process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
    process.wait()


def _is_of_session(pid: int, session: int) -> bool:
    # A number may have been given to somebody else since: only what is in the session that we made is ours.
    try:
        return os.getsid(pid) == session
    except (ProcessLookupError, PermissionError):
        return False


def _wait_for_port(process: subprocess.Popen[bytes], words: Sequence[str], port: int, log: Path) -> None:
    deadline = time.monotonic() + _ANSWER_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
            return
        except OSError as error:
            problem = str(error)
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip()[-800:]
            raise Failed(f"{_short(words)} does not listen ({problem}): {said}")
        time.sleep(0.05)
