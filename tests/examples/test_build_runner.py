"""The build runner builds in order and in parallel, stops at a failure, and leaves no child."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.child_process.test_exec import running_with
from tests.support import environment, wait_until

RUNNER = Path(__file__).parents[2] / "examples" / "build_runner.py"


@pytest.fixture
def build(tmp_path):
    def run(text, *options, code=0):
        (tmp_path / "build.toml").write_text(text)
        command = [sys.executable, str(RUNNER), str(tmp_path / "build.toml"), *options]
        ran = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60)
        assert ran.returncode == code, ran.stdout + ran.stderr
        return [line.strip() for line in (ran.stdout + ran.stderr).splitlines()]

    return run


def test_steps_run_after_what_they_need_and_show_their_output(build, tmp_path):
    lines = build("""
        [all]
        run = "cat a b; echo to error >&2"
        needs = ["a", "b"]
        [a]
        run = "echo from a > a"
        [b]
        run = "echo from b > b"
        needs = ["a"]
    """)
    assert lines.index("a | $ echo from a > a") < lines.index("b | $ echo from b > b")
    assert {"all | from a", "all | from b", "all | to error"} <= set(lines)
    assert lines[-1] == "3 done"


def test_independent_steps_run_at_once_up_to_the_limit(build):
    # Each waits for the other's file: only together can they end.
    together = """
        [left]
        run = "touch left; for i in $(seq 100); do [ -e right ] && exit 0; sleep 0.02; done; exit 1"
        [right]
        run = "touch right; for i in $(seq 100); do [ -e left ] && exit 0; sleep 0.02; done; exit 1"
    """
    assert build(together, "-j", "2")[-1] == "2 done"
    apart = '[left]\nrun = "mkdir lock && sleep 0.1 && rmdir lock"\n[right]\nrun = "mkdir lock && sleep 0.1 && rmdir lock"\n'
    assert build(apart, "-j", "1")[-1] == "2 done"


def test_fresh_outputs_are_skipped(build, tmp_path):
    text = '[make]\nrun = "cp in out"\ninputs = ["in"]\noutputs = ["out"]\n'
    (tmp_path / "in").write_text("1")
    assert build(text)[-1] == "1 done"
    assert build(text) == ["make | is fresh", "0 done"]
    os.utime(tmp_path / "in", (time.time() + 10, time.time() + 10))
    assert build(text)[-1] == "1 done"


def test_a_failure_stops_the_others_and_what_they_started(build):
    began = time.monotonic()
    lines = build(
        """
        [slow]
        run = "sleep 55.125"
        [bad]
        run = "sleep 0.2; exit 3"
        [after]
        run = "echo never"
        needs = ["bad"]
        """,
        "-j",
        "2",
        code=1,
    )
    assert time.monotonic() - began < 20
    wait_until(lambda: not running_with("55.125"))
    assert any(line.startswith("bad | FAILED") and line.endswith("code 3") for line in lines)
    assert lines[-1] == "0 done, failed: bad"
    assert "after | never" not in lines


def test_keep_going_runs_what_does_not_depend_on_the_failure(build):
    lines = build('[bad]\nrun = "exit 1"\n[good]\nrun = "echo fine"\n', "--keep-going", "-j", "1", code=1)
    assert "good | fine" in lines
    assert lines[-1] == "1 done, failed: bad"


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ('[a]\nrun = "x"\nneeds = ["b"]\n[b]\nrun = "x"\nneeds = ["a"]\n', (), "goes in a circle: a → b → a"),
        ('[a]\nrun = "x"\nneeds = ["c"]\n', (), "[a] needs 'c', which is not there"),
        ("[a]\n", (), "run is missing"),
        ('[a]\nrun = "x"\ncolour = 1\n', (), "unknown: colour"),
        ('[a]\nrun = "x"\n', ("z",), "there is no step 'z'"),
        ("nonsense", (), "Expected"),
    ],
)
def test_a_wrong_build_file_is_one_line(build, text, options, says):
    [line] = build(text, *options, code=2)
    assert says in line


def test_interrupting_it_leaves_no_child(tmp_path):
    (tmp_path / "build.toml").write_text('[slow]\nrun = "echo $$; exec sleep 100"\n')
    command = [sys.executable, str(RUNNER), str(tmp_path / "build.toml")]
    runner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    assert runner.stdout.readline().strip().startswith("slow | $")
    pid = int(runner.stdout.readline().rpartition("|")[2])
    runner.send_signal(signal.SIGINT)
    assert runner.wait(10) == 130
    runner.stdout.close()

    def gone():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    wait_until(gone)
