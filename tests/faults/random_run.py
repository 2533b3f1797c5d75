"""Row 37: everything at once, at random, for a while: kill, stop, block, reload, scale, restart, fill the descriptors, slow
clients, cut connections. The same seed does the same things in the same order (when, the machine decides).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections import Counter

from multiloop.cluster._control import CommandFailed

from .matrix import Context, Result, row
from .rows_clients import _cut_many
from .server import Server, ask


@row(
    "37",
    "all of it at random, seeded: kill, stop, block, reload, scale, restart, fill descriptors, slow clients, cuts",
    "nothing acknowledged is lost, doubled or mixed up; it comes to rest as it began",
    "0 doubled, 0 mixed up, 0 hanging, unread lost ≤ 2 for each death, descriptors flat (10 minutes in the full run)",
)
def _random_run(context: Context) -> Result:
    seconds = context.times(10, 600)
    server = context.serve("--hang-timeout", "3", "--grace", "5", workers=3)
    descriptors = server.descriptors()
    choose = random.Random(context.seed)
    done: Counter[str] = Counter()
    with server.checker(kept=6, fresh=6, paths=("/", "/", "/echo", "/slow?0.1"), timeout=20, pause=0.02) as checker:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            name = choose.choice(list(_FAULTS))
            done[name] += 1
            with contextlib.suppress(OSError, CommandFailed):
                _FAULTS[name](server, choose)
            time.sleep(choose.random() * 0.5)
        for pid in server.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    verdict = checker.verdict()
    server.call("scale", workers=3)
    server.wait_settled(3, 90)
    deadline = time.monotonic() + 30
    while server.descriptors() > descriptors + 8 and time.monotonic() < deadline:
        time.sleep(0.1)
    left = server.descriptors() - descriptors
    # What a worker had read goes down with it, also what it had not begun: of the clients with new connections those
    # whose requests came in the turn in which it died, or while it was stopped or blocked until it was killed.
    deaths = server.log.count(" died (") + server.log.count(": killed")
    hanging = sum(failure.what == "timeout" for failure in verdict.failures)
    wrong = verdict.doubled or verdict.mixed_up or verdict.unlogged
    good = not wrong and not hanging and verdict.lost_unread <= 2 * deaths
    return Result(
        good and left <= 8 and verdict.replies > 0,
        f"{seconds} s, seed {context.seed}, {sum(done.values())} faults ({', '.join(f'{n} {c}' for n, c in done.items())}); "
        f"{deaths} deaths; {verdict}; {left:+d} descriptors",
    )


def _one(server: Server, choose: random.Random) -> int:
    return choose.choice(sorted(server.family()))


def _kill(server: Server, choose: random.Random) -> None:
    os.kill(_one(server, choose), signal.SIGKILL)


def _stop(server: Server, choose: random.Random) -> None:
    pid, seconds = _one(server, choose), choose.choice((0.2, 1.0, 1.5, 5.0))
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(seconds, _resume, (pid,)).start()


def _resume(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def _ask_and_leave(server: Server, path: str) -> None:
    with server.connect(timeout=1) as sock:
        ask(sock, path)
        time.sleep(0.02)


def _fill(server: Server, choose: random.Random) -> None:
    sockets = []
    with contextlib.suppress(OSError):
        for _ in range(300):
            sockets.append(socket.create_connection(server.address, timeout=1))
    time.sleep(choose.random())
    for sock in sockets:
        sock.close()


def _slow(server: Server, choose: random.Random) -> None:
    def drip() -> None:
        with contextlib.suppress(OSError), socket.create_connection(server.address, timeout=2) as sock:
            for byte in b"GET / HTTP/1.1\r\nHost: x\r\n":
                sock.sendall(bytes([byte]))
                time.sleep(0.05)

    for _ in range(5):
        threading.Thread(target=drip, daemon=True).start()


def _restart(server: Server, choose: random.Random) -> None:
    workers = sorted(server.workers())
    if workers:
        server.call("restart", worker=choose.choice(workers))


_FAULTS = {
    "kill": _kill,
    "stop": _stop,
    "block": lambda server, choose: _ask_and_leave(server, f"/block?{choose.choice((0.3, 1.2, 8))}"),
    "segv": lambda server, choose: _ask_and_leave(server, "/segv"),
    "reload": lambda server, choose: server.call("reload"),
    "hup": lambda server, choose: server.signal(signal.SIGHUP),
    "scale": lambda server, choose: server.call("scale", workers=choose.randrange(2, 5)),
    "restart": _restart,
    "fill": _fill,
    "slow": _slow,
    "cut": lambda server, choose: asyncio.run(_cut_many(server.address, 30, choose.randrange(1 << 30))),
}
