"""Helpers that several test modules share: small, without state of their own."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import multiloop

LOOPS = ("uvloop", "asyncio")
SOURCE = Path(multiloop.__file__).parents[1]


multiloop.run(lambda: None)  # the first loop of a process opens a pipe that stays (libuv's signals)


def open_descriptors() -> set[str]:
    """The descriptors of this process, each with what it leads to."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one that lists
        if "libffi" not in target:  # ctypes keeps its library open from its first use on
            found.add(f"{name} {target}")
    return found


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Let the loop run until a condition holds; fail after a while."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.002)


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """The same outside a loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.005)


def descriptors_left(before: set[str], seconds: float = 30.0) -> set[str]:
    """What was opened since and stays open: threads that were told to stop, and the collector, close a moment later."""
    deadline = time.monotonic() + seconds
    while True:
        gc.collect()
        left = open_descriptors() - before
        if not left or time.monotonic() > deadline:
            return left
        threading.Event().wait(0.005)


def proportional_bytes(*pids: int) -> int:
    """The memory of processes together, what they share counted once (the sum of their proportional set sizes)."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    return total


def environment(**more: str) -> dict[str, str]:
    """An environment in which a child finds this multiloop."""
    path = os.pathsep.join(filter(None, (str(SOURCE), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **more}


def start_python(code: str, *args: str, pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Start a Python child that runs `code`."""
    return subprocess.Popen([sys.executable, "-c", code, *args], env=environment(), pass_fds=pass_fds)


async def descriptors_at_rest() -> set[str]:
    """`open_descriptors()` once the running loop has opened what it keeps (for its first stream, its first offload)."""
    await multiloop.offload(int)
    left, right = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=left)
    transport.abort()
    right.close()
    await asyncio.sleep(0.001)
    return open_descriptors()
