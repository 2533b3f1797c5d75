"""Rows 11 to 15, 35: reloads, stops, recycling, signals."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time

from multiloop.cluster._control import CommandFailed
from tests.support import wait_until

from .matrix import Context, Result, row
from .server import ask, is_alive, wait_for


@row(
    "11",
    "rolling reload under load: kept and fresh connections, slow handlers, uploads",
    "the new worker is ready before the old one leaves; idle kept connections move over; nothing is lost",
    "0 lost (100 reloads, ≥ 100 000 requests in the full run)",
)
def _reloads(context: Context) -> Result:
    server = context.serve()
    reloads, wanted = context.times(4, 100), context.times(1000, 100_000)
    paths = ("/", "/", "/", "/", "/", "/", "/", "/echo", "/echo", "/slow?0.05")
    done = 0
    with server.checker(kept=16, fresh=4, paths=paths, timeout=20) as checker:
        while done < reloads or checker.requests < wanted:
            server.call("reload")
            done += 1
            time.sleep(0.05)
    verdict = checker.verdict()
    server.wait_settled(2)
    restarts = server.status()["restarts"]
    good, others = verdict.is_clean and not verdict.failures and not restarts, []
    for policy in ("shared", "reuse_port"):  # where workers accept by themselves
        server = context.serve("--policy", policy)
        with server.checker(kept=8, fresh=4, paths=paths, timeout=20) as checker:
            for _ in range(context.times(2, 20)):
                server.call("reload")
        found = checker.verdict()
        good = good and found.is_clean and not found.failures
        others.append(f"{policy}: {len(found.failures)} of {found.requests} failed")
    return Result(
        good,
        f"{done} reloads, {verdict.requests} requests, {len(verdict.failures)} failed, {verdict.doubled} doubled, "
        f"{verdict.mixed_up} mixed up; {', '.join(others)}",
    )


@row(
    "12",
    "reload to code that does not start",
    "the old generation stays, the command fails with the reason, nothing is left behind",
    "0 lost, 0 processes and 0 descriptors more than before",
)
def _broken_reload(context: Context) -> Result:
    folder = context.folder / "code"
    folder.mkdir()
    good = "from multiloop.testing.app import app\n"
    (folder / "main.py").write_text(good)
    server = context.serve("--app-dir", str(folder), target="main:app")
    before, workers = server.descriptors(), server.wait_ready(2)
    rounds, refused = context.times(3, 20), 0
    with server.checker(kept=4, fresh=4, paths=("/",)) as checker:
        (folder / "main.py").write_text("raise RuntimeError('no luck today')\n")
        for _ in range(rounds):
            try:
                server.call("reload")
            except CommandFailed as error:
                refused += "no luck today" in str(error)
    verdict = checker.verdict()
    wait_until(lambda: len(server.family()) == 2)
    wait_until(lambda: server.descriptors() <= before + 4)  # duplicates of connections that were just closed
    left = server.descriptors() - before
    return Result(
        not verdict.failures and refused == rounds and server.workers() == workers,
        f"{refused} of {rounds} refused with the reason, {len(verdict.failures)} of {verdict.requests} requests failed, "
        f"{left} descriptors more",
    )


@row(
    "13",
    "reload with WebSockets and endless replies open",
    "the drain is bounded by --grace; the reload itself does not wait for it",
    "old workers are gone ≤ grace + 2 s",
)
def _reload_with_open_streams(context: Context) -> Result:
    grace = 2.0
    server = context.serve("--grace", f"{grace:g}")
    count = context.times(10, 100)
    sockets: list[socket.socket] = []
    for number in range(count):
        sock = server.connect(timeout=grace + 10)
        if number % 2:
            ask(sock, "/events")
        else:
            more = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            ask(sock, "/ws", more=more + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
        assert sock.recv(4096).startswith((b"HTTP/1.1 101", b"HTTP/1.1 200"))
        sockets.append(sock)
    old = set(server.workers().values())
    began = time.monotonic()
    server.call("reload")
    reloaded = time.monotonic() - began
    closed_properly = 0
    for sock in sockets[::2]:
        closed_properly += _close_code(sock) == 1012
    gone = wait_for(lambda: not any(is_alive(pid) for pid in old), grace + 10)
    took = time.monotonic() - began
    for sock in sockets:
        sock.close()
    return Result(
        took - reloaded <= grace + 2 and closed_properly == len(sockets[::2]),
        f"{count} open, reload took {reloaded:.1f} s, old workers gone {took - reloaded:.1f} s later "
        f"(waited {gone:.1f}); {closed_properly} of {len(sockets[::2])} WebSockets closed with 1012",
    )


def _close_code(sock: socket.socket) -> int:
    data = b""
    with contextlib.suppress(OSError):
        while len(data) < 4 and (more := sock.recv(4096)):
            data += more
    return int.from_bytes(data[2:4], "big") if data[:1] == b"\x88" else 0


@row(
    "14",
    "SIGTERM under load",
    "accept nothing more, finish what was begun, lifespan shutdown once in each worker, exit code 0",
    "0 accepted requests lost; exit ≤ the longest request + 2 s",
)
def _stop_under_load(context: Context) -> Result:
    rounds, lost, slowest, requests = context.times(3, 50), 0, 0.0, 0
    shutdowns = 0
    for _ in range(rounds):
        server = context.serve()
        with server.checker(kept=6, fresh=4, paths=("/", "/slow?0.3")) as checker:
            time.sleep(0.6)
            began = time.monotonic()
            server.signal(signal.SIGTERM)
            code = server.process.wait(20)
            slowest = max(slowest, time.monotonic() - began)
        verdict = checker.verdict()
        requests += verdict.requests
        # What came to a socket that was closed already was never accepted: refused, or closed before it was read.
        lost += verdict.lost_in_worker + verdict.doubled + verdict.mixed_up + (code != 0)
        shutdowns += server.check_log.read_bytes().count(b"shutdown ")
    return Result(
        not lost and shutdowns == 2 * rounds and slowest <= 2.3,
        f"{rounds} times, {requests} requests, {lost} begun and lost, {shutdowns} lifespan shutdowns of {2 * rounds}, "
        f"slowest exit {slowest:.2f} s",
    )


@row(
    "15",
    "recycling by --max-requests under load",
    "the same way as a reload: nothing is lost",
    "0 lost (100 000 requests in the full run)",
)
def _recycling(context: Context) -> Result:
    server = context.serve("--max-requests", "500")
    wanted = context.times(4000, 100_000)
    with server.checker(kept=12, fresh=2, paths=("/", "/", "/", "/echo")) as checker:
        wait_until(lambda: checker.requests >= wanted, 1800)
        wait_until(lambda: server.status()["recycled"].get("requests", 0) >= 2, 30)
    verdict = checker.verdict()
    server.wait_ready(2)
    status = server.status()
    return Result(
        verdict.is_clean and not verdict.failures and status["recycled"].get("requests", 0) >= 2,
        f"{verdict.requests} requests, {len(verdict.failures)} failed, {status['recycled'].get('requests', 0)} workers "
        f"recycled, {status['restarts']} restarts",
    )


@row(
    "35",
    "a storm of signals: HUP, TTIN, TTOU, USR1 to the primary, CHLD and TERM to workers, at random",
    "wishes, not counts: it ends in one generation with the right number of workers",
    "one generation, no process and no descriptor left over",
)
def _signal_storm(context: Context) -> Result:
    server = context.serve()
    choose = random.Random(context.seed)
    before = server.descriptors()
    until = time.monotonic() + context.times(4, 60)
    sent = 0
    with server.checker(kept=2, fresh=2, paths=("/",)) as checker:
        while time.monotonic() < until:
            kind = choose.random()
            if kind < 0.9:
                server.signal(
                    choose.choice((signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGCHLD))
                )
            elif workers := server.family():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(choose.choice(workers), signal.SIGTERM)
            sent += 1
            time.sleep(0.002)
    verdict = checker.verdict()
    time.sleep(0.2)
    server.call("scale", workers=2)
    server.wait_settled(2, 60)
    status = server.status()
    generations = {worker["generation"] for worker in status["workers"]}
    wait_until(lambda: len(server.family()) == 2, 30)
    wait_until(lambda: server.descriptors() <= before + 4, 30)
    return Result(
        generations == {status["generation"]} and not verdict.doubled and not verdict.mixed_up,
        f"{sent} signals; generation {status['generation']} alone, 2 workers; {verdict.requests} requests, "
        f"{len(verdict.failures)} failed",
    )
