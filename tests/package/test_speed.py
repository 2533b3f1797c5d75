"""The two forms of the hot modules: which one runs, and that a stale twin never does."""

from __future__ import annotations

import os
import subprocess
import sys

from multiloop import _speed

ASK = """
import multiloop.http._connection as c, multiloop._speed as s
print(c.__name__, c.__file__.endswith(".py"), s.form())
"""


def ask(**environment: str) -> list[str]:
    said = subprocess.run(
        [sys.executable, "-c", ASK], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return said.stdout.split(maxsplit=2)


def test_plain_python_runs_when_it_is_asked_for() -> None:
    assert ask(MULTILOOP_PURE="1")[:2] == ["multiloop.http._connection", "True"]


def test_the_form_that_runs_is_the_one_that_is_told() -> None:
    name, is_plain, form = ask(MULTILOOP_PURE="")
    assert name == "multiloop.http._connection"
    assert (is_plain == "False") == (_speed.find_twin(name) is not None)
    assert form.startswith(("compiled", "partly")) or is_plain == "True"


def test_a_twin_of_another_source_has_another_name() -> None:
    assert _speed.twin_stem("multiloop.http._asgi", b"a") != _speed.twin_stem("multiloop.http._asgi", b"b")
    assert _speed.twin_stem("multiloop.http._asgi", b"a").startswith("http___asgi-")


def test_every_hot_module_is_there() -> None:
    assert all(os.path.exists(path) for path in _speed.HOT.values())
