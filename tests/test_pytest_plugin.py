"""The pytest plugin: one line makes tests that block their loop fail, and nothing happens without that line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import environment

SUITE = """
import asyncio, time
import pytest

async def sleep():
    time.sleep(0.001)

async def sleep_and_catch():
    try:
        time.sleep(0.001)
    except Exception:
        pass

async def sleep_well():
    await asyncio.sleep(0.001)

def test_sleeping(): asyncio.run(sleep())
def test_caught(): asyncio.run(sleep_and_catch())
def test_well(): time.sleep(0.001); asyncio.run(sleep_well())

@pytest.mark.allow_blocking_calls
def test_allowed(): asyncio.run(sleep())

@pytest.fixture
def slow():
    asyncio.run(sleep())

def test_fixture(slow): pass
"""


def run(folder: Path, *options: str, ini: str = "") -> tuple[dict[str, str], str]:
    """Run the suite; returns the outcome of each test, and what was printed."""
    (folder / "test_suite.py").write_text(SUITE)
    (folder / "pytest.ini").write_text(f"[pytest]\n{ini}\n")
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60)
    return dict(re.findall(r"test_suite\.py::(\w+) (PASSED|FAILED|ERROR)", done.stdout)), done.stdout + done.stderr


def test_without_the_line_nothing_happens(tmp_path: Path) -> None:
    outcomes, _ = run(tmp_path)
    assert set(outcomes.values()) == {"PASSED"}
    assert len(outcomes) == 5


@pytest.mark.parametrize("where", ["ini", "command line"])
def test_a_test_that_blocks_its_loop_fails_also_when_somebody_catches_the_error(tmp_path: Path, where: str) -> None:
    if where == "ini":
        outcomes, said = run(tmp_path, ini="multiloop_blocking_calls = error")
    else:
        outcomes, said = run(tmp_path, "--multiloop-blocking-calls=error")
    assert outcomes == {
        "test_sleeping": "FAILED",
        "test_caught": "FAILED",
        "test_well": "PASSED",
        "test_allowed": "PASSED",
        "test_fixture": "ERROR",
    }
    assert "time.sleep(0.001) blocks the event loop at test_suite.py:6 in sleep; instead: await timers.sleep" in said


def test_it_can_warn_instead(tmp_path: Path) -> None:
    outcomes, said = run(tmp_path, ini="multiloop_blocking_calls = warn")
    assert set(outcomes.values()) == {"PASSED"}
    assert "test_suite.py:6: BlockingCallWarning: time.sleep(0.001) blocks" in said


def test_files_can_be_ignored(tmp_path: Path) -> None:
    ini = "multiloop_blocking_calls = error\nmultiloop_blocking_calls_ignore =\n    test_suite"
    assert set(run(tmp_path, ini=ini)[0].values()) == {"PASSED"}


def test_a_word_it_does_not_know_is_one_line(tmp_path: Path) -> None:
    _, said = run(tmp_path, ini="multiloop_blocking_calls = loud")
    assert "multiloop_blocking_calls = 'loud': use one of off, warn, error" in said
    assert "Traceback" not in said
