"""The environments of the benchmarks: the project as a user installs it, and its peers, each pinned in peers.toml.

What lives here: making them, once for each state of the sources and of peers.toml, in `.bench/`. What must not: starting
what is measured.

The project is installed from a clean copy of the checkout with `pip install .`, compiled where a compiler is: never the
working tree itself, whose build folder would be mixed in.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from . import postgres
from .machine import ROOT
from .processes import Failed, Missing, run

HOME = ROOT / ".bench"
PEERS = ROOT / "bench" / "peers.toml"
APPS = ROOT / "bench" / "apps"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tools:
    """Where everything is. What was not asked for is not there."""

    home: Path = HOME

    @property
    def ours(self) -> Path:
        """bin of the environment that multiloop is installed in."""
        return self.home / "ours" / "bin"

    @property
    def ours314(self) -> Path:
        """The same on CPython 3.14."""
        return self.home / "ours314" / "bin"

    @property
    def peers(self) -> Path:
        """bin of the environment of the Python peers."""
        return self.home / "peers" / "bin"

    @property
    def modules(self) -> Path:
        """The folder whose node_modules holds the npm peers."""
        return self.home / "npm"

    @property
    def node(self) -> Path:
        """The newest Node: npm's own package of it, not the machine's."""
        return next(iter(self.modules.glob("node_modules/node/bin/node")), self.modules / "node_modules/node/bin/node")

    @property
    def bun(self) -> Path:
        """Bun, from npm."""
        found = [self.modules / "node_modules/bun/bin" / name for name in ("bun.exe", "bun")]
        return next((path for path in found if path.exists()), found[0])


def versions() -> dict[str, dict[str, str]]:
    """peers.toml."""
    return tomllib.loads(PEERS.read_text())


def prepare(needs: Iterable[str], say: Say = print) -> dict[str, str]:
    """Make the environments that are needed. Returns for each that cannot be had the reason.

    Raises Failed when pip or npm fail: that is not an absence.
    """
    tools = Tools()
    missing: dict[str, str] = {}
    pins = versions()
    for need in sorted(set(needs)):
        try:
            if need == "ours":
                _make_ours(tools.home / "ours", sys.executable, {**_dependencies(pins), **pins["applications"]}, say)
            elif need == "ours314":
                more = {"numpy": pins["applications"]["numpy"]}
                _make_ours(tools.home / "ours314", _python314(), {**_dependencies(pins), **more}, say)
            elif need == "peers":
                _make_peers(tools.home / "peers", pins, say)
            elif need in ("node", "bun"):
                _make_npm(tools, pins["npm"], say)
            elif need == "postgres":
                postgres.binaries()
            elif shutil.which(need) is None:
                raise Missing(f"{need} is not there: apt-get install {pins['commands'][need]}")
        except Missing as error:
            missing[need] = str(error)
    return missing


def make_check_environment(say: Say = print) -> Path:
    """The environment of the instruction counts: the project and the libraries it stands on. Returns its bin."""
    folder = HOME / "check"
    _make_ours(folder, sys.executable, _dependencies(versions()), say)
    return folder / "bin"


def _dependencies(pins: dict[str, dict[str, str]]) -> dict[str, str]:
    # The same as the peers have: a newer uvloop must not win for us.
    return {name: pins["servers"][name] for name in ("uvloop", "httptools", "websockets")}


def _stamped(folder: Path, tag: str) -> bool:
    stamp = folder / "stamp"
    return stamp.exists() and stamp.read_text() == tag


def _stamp(folder: Path, tag: str) -> None:
    (folder / "stamp").write_text(tag)


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _pins(group: dict[str, str]) -> list[str]:
    return [f"{name}=={version}" for name, version in group.items()]


def sources() -> list[Path]:
    """What a build of the package is made of: what git knows, and what is new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "src", "setup.py", "pyproject.toml",
         "README.md", "LICENSE", "MANIFEST.in"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode:
        raise Failed(f"the benchmarks install what git lists: {listed.stderr.strip()}")
    return [ROOT / name for name in sorted(set(listed.stdout.split("\0"))) if name and (ROOT / name).is_file()]


