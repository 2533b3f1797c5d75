"""`multiloop run`: scripts that fork themselves, and scripts of which a cluster is made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.harness import mistake, multiloop
from tests.cluster.forks.program import Program, running
from tests.cluster.forks.test_serving import all_answer, free_port, read_all
from tests.support import wait_until

FORKS = """
import sys
import multiloop
from multiloop import cluster

print(__name__, sys.argv[1:], cluster.is_worker, flush=True)
if cluster.is_primary:
    cluster.fork()
    cluster.setup_primary(args=["c"])
    cluster.fork()
    multiloop.run(cluster.wait)
else:
    multiloop.run(lambda: None)
sys.exit(7)
"""

# Nothing in it knows of a cluster.
PLAIN = """
import asyncio, os, sys

async def answer(reader, writer):
    line = await reader.readline()
    if line == b"wait\\n":
        writer.write(b"waiting\\n")
        await reader.readline()
    writer.write(b"%d\\n" % os.getpid())
    await writer.drain()
    writer.close()

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()

asyncio.run(main())
"""


def test_what_cannot_be_run_is_one_line(tmp_path: Path) -> None:
    assert "there is no such file" in mistake(tmp_path, 4, "run", "nothing.py")
    assert "--workers '0': a number" in mistake(tmp_path, 2, "run", "--workers", "0", "nothing.py")


@pytest.mark.slow
def test_a_script_runs_as_the_interpreter_runs_it_and_its_workers_do_too(tmp_path: Path) -> None:
    (tmp_path / "forks.py").write_text(FORKS)
    done = multiloop(tmp_path, "run", "forks.py", "a", "--b", PYTHONUNBUFFERED="")  # line by line, from each process
    assert done.returncode == 7, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "__main__ ['a', '--b'] False",
        "__main__ ['a', '--b'] True",
        "__main__ ['c'] True",
    ]
    assert "there is no such module" in mistake(tmp_path, 4, "run", "-m", "nothing.at_all")
    (tmp_path / "broken.py").write_text("1 / 0")
    done = multiloop(tmp_path, "run", "broken.py")
    assert done.returncode == 1
    assert done.stderr.splitlines()[1].strip().startswith('File "broken.py", line 1')
    done = multiloop(tmp_path, "run", "--workers", "2", "broken.py")
    assert done.returncode == 3, done.stderr
    assert "multiloop: run broken.py: it died before it was ready (exit code 1)" in done.stderr


@pytest.mark.slow
def test_a_cluster_is_made_of_a_script_that_knows_of_none(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(PLAIN)
    port = free_port()
    words = ["-m", "multiloop", "run", "--workers", "2", "--pid-file", "pid", "plain.py", str(port)]
    with running(tmp_path, "", command=[sys.executable, *words]) as program:
        wait_for_listeners(program)
        assert int((tmp_path / "pid").read_text()) == program.pid
        wait_until(lambda: len(program.children()) == 2)
        pids = program.children()
        all_answer(pids, lambda: read_all(port, b"hello\n"))
        # A stop with grace waits for the connection that is there.
        with subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as client:
            assert client.stdout is not None
            assert client.stdin is not None
            assert client.stdout.readline() == "waiting\n"
            os.kill(program.pid, signal.SIGTERM)
            wait_until(lambda: len(program.children()) == 1)  # the other one has gone
            client.stdin.write("go on\n")
            client.stdin.flush()
            assert int(client.stdout.readline()) in pids
        ended = program.ended()
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "pid").exists()


CLIENT = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(b"wait\\n")
print(sock.recv(100).decode(), end="", flush=True)
sys.stdin.readline()
sock.sendall(b"done\\n")
print(sock.recv(100).decode(), end="", flush=True)
"""


def wait_for_listeners(program: Program) -> None:
    wait_until(lambda: "the workers listen on" in program.err, 60)
