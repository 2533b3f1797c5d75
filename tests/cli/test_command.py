"""The command as people meet it: real processes, every mistake one line and a documented exit code, nobody left."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cli.harness import ASGI, get, mistake, multiloop, serving
from tests.support import environment, wait_until

from multiloop import cli
from multiloop.cli._options import GROUPS, OPTIONS
from multiloop.cluster._exit_codes import ExitCode

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(ASGI)
    (tmp_path / "broken.py").write_text("raise RuntimeError('no luck today')\n")
    return tmp_path


def connects(client: http.client.HTTPConnection) -> bool:
    try:
        client.connect()
    except OSError:
        return False
    return True


# --- the command itself -------------------------------------------------------------------------------------------
def test_version_says_what_runs(tmp_path: Path) -> None:
    done = multiloop(tmp_path, "--version")
    assert re.fullmatch(
        r"multiloop \S+ \(CPython 3\.\S+ on \w+, loop \S+.*, (pure Python|compiled|partly).*\)\n", done.stdout
    )


def test_the_installed_script_is_the_same_command() -> None:
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert pyproject["project"]["scripts"]["multiloop"] == "multiloop.cli:main"


def test_help_names_every_option_and_fits_a_screen_s_width(tmp_path: Path) -> None:
    done = multiloop(tmp_path, "serve", "--help")
    assert done.returncode == 0
    for option in OPTIONS.values():
        assert re.search(rf"--(\[no-\])?{option.name}\b", done.stdout), option.name
    for group in GROUPS:
        assert f"{group.title}:" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_help_into_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m multiloop serve --help | true", shell=True, env=environment(), capture_output=True
    )
    assert done.stderr == b""


def test_every_option_and_exit_code_stands_in_the_reference() -> None:
    table = (REFERENCE / "options.md").read_text()
    said = set(re.findall(r"--(?:no-)?([a-z-]+)", table)) | set(re.findall(r"--([a-z-]+)", table))
    # What no other server has needs no translation.
    own = {"standby", "restart-max", "restart-window", "dev", "config", "startup-timeout", "first-byte-timeout"}
    own |= {"body-idle-timeout", "body-min-rate", "write-timeout", "tls-handshake-timeout", "max-body-size"}
    own |= {"max-requests-per-connection", "wsgi-queue"}
    assert set(OPTIONS) - said - own == set()
    codes = dict(re.findall(r"^\| (\d+) \| (.+) \|$", (REFERENCE / "command-line.md").read_text(), re.MULTILINE))
    assert {int(code) for code in codes} == {int(code) for code in ExitCode} | {130}


# --- mistakes -----------------------------------------------------------------------------------------------------
SEEN_AT_ONCE = [
    (2, ["serve"], "no target"),
    (2, ["serve", "main:app", "--prot", "80"], "--port"),
    (2, ["serve", "main:app", "--port", "eighty"], "whole number"),
    (2, ["serve", "main:app", "--workers", "-1"], "0 to 1024"),
    (2, ["serve", "main:app", "more"], "unexpected extra argument"),
    (2, ["sevre"], "no such command"),
    (2, ["scale", "none"], "not a valid integer"),
    (2, ["serve", "main:app", "--app-dir", "none"], "not a folder"),
    (2, ["serve", "main:app", "--reload", "--reload-dir", "none"], "not a folder"),
    (2, ["serve", "main:app", "--env-file", "none"], "No such file"),
    (2, ["serve", "main:app", "--env-file", "main.py"], "line 1: write NAME=value"),
    (2, ["serve", "main:app", "--tls-cert", "none.pem"], "No such file"),
    (2, ["serve", "main:app", "--tls-cert", "main.py"], "cannot be used"),
    (2, ["serve", "main:app", "--trusted-proxies", "everybody"], "use an address, a network"),
    (2, ["serve", "main:app", "--log-file", "/none/x.log"], "cannot be opened"),
    (4, ["serve", "nosuch:app"], "no module named 'nosuch'"),
    (4, ["serve", "main.py"], "write main:app"),
    (4, ["serve", "src/main.py:make"], "write main:make with --app-dir src"),
    (7, ["status", "--control", "none.sock"], "no such socket"),
    (7, ["stop", "--control", "none.sock"], "no such socket"),
]
SEEN_BEFORE_A_WORKER = [
    (2, ["serve", "main:app", "--log-config", "main.py"], "no logging configuration"),
    (6, ["serve", "main:app", "--host", "192.0.2.1"], "no such address"),
    (6, ["serve", "main:app", "--uds", "none/x.sock"], "folder does not exist"),
    (6, ["serve", "main:app", "--fd", "77"], "not open"),
]
SEEN_BY_THE_FIRST_WORKER = [
    (4, ["serve", ":app"], "module:attribute"),
    (4, ["serve", "main:nosuch"], "no attribute 'nosuch'"),
    (4, ["serve", "main:nosuch", "--workers", "0"], "no attribute 'nosuch'"),
    (5, ["serve", "main:make"], "--factory"),
    (5, ["serve", "main:number", "--check"], "not an application"),
]
Mistake = tuple[int, list[str], str]


@pytest.mark.parametrize("expected", SEEN_AT_ONCE, ids=lambda expected: " ".join(expected[1]))
def test_a_mistake_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], expected: Mistake
) -> None:
    code, arguments, words = expected
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MULTILOOP_CONTROL", raising=False)
    assert cli.run(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("multiloop: ")
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "expected", SEEN_BEFORE_A_WORKER + SEEN_BY_THE_FIRST_WORKER, ids=lambda expected: " ".join(expected[1])
)
def test_a_mistake_that_shows_later_is_one_line_too(folder: Path, expected: Mistake) -> None:
    code, arguments, words = expected
    assert words in mistake(folder, code, *arguments, "--port", "0", MULTILOOP_CONTROL="c.sock")


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_busy_port_is_one_line_and_no_worker_starts(folder: Path, workers: str) -> None:
    (folder / "main.py").write_text("open('imported', 'w')\n" + ASGI)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "in use" in mistake(folder, 6, "serve", "main:app", "--port", port, "--workers", workers)
    assert not (folder / "imported").exists()


def test_an_application_that_raises_is_its_traceback_once_and_exit_code_3(folder: Path) -> None:
    for more in (["--workers", "0"], ["--check"]):
        done = multiloop(folder, "serve", "broken:app", "--port", "0", *more)
        assert done.returncode == ExitCode.NEVER_READY
        assert done.stderr.count("Traceback") == 1
        assert done.stderr.count("RuntimeError: no luck today") == 2  # in the line, and where the traceback ends
        assert "/multiloop/" not in done.stderr


# --- --check ------------------------------------------------------------------------------------------------------
def test_check_prints_what_is_in_force_as_a_file_that_config_takes(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.multiloop]\ngrace = 5\n")
    done = multiloop(folder, "serve", "main:app", "--check", "--port", "9000", MULTILOOP_MAX_RSS="1GiB")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^port = 9000 +# command line$", done.stdout, re.MULTILINE)
    assert re.search(r"^max-rss = 1073741824 +# MULTILOOP_MAX_RSS$", done.stdout, re.MULTILINE)
    assert re.search(r"^grace = 5 +# pyproject.toml$", done.stdout, re.MULTILINE)
    assert re.search(r"^keep-alive-timeout = 15 +# default$", done.stdout, re.MULTILINE)
    assert "main:app (asgi)" in done.stdout
    (folder / "pyproject.toml").unlink()
    (folder / "c.toml").write_text(done.stdout)
    again = multiloop(folder, "serve", "--check", "--config", "c.toml")
    assert tomllib.loads(again.stdout) == tomllib.loads(done.stdout)


def test_check_never_prints_a_password(folder: Path) -> None:
    import trustme

    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(folder / "c.pem"))
    done = multiloop(folder, "serve", "main:app", "--check", "--tls-cert", "c.pem", MULTILOOP_TLS_KEY_PASSWORD="geheim")
    assert done.returncode == 0, done.stderr
    assert "geheim" not in done.stdout + done.stderr


# --- one process --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_workers_0_serves_in_this_process_until_it_is_told_to_stop(folder: Path, loop: str) -> None:
    (folder / ".env").write_text("GREETING='hello there'\n")
    arguments = ["main:app", "--workers", "0", "--loop", loop, "--env-file", ".env", "--access-log"]
    with serving(folder, *arguments) as (process, url):
        assert get(f"{url}/a%1b") == f"{process.pid} hello there"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    log = (folder / "log").read_text()
    assert log.count("shut down") == 1
    assert '"GET /a%1b HTTP/1.1" 200' in log


@contextmanager
def started(folder: Path, *arguments: str, pass_fds: tuple[int, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """Serve in one process; it ends well when it is told to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "multiloop", "serve", "main:app", "--workers", "0", *arguments],
        cwd=folder,
        env=environment(),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=pass_fds,
    )
    try:
        yield process
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_workers_0_listens_on_a_unix_socket_and_removes_it(folder: Path) -> None:
    path = folder / "a.sock"

    def listens() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(path)) == 0

    with started(folder, "--uds", str(path)):
        wait_until(listens)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            with client.makefile("rb") as reply:
                assert reply.read().startswith(b"HTTP/1.1 200")
        assert "listens there already" in mistake(folder, 6, "serve", "main:app", "--workers", "0", "--uds", str(path))
    assert not path.exists()


