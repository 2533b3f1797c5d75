"""Rows 21 to 24, 32 and 34: addresses, disks, pipes, clocks, shared memory, processes that are nobody's."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.support import environment, wait_until

from .matrix import Context, Result, row
from .server import TARGET, ask, is_alive, receive


def _refused(context: Context, name: str, *arguments: str) -> tuple[int, float, int]:
    """Start what must be refused: its exit code, how long it took, how many lines it said."""
    folder = context.folder / name
    folder.mkdir(exist_ok=True)
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "multiloop", "serve", TARGET, "--workers", "2", *arguments],
        cwd=folder,
        env=environment(MULTILOOP_CONTROL=""),
        capture_output=True,
        timeout=60,
    )
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return done.returncode, used, len(done.stderr.splitlines())


@row(
    "21",
    "the port is busy, privileged or not ours; a stale and a live Unix socket",
    "one line, exit code 6, no worker; a live socket is never taken, a stale one is",
    "100 %, within a second of processor time",
)
def _addresses(context: Context) -> Result:
    said = {}
    with socket.create_server(("127.0.0.1", 0)) as other:
        said["busy"] = _refused(context, "busy", "--port", str(other.getsockname()[1]))
    said["not ours"] = _refused(context, "not-ours", "--host", "192.0.2.1", "--port", "0")
    live = context.folder / "live.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(live))
        other.listen()
        said["live"] = _refused(context, "live", "--uds", str(live))
        still = live.exists()
    server = context.serve("--uds", str(live), ready=0)  # its server is gone: stale
    wait_until(lambda: "serving" in server.log or not is_alive(server.pid), 30)
    taken = _answers_at(live)
    good = all(code == 6 and used < 1 and lines == 1 for code, used, lines in said.values())
    return Result(
        good and still and taken,
        ", ".join(f"{name}: exit {code}, {used:.1f} s" for name, (code, used, _) in said.items())
        + f"; live one left alone: {still}; stale one taken: {taken}",
    )


def _answers_at(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(path))
        ask(sock, "/pid")
        return receive(sock) != ""


@row(
    "22",
    "a full disk under the log",
    "requests are served; log lines are dropped and counted; no heartbeat is on a disk",
    "0 lost",
)
def _full_disk(context: Context) -> Result:
    disk = context.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        return Result(True, "not run: this machine lets nobody mount a small file system")
    try:
        server = context.serve("--access-log", "--log-file", str(disk / "log"), ready=0)
        wait_until(lambda: (disk / "log").exists() and "serving" in (disk / "log").read_text(), 30)
        found = (disk / "log").read_text().split("http://127.0.0.1:")[1]
        server.address = ("127.0.0.1", int("".join(c for c in found[:5] if c.isdigit())))
        server.wait_ready(2)
        with server.checker(kept=4, fresh=4, paths=("/",)) as checker:
            time.sleep(context.times(3, 15))
        verdict = checker.verdict()
        full = shutil.disk_usage(disk).free == 0
        restarts = server.status()["restarts"]
        (disk / "log").write_bytes(b"")
        server.get("/pid")
        wait_until(lambda: [server.get("/pid"), "dropped" in (disk / "log").read_text()][1])
        return Result(
            full and not verdict.failures and not restarts,
            f"{verdict.requests} requests, {len(verdict.failures)} failed on a full disk; the log says what it dropped",
        )
    finally:
        context._stack.close()
        subprocess.run(["umount", "-l", str(disk)], check=False)


@row(
    "23",
    "standard error is a pipe that nobody reads, then one that is closed",
    "logging never holds up the loop; EPIPE changes nothing",
    "0 failed requests, accepted p99 as with a log that is read",
)
def _stalled_pipe(context: Context) -> Result:
    server = context.serve("--access-log", workers=1, ready=1)
    seconds = context.times(2, 10)
    with server.checker(kept=4, fresh=0, paths=("/",)) as checker:
        time.sleep(seconds)
    usual = checker.verdict().quantile(0.99)
    figures = []
    for is_closed in (False, True):
        reader, writer = os.pipe()
        stalled = context.serve("--access-log", workers=1, ready=1, stderr=writer)
        os.close(writer)
        if is_closed:
            os.close(reader)
        with stalled.checker(kept=4, fresh=0, paths=("/",)) as checker:
            time.sleep(seconds)
        figures.append(checker.verdict())
        if not is_closed:
            os.close(reader)
    worst = max(verdict.quantile(0.99) for verdict in figures)
    failed = sum(len(verdict.failures) for verdict in figures)
    return Result(
        not failed and worst <= 3 * usual + 0.05,
        f"{sum(v.requests for v in figures)} requests, {failed} failed, p99 {worst * 1000:.0f} ms "
        f"(a log that is read: {usual * 1000:.0f} ms)",
    )


@row(
    "24",
    "the wall clock jumps by an hour and by a day",
    "only monotonic clocks decide; the Date header follows",
    "0 kills, 0 timeouts",
)
def _clock_jump(context: Context) -> Result:
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
    if library is None:
        return Result(True, "not run: libfaketime is not installed here")
    at = context.folder / "faketime"
    at.write_text("+0")
    env = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(at),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    server = context.serve("--hang-timeout", "5", "--keep-alive-timeout", "5", env=env)
    dates = set()
    with server.checker(kept=4, fresh=2, paths=("/", "/slow?0.1"), timeout=5) as checker:
        for jump in ("+1h", "-1h", "+1d", "-1d", "+0"):
            at.write_text(jump)
            time.sleep(context.times(1, 6))
            with server.connect() as sock:
                ask(sock, "/pid")
                dates.add(sock.recv(4096).lower().split(b"date: ")[1].split(b"\r\n")[0][:16])
    verdict = checker.verdict()
    restarts = server.status()["restarts"]
    return Result(
        not verdict.failures and not restarts and len(dates) > 1,
        f"5 jumps, {verdict.requests} requests, {len(verdict.failures)} failed, {restarts} kills; {len(dates)} dates",
    )


@row(
    "32",
    "kill -9 of everybody, again and again",
    "shared memory has no name: nothing is left in /dev/shm",
    "0 entries left, 0 processes left",
)
def _shared_memory(context: Context) -> Result:
    rounds, before, alive = context.times(3, 50), set(os.listdir("/dev/shm")), 0
    for _ in range(rounds):
        server = context.serve(workers=2)
        family = [server.pid, *server.family()]
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        server.process.wait()
        wait_until(lambda f=family: not any(is_alive(pid) for pid in f))
        alive += sum(is_alive(pid) for pid in family)
    left = {name for name in set(os.listdir("/dev/shm")) - before if "multiloop" in name}
    return Result(not left and not alive, f"{rounds} times: {len(left)} entries, {alive} processes left")


@row(
    "34",
    "orphans of the application's children, as PID 1",
    "own children are heard of by pidfd, strangers are buried; no stranger's end is taken for a worker's",
    "0 zombies, 0 false restarts",
)
def _orphans(context: Context) -> Result:
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True).returncode
    ):
        return Result(True, "not run: this machine lets nobody make a PID namespace")
    count = context.times(50, 1000)
    folder = context.folder / "code"
    folder.mkdir()
    (folder / "main.py").write_text(
        "import os, subprocess\n"
        "def handler(request):\n"
        "    if request.path == '/orphan':\n"
        "        subprocess.run(['sh', '-c', 'sleep 0.05 &'], check=True)\n"  # its parent is gone: PID 1 inherits it
        "    return {'pid': os.getpid(), 'zombies': sum(1 for p in os.listdir('/proc') if p.isdigit() and zombie(p))}\n"
        "def zombie(pid):\n"
        "    try:\n"
        "        return open(f'/proc/{pid}/stat').read().rpartition(') ')[2][0] == 'Z'\n"
        "    except OSError:\n"
        "        return False\n"
    )
    server = context.serve(
        "--app-dir",
        str(folder),
        target="main:handler",
        before=("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
    )
    for _ in range(count):
        with server.connect() as sock:
            ask(sock, "/orphan")
            receive(sock)
    zombies = "?"
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with server.connect() as sock:
            ask(sock, "/")
            zombies = receive(sock).split('"zombies":')[1].rstrip("}")
        if zombies == "0":
            break
        time.sleep(0.2)
    status = server.status()
    return Result(
        status["restarts"] == 0 and zombies == "0",
        f"{count} orphans, {zombies} zombies, {status['restarts']} restarts",
    )
