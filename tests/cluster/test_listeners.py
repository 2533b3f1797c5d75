"""The listening sockets: every kind of address, every way in which it can be refused, nothing left behind."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from multiloop.cluster import _listeners
from multiloop.cluster._listeners import EXIT_LISTEN, close_listeners, open_listeners
from multiloop.cluster._settings import ListenAddress
from multiloop.errors import ConfigError
from tests.support import environment

LOCAL = "127.0.0.1"


def refused(*addresses: ListenAddress, **options: bool) -> str:
    """Open what must be refused; return the one line that says why."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError) as caught:
        open_listeners(addresses, **options)
    assert caught.value.exit_code == EXIT_LISTEN
    assert "\n" not in str(caught.value)
    assert len(os.listdir("/proc/self/fd")) == before
    return str(caught.value)


def test_a_tcp_listener_listens_and_says_its_port() -> None:
    [listener] = open_listeners([ListenAddress(LOCAL, 0)])
    try:
        port = listener.sock.getsockname()[1]
        assert listener.name == f"127.0.0.1:{port}"
        assert listener.url() == f"http://127.0.0.1:{port}"
        assert listener.is_tcp
        assert not listener.sock.get_inheritable()
        socket.create_connection((LOCAL, port)).close()
    finally:
        listener.close()


def test_every_address_of_the_machine_gets_one_port() -> None:
    listeners = open_listeners([ListenAddress("*", 0)])
    try:
        assert len({listener.sock.getsockname()[1] for listener in listeners}) == 1
    finally:
        close_listeners(listeners)


def test_a_port_in_use_is_one_line_and_nothing_stays_open() -> None:
    [first] = open_listeners([ListenAddress(LOCAL, 0)])
    try:
        port = first.sock.getsockname()[1]
        assert "in use" in refused(ListenAddress(LOCAL, 0), ListenAddress(LOCAL, port))
        assert str(port) in refused(ListenAddress(LOCAL, port))
    finally:
        first.close()


def test_a_port_that_a_reuse_port_server_holds_is_in_use_for_a_second_one() -> None:
    [first] = open_listeners([ListenAddress(LOCAL, 0)], reuse_port=True)
    try:
        port = first.sock.getsockname()[1]
        assert "in use" in refused(ListenAddress(LOCAL, port), reuse_port=True)
    finally:
        first.close()


def test_a_reuse_port_listener_has_twins_on_the_same_address() -> None:
    [first] = open_listeners([ListenAddress(LOCAL, 0)], reuse_port=True)
    with first.twin() as twin:
        assert twin.getsockname() == first.sock.getsockname()
    first.close()
    [plain] = open_listeners([ListenAddress(LOCAL, 0)])
    with pytest.raises(ConfigError, match="another policy"):
        plain.twin()
    plain.close()


def test_an_address_of_another_machine_is_one_line() -> None:
    assert "no such address" in refused(ListenAddress("192.0.2.1", 0))
    assert "no such address" in refused(ListenAddress("no.such.host.invalid", 0))


