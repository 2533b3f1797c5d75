"""Where the time of a side goes: what perf sees of its processes under their load.

What lives here: a served side under its load while somebody samples its processes. What must not: verdicts.

perf's clock event needs no counters of the processor, so it works in virtual machines, too. It names C functions; those of
the compiled form are ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from .bench import Bench
from .environments import Tools, prepare
from .machine import cores
from .model import Row
from .processes import Failed, Missing, tree

_FILES, _TOP = 12, 45


def show(row: Row, side_name: str, seconds: float) -> int:
    """Measure one side of a row for longer, and print what its processes did meanwhile."""
    found = [side for side in row.sides if side.name == side_name]
    if not found:
        raise ValueError(f"{row.key} has no side {side_name!r}: {', '.join(side.name for side in row.sides)}")
    missing = prepare(found[0].needs)
    if missing:
        raise Missing("; ".join(missing.values()))
    server_core, load_core = cores()
    with tempfile.TemporaryDirectory(prefix="bench-profile-") as scratch:
        bench = Bench(Tools(), Path(scratch), server_core, load_core, window_s=seconds, windows=1, warm_s=1.0)
        sampler = _Sampler(Path(scratch), seconds)
        watcher = threading.Thread(target=sampler.watch, daemon=True)
        watcher.start()
        with bench.services:
            samples = found[0].measure(bench)
        sampler.over.set()
        watcher.join()
        print(f"{row.title}, {side_name}: {samples}")
        print(sampler.report())
    return 0


class _Sampler:
    """Waits for what the side starts, then samples it with perf."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self.seconds = seconds
        self.over = threading.Event()
        self.problem = "nothing was started"

    def watch(self) -> None:
        if shutil.which("perf") is None:
            self.problem = "perf is not there: apt-get install linux-perf"
            return
        me = os.getpid()
        time.sleep(3.0)  # the server is up and warm
        pids = [str(pid) for pid in tree(me) if pid != me and not _is_load(pid)]
        if not pids or self.over.is_set():
            return
        done = subprocess.run(
            ["perf", "record", "-q", "-e", "cpu-clock", "-F", "1999", "-o", str(self.folder / "perf.data"),
             "-p", ",".join(pids), "--", "sleep", str(max(1.0, self.seconds - 2.0))],
            capture_output=True, text=True,
        )  # fmt: skip
        self.problem = done.stderr.strip() if done.returncode else ""

    def report(self) -> str:
        """What perf saw: the share of each symbol. Raises Failed when it saw nothing."""
        if self.problem:
            raise Failed(f"no profile: {self.problem}")
        return "\n".join((*self._shares("dso", _FILES), "", *self._shares("dso,symbol", _TOP)))

    def _shares(self, by: str, most: int) -> list[str]:
        told = subprocess.run(
            ["perf", "report", "-i", str(self.folder / "perf.data"), "--no-children", "--stdio", "-g", "none", "--sort", by],
            capture_output=True, text=True,
        )  # fmt: skip
        lines = [line.rstrip(" -") for line in told.stdout.splitlines() if line.strip() and not line.startswith("#")]
        return lines[:most]


def _is_load(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return True
    return any(word.endswith((b"wrk", b"ab", b"websocket_load.py")) or b"postgres" in word for word in words)
