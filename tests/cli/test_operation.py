"""Operation: service managers, pid files, users, environments, several applications, restarts, logs."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.harness import get, mistake, multiloop, serving
from tests.support import environment, wait_until

from multiloop import stats as part_of_the_package

APP = """\
import logging, os
def handler(request):
    if request.path == "/log":
        logging.getLogger("shop").warning("sold %s", request.query["what"])
    return {"uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(), "umask": os.umask(0o022), "pid": os.getpid(),
            "env": dict(os.environ)}
"""
BROKEN = "raise RuntimeError('no luck today')\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


def ask(url: str) -> Any:
    return json.loads(get(url))


def control(folder: Path, *arguments: str) -> str:
    """Run a command that talks to the running server; returns what it printed."""
    done = multiloop(folder, *arguments, "--control", str(folder / "control.sock"))
    assert done.returncode == 0, done
    return done.stdout


# --- service managers ---------------------------------------------------------------------------------------------
class Manager:
    """As much of systemd as a service sees: a listening socket, a notification socket, a watchdog."""

    def __init__(self, folder: Path, *, abstract: bool = False) -> None:
        self.messages: list[dict[str, str]] = []
        self.address = f"@multiloop-test-{os.getpid()}-{id(self)}" if abstract else str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + self.address[1:] if abstract else self.address)
        self._socket.setblocking(False)

    def heard(self) -> list[dict[str, str]]:
        """Everything that the service has said so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                text = self._socket.recv(65536).decode()
                self.messages.append(dict(line.split("=", 1) for line in text.split("\n")))
        return self.messages

    def said(self, name: str) -> list[str]:
        return [message[name] for message in self.heard() if name in message]

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def managed(folder: Path, *arguments: str, watchdog_s: float = 0.0, abstract: bool = False) -> Iterator[Any]:
    """Start a service as systemd does: socket activation, NOTIFY_SOCKET, WATCHDOG_USEC."""
    manager = Manager(folder, abstract=abstract)
    start = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True); "
        "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), WATCHDOG_PID=str(os.getpid())); "
        "os.execv(sys.executable, [sys.executable, '-m', 'multiloop', 'serve', *sys.argv[2:]])"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener, open(folder / "log", "w") as log:
        more = {"WATCHDOG_USEC": str(round(watchdog_s * 1e6))} if watchdog_s else {}
        process = subprocess.Popen(
            [sys.executable, "-c", start, str(listener.fileno()), *arguments],
            cwd=folder,
            env=environment(NOTIFY_SOCKET=manager.address, MULTILOOP_CONTROL=str(folder / "control.sock"), **more),
            stderr=log,
            pass_fds=[listener.fileno()],
        )
        port = listener.getsockname()[1]
    try:
        yield manager, process, f"http://127.0.0.1:{port}/"
    finally:
        process.kill()
        process.wait()
        manager.close()


@pytest.mark.parametrize(("workers", "abstract"), [("1", False), ("2", True), ("0", False)])
def test_a_service_manager_is_told_when_it_is_ready_and_when_it_stops(
    folder: Path, workers: str, abstract: bool
) -> None:
    with managed(folder, "main:handler", "--workers", workers, watchdog_s=0.5, abstract=abstract) as (
        manager,
        process,
        url,
    ):
        wait_until(lambda: manager.said("READY"), 40)
        found = ask(url)
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS"} & set(found["env"])
        pings = len(manager.said("WATCHDOG"))
        wait_until(lambda: len(manager.said("WATCHDOG")) >= pings + 3)
        assert url.rstrip("/") in manager.said("STATUS")[-1]
        process.terminate()
        assert process.wait(40) == 0
        assert manager.said("READY") == ["1"]
        assert manager.said("STOPPING") == ["1"]


def test_a_stopped_primary_does_not_feed_the_watchdog_and_a_silent_manager_costs_nothing(folder: Path) -> None:
    with managed(folder, "main:handler", "--workers", "1", watchdog_s=0.4) as (manager, process, url):
        wait_until(lambda: manager.said("WATCHDOG"))
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rsplit(") ", 1)[1][0] == "T")
        heard = len(manager.heard())
        time.sleep(0.6)
        assert len(manager.heard()) == heard
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: len(manager.heard()) > heard)
        manager.close()
        os.unlink(manager.address)
        assert ask(url)
        process.terminate()
        assert process.wait(40) == 0