def test_workers_0_takes_an_inherited_descriptor(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        fd, port = server.fileno(), server.getsockname()[1]
        with started(folder, "--fd", str(fd), pass_fds=(fd,)) as process:
            assert get(f"http://127.0.0.1:{port}/").startswith(str(process.pid))


ACTIVATION = """
import os, socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
os.dup2(server.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="web")
os.execv(sys.executable, [sys.executable, "-m", "multiloop", "serve", "main:app", *sys.argv[2:]])
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_sockets_of_a_service_manager_are_served(folder: Path, workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "main.py").write_text(ASGI.replace("GREETING", "LISTEN_FDS"))
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", ACTIVATION, str(port), "--workers", workers],
            cwd=folder,
            env=environment(MULTILOOP_CONTROL=""),
            stderr=log,
        )
    try:
        wait_until(lambda: "serving" in (folder / "log").read_text() or process.poll() is not None)
        assert f"http://127.0.0.1:{port} (web)" in (folder / "log").read_text()
        assert get(f"http://127.0.0.1:{port}/").endswith("None")  # the application does not see the variables
    finally:
        process.terminate()
        assert process.wait(20) == 0


# --- a cluster ----------------------------------------------------------------------------------------------------
def test_a_server_is_asked_reloaded_scaled_and_stopped(folder: Path) -> None:
    control = str(folder / "control.sock")
    with serving(folder, "main:app", "--workers", "1") as (process, url):
        worker = get(url).split()[0]
        assert worker != str(process.pid)
        status = multiloop(folder, "status", "--control", control)
        assert "main:app on http://127.0.0.1:" in status.stdout
        assert worker in status.stdout
        found: Mapping[str, object] = json.loads(multiloop(folder, "status", "--json", "--control", control).stdout)
        assert found["pid"] == process.pid
        assert multiloop(folder, "scale", "2", "--control", control).stdout == "scaling to 2 workers\n"
        assert multiloop(folder, "reload", "--control", control).stdout == "reloaded: generation 2, 2 workers\n"
        assert get(url).split()[0] != worker
        (folder / "main.py").write_text("raise RuntimeError('no luck today')\n")
        assert "no luck today" in mistake(folder, 8, "reload", "--control", control)
        assert get(url).endswith("None")
        assert multiloop(folder, "stop", "--control", control).stdout == f"stopped {process.pid}\n"
        assert process.wait(10) == 0
    assert not os.path.exists(control)


def test_a_stalled_standard_error_stops_neither_requests_nor_the_end(folder: Path) -> None:
    reader, writer = os.pipe()  # nobody reads: after some hundred lines it is full
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*(sys.executable, "-m", "multiloop", "serve", "main:app", "--port", str(port)),
         *("--workers", "1", "--access-log", "--control", "")],
        cwd=folder,
        env=environment(),
        stderr=writer,
    )  # fmt: skip
    try:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        wait_until(lambda: connects(client))
        for _ in range(2000):
            client.request("GET", "/" + "x" * 100)
            assert client.getresponse().read()
        client.close()
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reader)
        os.close(writer)


def test_log_files_are_reopened_by_every_process(folder: Path) -> None:
    log = folder / "server.log"
    control = str(folder / "control.sock")
    arguments = ["serve", "main:app", "--port", "0", "--workers", "1", "--access-log", "--log-file", str(log)]
    process = subprocess.Popen(
        [sys.executable, "-m", "multiloop", *arguments, "--control", control], cwd=folder, env=environment()
    )
    try:
        wait_until(lambda: log.exists() and "serving" in log.read_text())
        found = re.search(r"http://\S+", log.read_text())
        assert found is not None
        get(f"{found[0]}/before")
        wait_until(lambda: "/before" in log.read_text())
        log.rename(folder / "rotated")
        process.send_signal(signal.SIGUSR1)
        wait_until(log.exists)
        wait_until(lambda: [get(f"{found[0]}/after"), "/after" in log.read_text()][1])
        process.terminate()
        assert process.wait(10) == 0
        assert "stopping" in log.read_text()
        assert "/before" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def test_serve_loads_nothing_of_programs_that_fork_themselves() -> None:
    """They are a third of what the primary would have to read before it starts a worker."""
    code = (
        "import sys\n"
        "import multiloop.cli._serve, multiloop.cluster._primary, multiloop.cluster._worker, multiloop.http._service\n"
        "print([name for name in sys.modules if '._forks' in name or '.child_process' in name])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
