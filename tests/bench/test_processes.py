"""Programs that are measured: started when they listen, ended with all that they started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from bench.harness.processes import Failed, cpu_s, free_port, memory_kb, run, started, tree

from ..support import wait_until

SERVER = """
import socket, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("child", child.pid, flush=True)
sum(range(3_000_000))
while True:
    listener.accept()[0].close()
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_program_is_measured_and_ended_with_its_children(tmp_path: Path) -> None:
    port = free_port()
    with started([sys.executable, "-c", SERVER, port], port=port, log=tmp_path / "log") as running:
        wait_until(lambda: "child" in running.log.read_text())
        child = int(running.log.read_text().split()[1])
        assert child in tree(running.pid)
        wait_until(lambda: running.cpu_s() > 0)
        assert memory_kb(running.pid) > memory_kb(child) > 0
        assert 0 < memory_kb(running.pid, shared_once=True) <= memory_kb(running.pid)
    wait_until(lambda: not alive(child))
    assert not alive(running.pid)
    assert cpu_s(running.pid) == 0


def test_a_program_that_ends_at_once_is_an_error_with_what_it_said(tmp_path: Path) -> None:
    port = free_port()
    with (
        pytest.raises(Failed, match="no such port") as caught,
        started([sys.executable, "-c", "raise SystemExit('no such port')"], port=port, log=tmp_path / "log"),
    ):
        raise AssertionError("it never listened")
    assert "does not listen" in str(caught.value)


def test_running_to_the_end_gives_the_output_or_an_error() -> None:
    assert run([sys.executable, "-c", "print(7)"]) == "7\n"
    with pytest.raises(Failed, match="ended with 3"):
        run([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(Failed, match="took over"):
        run([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.2)
    with pytest.raises(Failed, match="is not there"):
        run([os.path.join("nowhere", "nothing")])