def test_a_reload_is_told_from_its_beginning_to_its_end(folder: Path) -> None:
    with managed(folder, "main:handler", "--workers", "1") as (manager, process, _):
        wait_until(lambda: manager.said("READY"), 40)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(manager.said("READY")) == 2)
        kinds = [next(iter(message)) for message in manager.heard() if set(message) & {"READY", "RELOADING"}]
        assert kinds == ["READY", "RELOADING", "READY"]
        assert manager.said("MONOTONIC_USEC")[0].isdecimal()


# --- pid file, umask, user ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_pid_file_holds_the_primary_s_number_and_goes_with_it(folder: Path, workers: str) -> None:
    path = folder / "server.pid"
    path.write_text("999999999\n")  # left behind by a server that was killed
    with serving(folder, "main:handler", "--workers", workers, "--pid-file", str(path)) as (process, _):
        assert path.read_text() == f"{process.pid}\n"
        said = mistake(folder, 6, "serve", "main:handler", "--port", "0", "--pid-file", str(path))
        assert f"pid {process.pid}" in said
        assert path.read_text() == f"{process.pid}\n"
    assert not path.exists()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.symlink_to("/etc/hostname"), "symbolic links"),
        (lambda path: None, "No such file"),
    ],
    ids=["folder", "link", "no folder"],
)
def test_a_pid_file_that_cannot_be_is_one_line(folder: Path, make: Any, said: str) -> None:
    path = folder / "a" / "b" if said == "No such file" else folder / "pid"
    make(path)
    assert said in mistake(folder, 2, "serve", "main:handler", "--port", "0", "--pid-file", str(path))


def test_the_umask_holds_for_workers_and_opens_no_socket(folder: Path) -> None:
    sock, log = folder / "app.sock", folder / "server.log"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "multiloop", "serve", "main:handler", "--workers", "1", "--umask", "007"),
            *("--uds", str(sock), "--control", str(folder / "control.sock"), "--log-file", str(log)),
        ],
        cwd=folder,
        env=environment(),
    )
    try:
        wait_until(lambda: log.exists() and "serving" in log.read_text())
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (sock, folder / "control.sock", log)}
        assert modes == {"app.sock": 0o600, "control.sock": 0o600, "server.log": 0o640}
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(sock))
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            reply = b"".join(iter(lambda: client.recv(65536), b""))
        assert b'"umask":7' in reply
        process.terminate()
        assert process.wait(40) == 0
    finally:
        process.kill()
        process.wait()


def may_run_python(user: str) -> bool:
    """Whether somebody else may run this interpreter: one that lives in root's home is root's alone."""
    try:
        return (
            subprocess.run([sys.executable, "-c", ""], user=user, extra_groups=[], capture_output=True).returncode == 0
        )
    except OSError:
        return False


def may_read_the_package(user: str) -> bool:
    """Whether somebody else may read what is imported late: a checkout in a folder of root's own is root's alone."""
    done = subprocess.run(["test", "-r", part_of_the_package.__file__], user=user, extra_groups=[], check=False)
    return done.returncode == 0


