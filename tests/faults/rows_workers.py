"""Rows 1 to 10: faults of workers and of the primary."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

from tests.support import environment, wait_until

from .matrix import LONGER, Context, Result, quantile, row, slowdown
from .server import Server, ask, is_alive, receive, serving, wait_for


@row(
    "1",
    "kill -9 of a worker, with requests under way",
    "only what it had read from can fail; what was handed over and unread is dealt again; replaced at once",
    f"0 unread lost, 0 doubled; ready again ≤ 0.5 s (p99){LONGER}",
)
def _kill_worker(context: Context) -> Result:
    server = context.serve()
    rounds, took, silent_lost = context.times(5, 100), [], 0
    with server.checker(kept=8, fresh=8) as checker:
        slower = slowdown()  # under the same load
        for turn in range(rounds):
            workers = server.wait_ready(2)
            silent = [server.connect() for _ in range(4)]  # handed over, nothing to read yet
            time.sleep(0.2)
            victim = list(workers.values())[turn % 2]
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            for sock in silent:
                ask(sock, "/pid")
            silent_lost += sum(not _answers(sock) for sock in silent)
            wait_until(lambda gone=victim: gone not in server.family() and len(server.workers()) == 2, 30)
            took.append(time.monotonic() - killed)
            time.sleep(0.3 if not context.is_full else max(0.0, 1.0 - took[-1]))
        slower = max(slower, slowdown())
    verdict = checker.verdict()
    late = quantile(took, 0.99)
    # A worker that dies between reading a request and beginning it takes that along: unread is what was silent.
    hanging = sum(failure.what == "timeout" for failure in verdict.failures)
    good = not silent_lost and not hanging and not verdict.doubled and not verdict.mixed_up and not verdict.unlogged
    return Result(
        good and late <= 0.5 * slower and verdict.lost_unread <= 2 + rounds // 10,
        f"{rounds} kills, {verdict.requests} requests: {verdict.lost_in_worker} begun and {verdict.lost_with_connection} "
        f"with a kept connection lost in the dead worker, {verdict.lost_unread} read and not begun, {silent_lost} of "
        f"{4 * rounds} unread connections, {verdict.doubled} doubled; ready again p99 {late:.2f} s "
        f"(the machine, under this load, is {slower:.1f} times slower)",
    )


def _answers(sock: socket.socket) -> bool:
    try:
        return bool(receive(sock))
    except (OSError, ConnectionError):
        return False
    finally:
        sock.close()


@row(
    "2",
    "segfault in C code",
    "as 1; the log names the signal and shows the stack",
    "named every time, 0 side failures",
)
def _segfault(context: Context) -> Result:
    server = context.serve()
    rounds, named = context.times(3, 20), 0
    with server.checker(kept=4, fresh=4, paths=("/",)) as checker:
        for _ in range(rounds):
            server.wait_ready(2)
            before = server.log.count("SIGSEGV")
            with server.connect() as sock:
                ask(sock, "/segv")
                try:
                    receive(sock)
                except ConnectionError:
                    pass
            wait_until(lambda seen=before: server.log.count("SIGSEGV") > seen)
            named += 1
    stacks = server.log.count("string_at")
    verdict = checker.verdict()
    clean = not verdict.doubled and not verdict.mixed_up and verdict.lost_unread <= 2 * rounds  # read in the same turn
    return Result(
        clean and named == rounds and stacks >= rounds,
        f"{named} of {rounds} named with their stack ({stacks}); others: {verdict}",
    )


@row(
    "3",
    "kill -9 of the primary",
    "workers finish what they do for at most a second and are gone; the port is free; the next start is clean",
    f"all gone ≤ 1 s, under load ≤ 1.3 s{LONGER}; 0 orphans; the next start binds at once",
)
def _kill_primary(context: Context) -> Result:
    rounds, slowest, orphans, rebound = context.times(3, 20), {False: 0.0, True: 0.0}, 0, 0
    for turn in range(rounds):
        server = context.serve("--standby", "1", workers=3, ready=3)
        family = server.family()
        checker = server.checker(kept=4, fresh=2, timeout=3)
        is_loaded = turn % 2 == 1
        if is_loaded:
            checker.__enter__()
            time.sleep(0.3)
        os.kill(server.pid, signal.SIGKILL)
        took = wait_for(lambda f=family: not any(is_alive(pid) for pid in f), 10)
        slowest[is_loaded] = max(slowest[is_loaded], took)
        server.process.wait()
        if is_loaded:
            checker.stop()
        orphans += sum(is_alive(pid) for pid in family)
        with serving(server.folder, port=server.address[1], workers=1) as again:
            rebound += again.get("/pid") != ""
    idle, loaded, slower = slowest[False], slowest[True], slowdown()
    return Result(
        orphans == 0 and rebound == rounds and idle <= slower and loaded <= 1.3 * slower,
        f"{rounds} times: gone within {idle:.2f} s, under load {loaded:.2f} s, {orphans} orphans, "
        f"{rebound} of {rounds} starts bound at once",
    )


@row(
    "4",
    "SIGSTOP of the primary for 10 s",
    "workers serve open connections; accepting goes on after SIGCONT; nobody is blamed for silence",
    "0 errors on open connections; the backlog is served ≤ 1 s after SIGCONT",
)
def _stop_primary(context: Context) -> Result:
    server = context.serve()
    sockets = [server.connect() for _ in range(8)]
    for sock in sockets:
        ask(sock, "/pid")
        receive(sock)
    server.signal(signal.SIGSTOP)
    errors, asked, until = 0, 0, time.monotonic() + context.times(2, 10)
    while time.monotonic() < until:
        for sock in sockets:
            ask(sock, "/pid")
            errors += not receive(sock)
            asked += 1
        time.sleep(0.05)
    waiting = [server.connect() for _ in range(20)]
    for sock in waiting:
        ask(sock, "/pid")
    server.signal(signal.SIGCONT)
    began = time.monotonic()
    for sock in waiting:
        receive(sock)
    took = time.monotonic() - began
    restarts = server.status()["restarts"]
    for sock in (*sockets, *waiting):
        sock.close()
    return Result(
        not errors and took <= 1.0 and not restarts and "blocked" not in server.log,
        f"{asked} requests, {errors} errors; 20 waiting connections served {took:.2f} s after SIGCONT; {restarts} restarts",
    )


@row(
    "5",
    "a worker runs out of memory (limit of its address space)",
    "as 1; with --max-rss it is recycled before that, and nobody notices",
    "the primary survives, 0 refused connections, 0 lost by recycling",
)
def _out_of_memory(context: Context) -> Result:
    server = context.serve("--max-rss", "150MiB", "--recycle-jitter", "0")
    rounds = context.times(2, 10)
    with server.checker(kept=4, fresh=4, paths=("/",)) as checker:
        for _ in range(rounds):
            recycled = server.status()["recycled"].get("memory", 0)
            for _ in range(8):
                server.get("/leak?60000000")
            wait_until(lambda seen=recycled: server.status()["recycled"].get("memory", 0) > seen)
            server.wait_ready(2)
        # And one that the system kills, as its OOM killer does: SIGKILL from outside.
        os.kill(next(iter(server.workers().values())), signal.SIGKILL)
        server.wait_ready(2)
        recycled = server.status()["recycled"]["memory"]
    verdict = checker.verdict()
    good = not verdict.refused and not verdict.doubled and not verdict.mixed_up and verdict.lost_unread <= 2
    return Result(good and is_alive(server.pid), f"{recycled} recycled for their memory, 1 killed; {verdict}")


def _hang(context: Context, path: str, timeout_s: float) -> tuple[float, float, int, int, Server]:
    """Let one of two workers hang by a request: time until it is routed around and replaced, slow and failed requests."""
    server = context.serve("--hang-timeout", f"{timeout_s:g}")
    before = server.wait_ready(2)
    hanging = server.connect(timeout=timeout_s + 20)
    ask(hanging, path)
    began = time.monotonic()
    slow = failed = 0
    around = replaced = 0.0
    while not replaced:
        asked = time.monotonic()
        try:
            server.get("/pid", timeout=5)
        except OSError:
            failed += 1
        slow += time.monotonic() - asked > 1.5
        states = {w["pid"]: w["state"] for w in server.status()["workers"]}
        if not around and "silent" in states.values():
            around = time.monotonic() - began
        if len([p for p, s in states.items() if s == "ready"]) == 2 and set(states) != set(before.values()):
            replaced = time.monotonic() - began
        time.sleep(0.02)
        assert time.monotonic() - began < timeout_s + 30
    hanging.close()
    return around, replaced, slow, failed, server


@row(
    "6",
    "an event loop that is blocked",
    "routed around; its stack is logged; killed and replaced after --hang-timeout",
    f"routed around ≤ 1 s, replaced ≤ T + 1 s (T = 3 s here){LONGER}; 0 new requests fail",
)
def _blocked_loop(context: Context) -> Result:
    around, replaced, slow, failed, server = _hang(context, "/block?60", 3.0)
    slower = slowdown()
    named = "app.py" in server.log and "blocked" in server.log
    return Result(
        around <= slower and replaced <= 3.0 + slower and not failed and slow <= 1 and named,
        f"routed around after {around:.2f} s, replaced after {replaced:.2f} s, {failed} failed, "
        f"{slow} slower than 1.5 s",
    )


@row(
    "7",
    "C code that holds the interpreter's lock for ever",
    "as 6, seen from outside",
    "as 6",
)
def _spinning_c(context: Context) -> Result:
    around, replaced, slow, failed, server = _hang(context, "/spin", 3.0)
    slower = slowdown()
    named = "_spin" in server.log
    return Result(
        around <= slower and replaced <= 3.0 + slower and not failed and slow <= 1 and named,
        f"routed around after {around:.2f} s, replaced after {replaced:.2f} s, {failed} failed, "
        f"{slow} slower than 1.5 s; stack logged: {named}",
    )


@row(
    "8",
    "SIGSTOP of a worker",
    "what it has not received is pulled back and dealt again; in flight at most 32; it serves again after SIGCONT",
    f"0 new requests lost; none takes longer than 1 s{LONGER}",
)
def _stop_worker(context: Context) -> Result:
    server = context.serve("--hang-timeout", "120")
    victim = min(server.wait_ready(2).values())
    os.kill(victim, signal.SIGSTOP)
    with server.checker(kept=0, fresh=8, paths=("/",), timeout=10) as checker:
        time.sleep(context.times(3, 60))
        slower = slowdown()
    verdict = checker.verdict()
    slowest = verdict.seconds[-1] if verdict.seconds else 99.0
    os.kill(victim, signal.SIGCONT)
    wait_until(lambda: victim in server.workers().values())
    wait_until(lambda: server.get() == str(victim))
    return Result(
        verdict.is_clean and not verdict.failures and slowest <= slower,
        f"{verdict}; slowest {slowest:.2f} s",
    )


@row(
    "9",
    "an application that cannot start: import, lifespan, address, module",
    "told once with its traceback; exit codes 3, 3, 6, 4; no worker is left",
    "one boot, exit ≠ 0; the port and the module without any",
)
def _crash_loop_at_boot(context: Context) -> Result:
    refusing = (
        "async def app(scope, receive, send):\n    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database today'})\n"
    )
    said = []
    note = "open(__file__ + '.boots', 'a').write('x')\n"
    with socket.create_server(("127.0.0.1", 0)) as other:
        busy = other.getsockname()[1]
        for name, text, target, port, code in (
            ("import", note + "raise RuntimeError('no luck today')\n", "main:app", 0, 3),
            ("lifespan", note + refusing, "main:app", 0, 3),
            ("address", note + refusing, "main:app", busy, 6),
            ("module", "", "nowhere:app", 0, 4),
        ):
            folder = context.folder / name
            folder.mkdir()
            (folder / "main.py").write_text(text)
            began = time.monotonic()
            done = subprocess.run(
                [*(sys.executable, "-m", "multiloop", "serve", target, "--workers", "6", "--port", str(port))],
                cwd=folder,
                env=environment(MULTILOOP_CONTROL=""),
                capture_output=True,
                timeout=60,
            )
            boots = folder / "main.py.boots"
            count = len(boots.read_text()) if boots.exists() else 0
            expected = 1 if name in ("import", "lifespan") else 0
            said.append((name, done.returncode == code and count == expected, count, time.monotonic() - began))
    return Result(
        all(ok for _, ok, _, _ in said),
        ", ".join(f"{name}: {count} boots, {took:.1f} s" for name, _, count, took in said),
    )


@row(
    "10",
    "a request that kills its worker, again and again",
    "others go on being served; restarts are held to a rate; never without a worker while one can start",
    "≥ 80 % of healthy requests answered; ≤ 1 restart a second, sustained",
)
def _poison(context: Context) -> Result:
    server = context.serve()
    seconds = context.times(6, 30)
    until = time.monotonic() + seconds
    with server.checker(kept=0, fresh=4, paths=("/",), timeout=5) as checker:
        while time.monotonic() < until:
            try:
                server.get("/die?9", timeout=0.5)
            except OSError:
                pass
            time.sleep(0.05)
    verdict = checker.verdict()
    restarts = server.status()["restarts"]
    share = verdict.replies / max(1, verdict.requests)
    burst = 12  # what is answered at once before the rate holds
    return Result(
        share >= 0.8 and restarts <= burst + 1.3 * seconds and not verdict.doubled and not verdict.mixed_up,
        f"{share:.0%} of {verdict.requests} requests answered, {restarts} restarts in {seconds} s",
    )
