"""The machine: its cores, and what a reader must know about it to judge the figures.

What lives here: which core serves and which one loads; a description. What must not: measuring.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def cores() -> tuple[int, int]:
    """Return the core for servers and the core for load: the first and the second that this process may use.

    With one core both are the same: CPU figures still hold, rates and latencies do not.
    """
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[1] if len(usable) > 1 else usable[0]


def load_average() -> float:
    """How many processes wanted a core in the last minute: above one before a run, figures are noisy."""
    return os.getloadavg()[0]


def describe() -> dict[str, str]:
    """What the report says about the machine, from the outside in."""
    kernel = platform.release().split("-", 1)[0]
    return {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {kernel} on {platform.machine()}",
        "python": f"CPython {platform.python_version()}",
    }


def commit() -> str:
    """The commit that is measured, with a mark when the checkout has changes."""
    head = _git("rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    return head + ("+" if _git("status", "--porcelain", "--untracked-files=no", "src") else "")


def _git(*args: str) -> str:
    try:
        done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"