@pytest.mark.parametrize("workers", ["0", "1"])
def test_the_whole_server_becomes_the_user_and_still_listens_reloads_and_reopens_its_log(
    workers: str,
) -> None:
    if os.getuid() != 0 or (workers != "0" and not may_run_python("nobody")):
        pytest.skip("only root can become somebody else, who must be allowed to run this interpreter")
    if not may_read_the_package("nobody"):
        pytest.skip("the user must be allowed to read the package, of which parts are imported late")
    user = pwd.getpwnam("nobody")
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/multiloop-user-XXXXXX"], text=True).strip())
    try:
        folder.chmod(0o755)
        (folder / "main.py").write_text(APP)
        run = folder / "run"
        run.mkdir()
        os.chown(run, user.pw_uid, user.pw_gid)
        log = run / "server.log"
        arguments = ["main:handler", "--port", "0", "--workers", workers, "--user", "nobody", "--log-file", str(log)]
        if workers != "0":
            arguments += ["--control", str(run / "control.sock")]
        process = subprocess.Popen(
            [sys.executable, "-m", "multiloop", "serve", *arguments, "--pid-file", str(folder / "pid")],
            cwd=folder,
            env=environment(PYTHONDONTWRITEBYTECODE="1", XDG_RUNTIME_DIR="/run/user/0"),
        )
        try:
            wait_until(lambda: process.poll() is not None or (log.exists() and "serving" in log.read_text()))
            address = re.search(r"http://\S+?(?=[ ,])", log.read_text())
            assert address is not None
            found = ask(address[0])
            assert (found["uid"], found["gid"]) == (user.pw_uid, user.pw_gid)
            assert 0 not in found["groups"]
            assert found["env"]["HOME"] == user.pw_dir
            assert "XDG_RUNTIME_DIR" not in found["env"]
            uids = re.search(r"^Uid:\s+(.*)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
            assert uids is not None
            assert set(uids[1].split()) == {str(user.pw_uid)}
            log.rename(run / "rotated")
            process.send_signal(signal.SIGUSR1)
            wait_until(log.exists)
            if workers != "0":
                done = multiloop(folder, "reload", "--control", str(run / "control.sock"))
                assert "generation 2" in done.stdout
            process.terminate()
            assert process.wait(40) == 0
            assert (folder / "pid").read_text() == ""  # the folder is root's: it could only be emptied
        finally:
            process.kill()
            process.wait()
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_a_user_who_cannot_read_the_package_is_one_line() -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/multiloop-user-XXXXXX"], text=True).strip())
    try:
        package = Path(part_of_the_package.__file__).parent
        shutil.copytree(package, folder / "private" / "multiloop", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "private").chmod(0o700)
        folder.chmod(0o755)
        (folder / "main.py").write_text(APP)
        for workers in ("0", "1"):
            done = subprocess.run(
                [sys.executable, "-m", "multiloop", "serve", "main:handler", "--port", "0", "--workers", workers,
                 "--user", "nobody"],
                cwd=folder,
                env=environment(PYTHONPATH=str(folder / "private")),
                capture_output=True,
                text=True,
                timeout=60,
            )  # fmt: skip
            assert done.returncode == 2
            assert done.stderr == (
                f"multiloop: --user nobody: may not read multiloop in {folder}/private/multiloop: "
                "install it where that user can reach it\n"
            )
    finally:
        shutil.rmtree(folder)


def test_a_user_who_is_not_there_is_one_line(folder: Path) -> None:
    assert "no such user" in mistake(folder, 2, "serve", "main:handler", "--user", "nobody-of-this-name")
    assert "no such group" in mistake(folder, 2, "serve", "main:handler", "--group", "nobody-of-this-name")


# --- the environment of workers -----------------------------------------------------------------------------------
def test_each_worker_has_an_environment_of_its_own_that_its_replacement_gets_too(folder: Path) -> None:
    env = ["--env", "DEVICE=cuda:{slot}", "--env", "NUMBER={worker}", "--env", "LIST=a,b=c"]
    with serving(folder, "main:handler", "--workers", "2", "--name", "shop", *env) as (_, url):
        wait_until(lambda: len({ask(url)["pid"] for _ in range(6)}) == 2)
        seen = {found["env"]["MULTILOOP_SLOT"]: found for found in (ask(url) for _ in range(6))}
        assert {slot: found["env"]["DEVICE"] for slot, found in seen.items()} == {"0": "cuda:0", "1": "cuda:1"}
        first = seen["1"]["env"]
        assert (first["MULTILOOP_APP"], first["LIST"]) == ("shop", "a,b=c")
        assert first["NUMBER"] == first["MULTILOOP_WORKER"]
        said = control(folder, "restart", "--worker", first["MULTILOOP_WORKER"])
        assert re.fullmatch(rf"worker {first['MULTILOOP_WORKER']} is replaced by worker \d+\n", said)
        after = {found["env"]["MULTILOOP_SLOT"]: found for found in (ask(url) for _ in range(6))}
        assert after["1"]["env"]["DEVICE"] == "cuda:1"
        assert after["1"]["pid"] != seen["1"]["pid"]
        assert after["0"]["pid"] == seen["0"]["pid"]
        ended = json.loads(control(folder, "status", "--json"))["ended"]
        assert [one["why"] for one in ended] == ["recycled: a restart was asked for"]
        assert "no worker 99" in mistake(
            folder, 8, "restart", "--worker", "99", "--control", str(folder / "control.sock")
        )


def test_a_restart_to_broken_code_leaves_the_worker_and_says_why(folder: Path) -> None:
    with serving(folder, "main:handler", "--workers", "1") as (_, url):
        before = ask(url)
        (folder / "main.py").write_text(BROKEN)
        said = mistake(
            folder,
            8,
            "restart",
            "--worker",
            before["env"]["MULTILOOP_WORKER"],
            "--control",
            str(folder / "control.sock"),
        )
        assert "no luck today" in said
        assert ask(url)["pid"] == before["pid"]


def test_what_an_environment_cannot_hold_is_one_line(folder: Path) -> None:
    assert "NAME=value" in mistake(folder, 2, "serve", "main:handler", "--env", "NOTHING")
    assert "cannot be the name" in mistake(folder, 2, "serve", "main:handler", "--env", "A B=1")
    assert "--standby" in mistake(folder, 2, "serve", "main:handler", "--standby", "1", "--env", "A={slot}")


# --- several applications -----------------------------------------------------------------------------------------
CLUSTER = """\
log-level = "info"
[apps.web]
target = "main:handler"
port = {web}
workers = 2
env = {{ COLOUR = "blue" }}
[apps.admin]
target = "main:handler"
uds = "{folder}/admin.sock"
workers = 1
[apps.jobs]
target = "jobs:handler"
port = {jobs}
workers = 1
"""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


@contextlib.contextmanager
def cluster(folder: Path, text: str) -> Iterator[subprocess.Popen[bytes]]:
    (folder / "cluster.toml").write_text(text)
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "multiloop", "serve", "--config", "cluster.toml"],
            cwd=folder,
            env=environment(MULTILOOP_CONTROL=str(folder / "control.sock"), PYTHONDONTWRITEBYTECODE="1"),
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(40)
        finally:
            process.kill()
            process.wait()


