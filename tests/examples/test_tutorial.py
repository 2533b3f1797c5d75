"""The tutorial's programs do what its pages say, each as a process of its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support import environment, wait_until

FOLDER = Path(__file__).parents[2] / "examples" / "tutorial"
PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "first-steps.md"


def ran(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its good end."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(FOLDER / program), *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done


@contextmanager
def started(log: Path, *command: str, cwd: Path | None = None) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start a server; gives the process and the URL that it said."""
    with open(log, "w") as out:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=cwd,
            env=environment(MULTILOOP_CONTROL=str(log.parent / "control")),
            stdout=out,
            stderr=out,
        )
    try:
        wait_until(lambda: "http://" in log.read_text() or process.poll() is not None, 30)
        found = re.search(r"http://[\d.]+:\d+", log.read_text())
        assert found is not None, log.read_text()
        yield process, found[0]
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()


def ask(url: str, body: bytes | None = None) -> str:
    with urllib.request.urlopen(url, body, timeout=30) as reply:
        return str(reply.read().decode())


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "multiloop", *arguments, "--control", str(folder / "control")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_program_ends_when_its_last_timer_has_fired() -> None:
    assert [line.split(":")[0] for line in ran("wait.py").stdout.splitlines()] == ["first", "second", "third", "last"]


def test_one_call_can_be_awaited_and_called_back(tmp_path: Path) -> None:
    lines = ran("read.py", str(tmp_path)).stdout.splitlines()
    assert sorted(lines) == [
        "awaited: hello 5",
        "called back with 5 bytes",
        "called back with nothing: No such file or directory",
    ]


def test_health_names_the_function_that_blocks() -> None:
    done = ran("blocked.py")
    assert done.stdout.splitlines() == ["13848 primes", "blocked for more than 0.1 s: True", "in count_primes"]
    assert re.search(r"the event loop was blocked for .* in count_primes", done.stderr)


def test_a_handler_answers_until_its_program_is_interrupted(tmp_path: Path) -> None:
    with started(tmp_path / "log", str(FOLDER / "server.py")) as (process, url):
        assert json.loads(ask(url + "/?name=you")) == {"hello": "you"}
        assert ask(url + "/echo", b"what you said") == "what you said"
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            ask(url + "/elsewhere")
        refused.value.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 128 + signal.SIGINT


def test_work_in_the_pool_leaves_the_loop_free() -> None:
    done = ran("moved.py")
    assert done.stdout.splitlines() == ["13848 primes", "the loop went on: True"]


def test_a_reload_brings_in_new_code_and_a_broken_one_leaves_the_old(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    code = (FOLDER / "api.py").read_text()
    module = tmp_path / "api.py"
    module.write_text(code)
    serve = ("-m", "multiloop", "serve", "api:app", "--workers", "2", "--port", "0")
    with started(tmp_path / "log", *serve, cwd=tmp_path) as (process, url):
        assert json.loads(ask(url + "/?name=you"))["greeting"] == "hello you"

        module.write_text(code.replace('"hello"', '"good morning"'))
        assert "generation 2, 2 workers" in command(tmp_path, "reload").stdout
        assert json.loads(ask(url))["greeting"] == "good morning world"

        module.write_text(code + "\nprint(no_such_name)\n")
        refused = command(tmp_path, "reload")
        assert refused.returncode == 8
        assert "NameError" in refused.stderr
        assert json.loads(ask(url))["greeting"] == "good morning world"

        assert command(tmp_path, "stop").stdout == f"stopped {process.pid}\n"
        assert process.wait(20) == 0


def test_the_page_shows_the_programs_as_they_are() -> None:
    page = PAGE.read_text()
    for program in FOLDER.glob("*.py"):
        assert f"```python\n{program.read_text()}```" in page, program.name