@pytest.mark.skipif(os.geteuid() != 0, reason="as another user ports below 1024 are refused anyway")
def test_a_privileged_port_is_one_line() -> None:
    code = f"""
import encodings.idna, os
from multiloop.cluster._listeners import open_listeners
from multiloop.cluster._settings import ListenAddress
from multiloop.errors import ConfigError
os.setuid(65534)
try: open_listeners([ListenAddress({LOCAL!r}, 80)])
except ConfigError as error: print(error)
else: print("allowed")
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    limit = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if limit.exists() and int(limit.read_text()) > 80:
        assert "below 1024" in said
        assert len(said.splitlines()) == 1


# --- Unix sockets -------------------------------------------------------------------------------------------------
def test_a_unix_socket_has_its_mode_whatever_the_umask_and_goes_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    before = os.umask(0)
    try:
        [listener] = open_listeners([ListenAddress(path=str(path), path_mode=0o660)])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert listener.name == f"unix:{path}"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()
    assert list(tmp_path.iterdir()) == []


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    [listener] = open_listeners([ListenAddress(path=str(path))])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()
    assert list(tmp_path.iterdir()) == []


def test_a_live_unix_socket_is_never_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    [listener] = open_listeners([ListenAddress(path=str(path))])
    inode = path.stat().st_ino
    assert "listens there already" in refused(ListenAddress(path=str(path)))
    assert path.stat().st_ino == inode
    listener.close()


def test_two_servers_that_start_at_one_moment_never_both_have_the_path(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    code = """
import sys
from multiloop.cluster._listeners import open_listeners
from multiloop.cluster._settings import ListenAddress
from multiloop.errors import ConfigError
sys.stdin.read(1)
try: kept = open_listeners([ListenAddress(path=sys.argv[1])])
except ConfigError as error: print(error)
else: print("mine", flush=True)
sys.stdin.read()
"""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = []
    for child in children:
        assert child.stdin is not None
        child.stdin.write("x")
        child.stdin.flush()
    for child in children:
        assert child.stdout is not None
        said.append(child.stdout.readline().strip())
    for child in children:
        child.communicate()  # only now: who ended early would have left a stale path to the others
    assert said.count("mine") == 1
    assert sum("listens there already" in line for line in said) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.sock"]


def test_a_file_that_is_no_socket_is_never_taken(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    assert "no socket" in refused(ListenAddress(path=str(path)))
    assert path.read_text() == "data"
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_a_path_that_somebody_else_made_anew_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    [listener] = open_listeners([ListenAddress(path=str(path))])
    path.rename(tmp_path / "old")
    path.write_text("theirs")
    listener.close()
    assert path.read_text() == "theirs"


def test_a_long_path_that_fits_is_used_and_a_longer_one_is_one_line(tmp_path: Path) -> None:
    room = _listeners._PATH_LIMIT - len(os.fsencode(tmp_path)) - 1
    if room < 1:
        pytest.skip("the temporary folder's own path is too long")
    path = tmp_path / ("x" * room)
    [listener] = open_listeners([ListenAddress(path=str(path))])
    assert path.is_socket()
    listener.close()
    assert "bytes" in refused(ListenAddress(path=str(path) + "y"))


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    assert "folder does not exist" in refused(ListenAddress(path=str(tmp_path / "none" / "a.sock")))


# --- inherited descriptors and systemd ----------------------------------------------------------------------------
def test_an_inherited_descriptor_is_used_and_bad_ones_are_one_line(tmp_path: Path) -> None:
    with socket.create_server((LOCAL, 0)) as server:
        fd = os.dup(server.fileno())
        [listener] = open_listeners([ListenAddress(fd=fd)])
        assert listener.name == f"127.0.0.1:{server.getsockname()[1]}"
        listener.close()
    with open(tmp_path / "file", "w") as file:
        assert "not a socket" in refused(ListenAddress(fd=file.fileno()))
    assert "not open" in refused(ListenAddress(fd=987))
    with socket.socket() as unbound, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        assert "no address" in refused(ListenAddress(fd=unbound.fileno()))
        assert "stream" in refused(ListenAddress(fd=datagrams.fileno()))


def test_what_systemd_handed_over_is_taken_once() -> None:
    environ = {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "web:admin", "OTHER": "x"}
    assert _listeners.activated(environ) == (ListenAddress(fd=3, fd_name="web"), ListenAddress(fd=4, fd_name="admin"))
    assert environ == {"OTHER": "x"}
    assert _listeners.activated(environ) == ()


def test_what_systemd_handed_to_another_process_is_not_ours() -> None:
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": "1"}
    assert _listeners.activated(environ) == ()
    assert environ["LISTEN_FDS"] == "1"


@pytest.mark.parametrize("count", ["0", "-1", "many", "99999"])
def test_senseless_activation_variables_are_one_line(count: str) -> None:
    with pytest.raises(ConfigError, match="LISTEN_FDS"):
        _listeners.activated({"LISTEN_FDS": count, "LISTEN_PID": str(os.getpid())})