def _make_ours(folder: Path, python: str, applications: dict[str, str], say: Say) -> None:
    files = sources()
    named = {file.relative_to(ROOT).as_posix(): file.read_bytes() for file in files}
    settings = _what_a_build_reads(named.pop("pyproject.toml"))
    base = _digest(settings, python.encode(), json.dumps(applications).encode())
    tag = base + _digest(*(name.encode() + content for name, content in named.items() if name != "README.md"))
    if _stamped(folder, tag):
        return
    say(f"installing multiloop into {folder.relative_to(ROOT)}")
    old = folder / "stamp"
    same_base = old.exists() and old.read_text().startswith(base)
    if not same_base:
        _new_environment(folder, python)
    with tempfile.TemporaryDirectory() as copy:
        for file in files:
            target = Path(copy, file.relative_to(ROOT))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        if same_base:
            _pip(folder, "--no-deps", "--force-reinstall", copy)
        else:
            _pip(folder, copy, *_pins(applications))
    _stamp(folder, tag)


def _what_a_build_reads(pyproject: bytes) -> bytes:
    # The rest of the file is about tests and style: it must not cost a new environment.
    data = tomllib.loads(pyproject.decode())
    return json.dumps([data["build-system"], data["project"], data["tool"]["setuptools"]], sort_keys=True).encode()


def _make_peers(folder: Path, pins: dict[str, dict[str, str]], say: Say) -> None:
    wanted = [pin for group in ("servers", "libraries", "applications") for pin in _pins(pins[group])]
    tag = _digest(*(pin.encode() for pin in wanted), sys.version.encode())
    if _stamped(folder, tag):
        return
    say(f"installing the Python peers into {folder.relative_to(ROOT)}")
    _new_environment(folder, sys.executable)
    _pip(folder, *wanted)
    _stamp(folder, tag)


def _make_npm(tools: Tools, pins: dict[str, str], say: Say) -> None:
    folder = tools.modules
    tag = _digest(json.dumps(pins).encode())
    if _stamped(folder, tag):
        return
    if shutil.which("npm") is None:
        raise Missing("npm is not there: apt-get install npm")
    say(f"installing Node, Bun and their packages into {folder.relative_to(ROOT)}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": pins}))
    run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder, timeout_s=600)
    for runtime in (tools.node, tools.bun):
        run([runtime, "--version"])
    _stamp(folder, tag)


def _new_environment(folder: Path, python: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        run([python, "-m", "venv", folder])
    except Failed:  # a Python whose ensurepip cannot be used
        shutil.rmtree(folder, ignore_errors=True)
        helper = HOME / "virtualenv"
        if not helper.exists():
            run([sys.executable, "-m", "venv", helper])
            run([helper / "bin/python", "-m", "pip", "install", "-q", "virtualenv"])
        run([helper / "bin/python", "-m", "virtualenv", "-q", "-p", python, folder])


def _pip(folder: Path, *wanted: str) -> None:
    run(
        [folder / "bin/python", "-m", "pip", "install", "-q", *wanted],
        env={"PIP_DISABLE_PIP_VERSION_CHECK": "1"}, timeout_s=1200,
    )  # fmt: skip
    if not (folder / "bin").is_dir():
        raise Failed(f"{folder} is no environment")


def _python314() -> str:
    """CPython 3.14: BENCH_PYTHON314, one on the path, or the one behind a .venv314 of the checkout."""
    asked = os.environ.get("BENCH_PYTHON314")
    for found in (asked, shutil.which("python3.14"), str(ROOT / ".venv314" / "bin" / "python")):
        if found and Path(found).exists():
            return run([found, "-c", "import sys; print(getattr(sys, '_base_executable', sys.executable))"]).strip()
    raise Missing("no CPython 3.14 (BENCH_PYTHON314=/path/to/python3.14 names one)")
