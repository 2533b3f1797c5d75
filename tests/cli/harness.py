"""The command line for tests: run it, expect a mistake, or have it serve."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import environment, wait_until

ASGI = """\
import os
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                print("shut down", flush=True)
                return
    body = f"{os.getpid()} {os.environ.get('GREETING')}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

def make(): return app
number = 7
"""


def multiloop(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "multiloop", *arguments],
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


def mistake(folder: Path, code: int, *arguments: str, **variables: str) -> str:
    """Run what must be refused: one line, this exit code, soon."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = multiloop(folder, *arguments, **variables)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # "Within a second", in processor time: what else this machine does is not our slowness.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert done.returncode == code, done
    assert re.match(r"multiloop: |\S+Z CRITICAL primary ", done.stderr)  # said here, or found by the first worker
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


@contextmanager
def serving(folder: Path, *arguments: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve on a free port; gives the process and the URL that it said."""
    log = folder / "log"
    with open(log, "w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "multiloop", "serve", "--port", "0", *arguments],
            cwd=folder,
            env=environment(MULTILOOP_CONTROL=str(folder / "control.sock"), **variables),
            stdout=out,
            stderr=out,
            text=True,
        )
    try:
        wait_until(lambda: "serving" in log.read_text() or process.poll() is not None, 40)
        found = re.search(r"https?://\S+|unix:\S+", log.read_text())
        assert found is not None, log.read_text()
        yield process, found[0].rstrip(",")
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as reply:
        return str(reply.read().decode())
