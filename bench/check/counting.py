"""Counting: the scenarios under callgrind, in an environment of pinned versions.

What lives here: building the marks, running, reading what callgrind wrote. What must not: judging the counts.

Why counts repeat to the last digit: one process, hashes and addresses fixed (PYTHONHASHSEED, no ASLR), an environment of
a few variables, and only the steady part of each scenario counted.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..harness.environments import HOME, make_check_environment
from ..harness.machine import ROOT
from ..harness.processes import Failed, Missing, run
from .baseline import Counts, Environment

BASELINE = ROOT / "bench" / "check" / "baseline.json"
COUNTS = HOME / "counts"  # always the same: even the length of a path moves what lies in memory

_DESCRIBE = """
import hashlib, importlib.metadata, json, platform, subprocess, sysconfig
import multiloop._speed as speed
flags = " ".join(str(sysconfig.get_config_var(name)) for name in ("OPT", "PY_CFLAGS_NODIST", "PGO_PROF_USE_FLAG"))
print(json.dumps({
    "python": f"CPython {platform.python_version()}",
    "python compiler": platform.python_compiler(),
    "python flags": hashlib.sha256(flags.encode()).hexdigest()[:8],
    "form": speed.form(),
    "machine": platform.machine(),
    **{name: importlib.metadata.version(name) for name in ("uvloop", "httptools", "websockets")},
}))
"""


def count(only: Sequence[str] = ()) -> tuple[Environment, Counts]:
    """Count the scenarios. Returns what they were counted in, and instructions for doing each once.

    Raises Missing without valgrind or a C compiler, Failed when a scenario fails, ValueError for a name that is none.
    """
    for command, package in (("valgrind", "valgrind"), ("setarch", "util-linux"), ("cc", "gcc")):
        if shutil.which(command) is None:
            raise Missing(f"{command} is not there: apt-get install {package}")
    python = make_check_environment(print) / "python"
    environment: Environment = json.loads(run([python, "-c", _DESCRIBE], cwd=HOME))
    environment["C compiler"] = run(["cc", "-dumpfullversion"]).strip()
    shutil.rmtree(COUNTS, ignore_errors=True)
    COUNTS.mkdir()
    return environment, _under_callgrind(python, COUNTS, only)


def _under_callgrind(python: Path, folder: Path, only: Sequence[str]) -> Counts:
    marks = folder / "marks.so"
    run(["cc", "-shared", "-fPIC", "-O1", "-o", marks, ROOT / "bench" / "check" / "marks.c"])
    variables = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [
        "setarch", "-R", "valgrind", "-q", "--tool=callgrind", "--instr-atstart=no",
        f"--callgrind-out-file={folder / 'counts'}", python, "-m", "bench.check.scenarios", marks, *only,
    ]  # fmt: skip
    done = subprocess.run(
        [str(word) for word in command], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        raise Failed(f"the scenarios failed: {(done.stdout + done.stderr).strip()[-1500:]}")
    times = dict(line.split() for line in done.stdout.splitlines() if re.fullmatch(r"[\w-]+ \d+", line))
    totals = {name: total for name, total in map(read_counts, sorted(folder.glob("counts.*"))) if name}
    if not totals or set(totals) != set(times):
        raise Failed(f"callgrind counted {sorted(totals)}, the scenarios were {sorted(times)}: {done.stderr[-400:]}")
    return {name: round(totals[name] / int(times[name]), 1) for name in times}


def read_counts(path: Path) -> tuple[str, int]:
    """The scenario and the instructions of a file of callgrind's; no name for one that no mark has ended."""
    text = path.read_text()
    name = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.MULTILINE)
    total = re.search(r"^totals: (\d+)", text, re.MULTILINE)
    return (name.group(1), int(total.group(1))) if name and total else ("", 0)