def states(folder: Path) -> dict[str, str]:
    try:
        found = json.loads(control(folder, "status", "--json"))
    except AssertionError:
        return {}
    return {app["name"]: app["state"] for app in found["apps"]}


def test_several_applications_share_a_primary_and_one_that_cannot_start_stops_no_other(folder: Path) -> None:
    web, jobs = free_ports(2)
    (folder / "jobs.py").write_text(BROKEN)
    with cluster(folder, CLUSTER.format(web=web, jobs=jobs, folder=folder)) as process:
        wait_until(lambda: states(folder) == {"web": "serving", "admin": "serving", "jobs": "failed"}, 60)
        found = ask(f"http://127.0.0.1:{web}/")
        assert (found["env"]["MULTILOOP_APP"], found["env"]["COLOUR"]) == ("web", "blue")
        status = json.loads(control(folder, "status", "--json"))
        assert [len(app["workers"]) for app in status["apps"] if app["state"] == "serving"] == [2, 1]
        assert len({worker["number"] for worker in status["workers"]}) == len(status["workers"])
        assert "which application" in mistake(folder, 8, "scale", "3", "--control", str(folder / "control.sock"))
        assert control(folder, "scale", "2", "--app", "admin") == "scaling to 2 workers\n"
        (folder / "jobs.py").write_text(APP)
        assert "1 worker" in control(folder, "reload", "--app", "jobs")
        assert ask(f"http://127.0.0.1:{jobs}/")["env"]["MULTILOOP_APP"] == "jobs"
        assert "5 workers" in control(folder, "reload")
        titles = subprocess.run(["ps", "-o", "args=", "--ppid", str(process.pid)], capture_output=True, text=True)
        assert len(re.findall(r"multiloop: worker \d+ \((web|admin|jobs)\)", titles.stdout)) == 5
        process.terminate()
        assert process.wait(40) == 0
        log = (folder / "log").read_text()
        assert log.count("no luck today") == 1  # tried again, told once
        assert not (folder / "admin.sock").exists()


