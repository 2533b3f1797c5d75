"""Node's cluster example, as `examples/cluster_counting.py` has it."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from tests.cluster.forks.program import ask, running
from tests.cluster.forks.test_serving import free_port
from tests.support import wait_until

EXAMPLE = Path(__file__).parents[2] / "examples" / "cluster_counting.py"


def is_listened_to(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_requests_are_counted_and_workers_that_die_are_restarted(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, "", command=[sys.executable, str(EXAMPLE), str(port)]) as program:
        first = int(program.until("worker").removesuffix("started"))
        wait_until(lambda: is_listened_to(port))
        for _ in range(3):
            assert ask(port) == "hello world\n"
        while program.until("requests = ") != "3":
            pass
        os.kill(first, signal.SIGKILL)
        while f"worker {first} died (SIGKILL), restarting" not in program.lines:
            program.line()
        again = int(program.until("worker").removesuffix("started"))
        assert again != first
        assert ask(port) == "hello world\n"
        while program.until("requests = ") != "4":
            pass
