"""Replace the machines behind HAProxy one after the other, without losing a request.

What it does for each machine, in this order:

1. say "not ready" (a file that the application's /ready looks at), and wait until HAProxy sends nothing new there;
2. `multiloop stop`: requests that run are finished, WebSockets are closed (their pages connect again, to the other machine);
3. start the new version, wait until it is ready, take the file away, and wait until HAProxy sees it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """One of them: its name in haproxy.cfg, the file that says that it leaves, and how it is stopped and started."""

    name: str
    leaving: Path
    stop: Callable[[], None]  # returns when it has ended
    start: Callable[[], None]  # returns when it listens


def state_of(admin: str, name: str) -> str:
    """Return what HAProxy thinks of a machine: UP, DOWN, …"""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(admin)
        client.sendall(b"show stat\n")
        text = b"".join(iter(lambda: client.recv(65536), b"")).decode()
    lines = [line.split(",") for line in text.lstrip("# ").splitlines() if line]
    columns = {column: place for place, column in enumerate(lines[0])}
    for line in lines[1:]:
        if line[columns["pxname"]] == "machines" and line[columns["svname"]] == name:
            return line[columns["status"]].split()[0]
    raise LookupError(f"haproxy has no server called {name}")


def wait_for(admin: str, name: str, state: str, seconds: float = 60.0) -> None:
    """Wait until HAProxy sees a machine so."""
    deadline = time.monotonic() + seconds
    while state_of(admin, name) != state:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} is not {state} after {seconds:g} s")
        time.sleep(0.05)


def roll(admin: str, machines: list[Machine]) -> None:
    """Replace them all. Raises TimeoutError, and then the other machines are left as they are: they serve."""
    for machine in machines:
        machine.leaving.touch()
        wait_for(admin, machine.name, "DOWN")
        machine.stop()
        machine.start()
        machine.leaving.unlink()
        wait_for(admin, machine.name, "UP")