def test_when_no_application_can_start_that_is_the_end(folder: Path) -> None:
    web, jobs = free_ports(2)
    for name in ("main", "jobs"):
        (folder / f"{name}.py").write_text(BROKEN)
    with cluster(folder, CLUSTER.format(web=web, jobs=jobs, folder=folder)) as process:
        assert process.wait(60) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[apps.a]\ntarget = "main:handler"\ncontrol = "x"\n', "holds for the whole server"),
        ("[apps.a]\nport = 1\n", "no target"),
        ('target = "main:handler"\n[apps.a]\ntarget = "main:handler"\n', "a target beside"),
        ('[apps.a]\ntarget = "main:handler"\nprot = 1\n', "did you mean 'port'"),
        ('[apps.a]\ntarget = "main:handler"\n[apps.b]\ntarget = "main:handler"\n', "the same address"),
        ('[apps."a b"]\ntarget = "main:handler"\n', "letters, digits"),
        ("apps = 3\n", "one table for each application"),
        (
            '[apps.a]\ntarget = "main:handler"\nworkers = 0\n[apps.b]\ntarget = "main:handler"\nport = 1\n',
            "give it a worker",
        ),
    ],
)
def test_a_mistake_in_a_file_of_applications_is_one_line(folder: Path, text: str, said: str) -> None:
    (folder / "cluster.toml").write_text(text)
    assert said in mistake(folder, 2, "serve", "--config", "cluster.toml")


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        ('target = "nosuch:handler"', 4, "b: no module named 'nosuch'"),
        ('target = "main:handler"\napp-dir = "nosuch"', 2, "b: --app-dir 'nosuch' is not a folder"),
        ('target = "main:handler"\nenv-file = "nosuch.env"', 2, "b: "),
    ],
)
def test_what_one_application_lacks_is_seen_before_any_is_started(
    folder: Path, wrong: str, code: int, said: str
) -> None:
    (folder / "cluster.toml").write_text(f'[apps.a]\ntarget = "main:handler"\n[apps.b]\nport = 1\n{wrong}\n')
    assert f"multiloop: {said}" in mistake(folder, code, "serve", "--config", "cluster.toml")


def test_check_prints_a_file_of_applications_that_config_takes(folder: Path) -> None:
    (folder / "jobs.py").write_text(APP)
    (folder / "cluster.toml").write_text(CLUSTER.format(web=1234, jobs=1235, folder=folder))
    first = multiloop(folder, "serve", "--config", "cluster.toml", "--check")
    assert first.returncode == 0, first
    (folder / "again.toml").write_text(first.stdout)
    again = multiloop(folder, "serve", "--config", "again.toml", "--check")
    values = [re.sub(r"\s*# .*", "", line) for line in first.stdout.splitlines()]
    assert [re.sub(r"\s*# .*", "", line) for line in again.stdout.splitlines()] == values
    assert [line for line in values if line.startswith("[")] == ["[apps.web]", "[apps.admin]", "[apps.jobs]"]


# --- logs ---------------------------------------------------------------------------------------------------------
def test_logs_shows_the_last_lines_of_all_processes_and_follows_new_ones(folder: Path) -> None:
    with serving(folder, "main:handler", "--workers", "2") as (process, url):
        wait_until(lambda: len({ask(url)["pid"] for _ in range(6)}) == 2)
        for number in range(4):
            get(f"{url}/log?what=before{number}")
        lines = control(folder, "logs", "--no-follow", "-n", "100").splitlines()
        assert [word for line in lines for word in re.findall(r"sold (before\d)", line)] == [
            "before0",
            "before1",
            "before2",
            "before3",
        ]
        assert any(f"primary ({process.pid}): serving" in line for line in lines)
        with open(folder / "followed", "w") as out:
            reader = subprocess.Popen(
                [sys.executable, "-m", "multiloop", "logs", "-n", "1", "--control", str(folder / "control.sock")],
                env=environment(),
                stdout=out,
            )
        try:
            wait_until(lambda: "before3" in (folder / "followed").read_text())
            get(f"{url}/log?what=after")
            wait_until(lambda: "sold after" in (folder / "followed").read_text())
            control(folder, "reload")  # new workers are followed, too
            get(f"{url}/log?what=later")
            wait_until(lambda: "sold later" in (folder / "followed").read_text())
            assert "before2" not in (folder / "followed").read_text()
            process.terminate()
            assert reader.wait(10) == 0
        finally:
            reader.kill()
            reader.wait()
