"""make wheels: a wheel of multiloop for each CPython from 3.11 to 3.14 that is on this machine, each of them tried.

What lives here: finding interpreters, building, tagging (auditwheel: manylinux), and one start of what was built. What must
not: how the compiled parts are made (setup.py).

    python tools/wheels.py [INTERPRETER ...]

The wheels are in dist/. Ends with 1 when one could not be built or does not run in the compiled form, and names the
versions for which no interpreter was found: install it, or give its path as an argument.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WANTED = ("3.11", "3.12", "3.13", "3.14")
_WHO = (
    "import sys; print('%d.%d' % sys.version_info[:2], sys.executable) if sys.implementation.name == 'cpython' else 0"
)


def who_is(interpreter: str) -> tuple[str, str]:
    """('3.12', its own path) and the like; two empty strings for what does not run or is no CPython."""
    done = subprocess.run([interpreter, "-c", _WHO], capture_output=True, text=True, check=False)
    version, _, path = done.stdout.strip().partition(" ")
    return (version, path) if done.returncode == 0 else ("", "")


def found() -> list[str]:
    """Interpreters on the path and in pyenv's folder, the one that runs this first."""
    named = [path for version in WANTED if (path := shutil.which(f"python{version}"))]
    pyenv = sorted(map(str, Path.home().glob(".pyenv/versions/3.*/bin/python3")))
    return [sys.executable, *named, *pyenv]


def build(interpreter: str, scratch: Path) -> Path:
    """The wheel for an interpreter, with the tag of the oldest C library that it runs with."""
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # what was deleted since would be packed again
    pip = [sys.executable, "-m", "pip", "--python", interpreter, "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(scratch), str(ROOT)], check=True)
    [built] = scratch.glob("*.whl")
    if built.name.endswith("-any.whl"):
        raise SystemExit(f"{interpreter}: nothing was compiled (is there a C compiler, and Python's headers?)")
    if sys.platform == "linux":
        repaired = scratch / "repaired"
        repair = [sys.executable, "-m", "auditwheel", "repair", "-w", str(repaired), str(built)]
        subprocess.run(repair, check=True, capture_output=True, text=True)
        [built] = repaired.glob("*.whl")
    (ROOT / "dist").mkdir(exist_ok=True)
    return Path(shutil.copy2(built, ROOT / "dist"))


def tried(interpreter: str, wheel: Path, scratch: Path) -> str:
    """What the installed command says of itself."""
    room = scratch / "room"
    subprocess.run([sys.executable, "-m", "virtualenv", "-q", "-p", interpreter, str(room)], check=True)
    pip = [str(room / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-q", str(wheel)], check=True)
    said = subprocess.run([str(room / "bin" / "multiloop"), "--version"], check=True, capture_output=True, text=True)
    return said.stdout.strip()


def main(interpreters: list[str]) -> int:
    """Build what can be built; 0 when every wheel that was wanted is there and runs."""
    done: set[str] = set()
    failed = False
    for name in interpreters or found():
        version, interpreter = who_is(name)
        if version in done or version not in WANTED:
            failed = failed or (bool(interpreters) and version not in done)
            continue
        done.add(version)
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            try:
                wheel = build(interpreter, scratch)
                said = tried(interpreter, wheel, scratch)
            except subprocess.CalledProcessError as error:
                print(f"{version}: {error}\n{error.stderr or ''}", file=sys.stderr)
                failed = True
                continue
        print(f"dist/{wheel.name}\n    {said}")
        failed = failed or not said.endswith("compiled)")
    missing = [] if interpreters else [version for version in WANTED if version not in done]
    if missing:
        print(f"no interpreter found for {', '.join(missing)}: install it, or give its path (make wheels ARGS=...)")
    return 1 if failed or missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
