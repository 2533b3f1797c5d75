"""The two forms of the hot modules: which one runs, and that a stale twin never does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from multiloop import _speed
from tests.support import SOURCE

ASK = """
import multiloop.http._connection as c, multiloop._speed as s
print(c.__name__, c.__file__.endswith(".py"), s.form())
"""


def ask(**environment: str) -> list[str]:
    said = subprocess.run(
        [sys.executable, "-c", ASK], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return said.stdout.split(maxsplit=2)


def plain_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "MULTILOOP_PURE"}


def test_plain_python_runs_when_it_is_asked_for() -> None:
    assert ask(MULTILOOP_PURE="1")[:2] == ["multiloop.http._connection", "True"]


def test_the_form_that_runs_is_the_one_that_is_told() -> None:
    name, is_plain, form = ask(MULTILOOP_PURE="")
    assert name == "multiloop.http._connection"
    assert (is_plain == "False") == (_speed.find_twin(name) is not None)
    assert form.startswith(("compiled", "partly")) or is_plain == "True"


def test_a_change_in_any_hot_source_makes_every_twin_stale(tmp_path: Path) -> None:
    copy = tmp_path / "multiloop"
    shutil.copytree(SOURCE / "multiloop", copy, ignore=shutil.ignore_patterns("__pycache__"))
    ask_copy = "import sys; sys.path.insert(0, sys.argv[1]); import multiloop; from multiloop import _speed; print("
    ask_copy += "_speed.__file__.startswith(sys.argv[1]), _speed.fingerprint(), _speed.form() == 'compiled')"

    def look() -> list[str]:
        said = subprocess.run(
            [sys.executable, "-c", ask_copy, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
            env=plain_environment(),
        )
        return said.stdout.split()

    before = look()
    assert before[0] == "True"
    for path in (copy / "http" / "_asgi.py", copy / "http" / "_state.pxd", copy / "http" / "_llhttp.pyx"):
        text = path.read_text()
        path.write_text(text + "\n# changed\n")
        after = look()
        assert after[1] != before[1]
        assert after[2] == "False"
        path.write_text(text)
    assert look() == before


def test_every_hot_module_is_there() -> None:
    assert all(os.path.exists(path) for path in _speed.source_files())
    assert set(_speed.BINDINGS.values()) < set(_speed.source_files())
