"""The listening sockets: made from `ListenAddress`, kept by the primary, cleaned up at the end.

What lives here: `open_listeners`, `Listener`, and what systemd handed over (`activated`). What must not: accepting.

Guarantees
* All or nothing: when one address cannot be had, the sockets made before it are closed again.
* Every failure is a ConfigError of one line that names the address and says what to do; its exit code is EXIT_LISTEN.
* Nobody can connect to a Unix socket before it has its final mode, whatever the umask. A path whose server is gone is
  replaced; a live server's, or another kind of file, never is.
* At the end a path is removed only if it is still ours.
* Sockets are not inherited by children and do not block.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from ._settings import ListenAddress

EXIT_LISTEN = 6  # an address cannot be listened on
_FIRST_ACTIVATED_FD = 3  # systemd's SD_LISTEN_FDS_START
_PATH_LIMIT = 107 if sys.platform == "linux" else 103  # bytes that fit into sockaddr_un, without its NUL
_LIVE_CHECK_S = 1.0  # how long a Unix socket may take to answer whether somebody listens


@dataclass(slots=True, eq=False)
class Listener:
    """One listening socket. `name` says where: `127.0.0.1:8000`, `[::1]:8000` or `unix:/run/app.sock`."""

    sock: socket.socket
    address: ListenAddress
    name: str
    reuse_port: bool = False
    _made: tuple[int, int] | None = field(default=None, repr=False)  # device and inode of a path that is ours

    @property
    def is_tcp(self) -> bool:
        """Whether this is TCP (else a Unix socket)."""
        return self.sock.family != getattr(socket, "AF_UNIX", None)

    @property
    def can_be_shared(self) -> bool:
        """Whether it can have twins."""
        return self.is_tcp and self.reuse_port

    def url(self, scheme: str = "http") -> str:
        """Return what people are told: `http://127.0.0.1:8000`, or `unix:/run/app.sock`."""
        where = f"{scheme}://{self.name}" if self.is_tcp else self.name
        return f"{where} ({self.address.fd_name})" if self.address.fd_name else where

    def twin(self) -> socket.socket:
        """Return another socket on the same TCP address, for one more slot of the reuse_port policy.

        Raises ConfigError when the address cannot be shared (it was not opened with `reuse_port`, or is no TCP one).
        """
        if not self.can_be_shared:
            raise ConfigError(f"--policy reuse_port: {self.name} cannot be shared between slots, use another policy")
        with _one_line(self.name):
            return _listen_tcp(self.sock.family, self.sock.getsockname(), self.address.backlog, reuse_port=True)

    def close(self) -> None:
        """Close the socket, and remove a Unix socket's path if it is still ours."""
        self.sock.close()
        made, self._made = self._made, None
        if made is not None and self.address.path is not None and _identity(self.address.path) == made:
            with contextlib.suppress(OSError):
                os.unlink(self.address.path)


def open_listeners(addresses: Sequence[ListenAddress], *, reuse_port: bool = False) -> list[Listener]:
    """Make the listening sockets, in order; a host name gives one for each of its addresses.

    Args:
        reuse_port: make TCP sockets that `Listener.twin` can share.

    Raises:
        ConfigError: an address is taken, not allowed, or not there (one line, exit code EXIT_LISTEN).
    """
    made: list[Listener] = []
    try:
        for address in addresses:
            made.extend(_open(address, reuse_port))
    except BaseException:
        close_listeners(made)
        raise
    return made


def close_listeners(listeners: Sequence[Listener]) -> None:
    """Close every socket and remove the Unix paths that are still ours."""
    for listener in listeners:
        listener.close()


def activated(environ: MutableMapping[str, str] = os.environ) -> tuple[ListenAddress, ...]:
    """Return the addresses that systemd handed to this process, and forget the variables, so that no child takes them.

    Raises ConfigError when the variables are there and make no sense.
    """
    count, pid = environ.get("LISTEN_FDS"), environ.get("LISTEN_PID")
    if count is None or pid != str(os.getpid()):
        return ()
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        environ.pop(name, None)
    if not count.isdecimal() or not 0 < int(count) < 1024:
        raise ConfigError(f"LISTEN_FDS={count!r} is not a number of descriptors", exit_code=EXIT_LISTEN)
    return tuple(
        ListenAddress(fd=_FIRST_ACTIVATED_FD + i, fd_name=names[i] if i < len(names) else "") for i in range(int(count))
    )


def _open(address: ListenAddress, reuse_port: bool) -> list[Listener]:
    if address.fd is not None:
        return [_inherit(address, address.fd)]
    if address.path is not None:
        return [_open_path(address, address.path)]
    return _open_tcp(address, reuse_port)


# --- TCP ----------------------------------------------------------------------------------------------------------
def _open_tcp(address: ListenAddress, reuse_port: bool) -> list[Listener]:
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError("--policy reuse_port: this system has no SO_REUSEPORT, use another policy")
    made: list[Listener] = []
    port = address.port
    try:
        for family, bare in _resolve(None if address.host in (None, "", "*") else address.host, port):
            where = (bare[0], port, *bare[2:])
            with _one_line(_name(where)):
                if reuse_port and port:
                    # SO_REUSEPORT would let a second server in silently: first see whether the address is free.
                    _listen_tcp(family, where, address.backlog, reuse_port=False).close()
                sock = _listen_tcp(family, where, address.backlog, reuse_port)
            port = sock.getsockname()[1]  # with port 0: the same one for every address of the name
            made.append(Listener(sock, address, _name(sock.getsockname()), reuse_port))
    except BaseException:
        close_listeners(made)
        raise
    return made


def _resolve(host: str | None, port: int) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a host name"
        raise ConfigError(f"--host {host!r}: no such address ({reason})", exit_code=EXIT_LISTEN) from None
    skip = socket.AF_INET6 if host is None and not _has_ipv6() else None
    unique: dict[tuple[socket.AddressFamily, tuple[Any, ...]], None] = {}
    for family, _, _, _, address in found:
        if family != skip:
            unique[family, address] = None
    return list(unique)


def _has_ipv6() -> bool:
    """Whether this machine has IPv6 at all: containers often resolve :: and refuse to bind it."""
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _listen_tcp(family: int, where: tuple[Any, ...], backlog: int, reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # there it would let two servers share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it: a silent peer that is gone is found out by the kernel.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(where)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _name(where: Sequence[Any]) -> str:
    host = f"[{where[0]}]" if ":" in str(where[0]) else where[0]
    return f"{host}:{where[1]}"


# --- inherited descriptors ----------------------------------------------------------------------------------------
def _inherit(address: ListenAddress, fd: int) -> Listener:
    label = f"--fd {fd}"
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        reason = "is not open" if error.errno == errno.EBADF else "is not a socket"
        raise ConfigError(f"{label}: descriptor {fd} {reason} in this process", exit_code=EXIT_LISTEN) from None
    try:
        if sock.type != socket.SOCK_STREAM:
            raise ConfigError(f"{label} is not a stream socket", exit_code=EXIT_LISTEN)
        sock.set_inheritable(False)
        sock.setblocking(False)
        where = sock.getsockname()
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            if isinstance(where, tuple) and not where[1]:
                raise ConfigError(f"{label} is bound to no address", exit_code=EXIT_LISTEN)
            with _one_line(label):
                sock.listen(address.backlog)
    except BaseException:
        sock.detach()  # the descriptor belongs to who passed it
        raise
    name = _name(where) if isinstance(where, tuple) else f"unix:{where}"
    return Listener(sock, address, name)


# --- Unix sockets -------------------------------------------------------------------------------------------------
def _open_path(address: ListenAddress, path: str) -> Listener:
    label = f"unix:{path}"
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError(f"--uds {path!r}: this system has no Unix sockets", exit_code=EXIT_LISTEN)
    if not path or "\0" in path or len(os.fsencode(path)) > _PATH_LIMIT:
        raise ConfigError(f"--uds {path!r}: a path of 1 to {_PATH_LIMIT} bytes is needed", exit_code=EXIT_LISTEN)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _one_line(label), _locked(os.path.dirname(os.path.abspath(path))):
            _remove_stale(path)
            sock.setblocking(False)
            sock.bind(path)
            # Nobody can connect before listen(), so the mode that bind() gave is never one that counts.
            made = _identity(path)
            os.chmod(path, address.path_mode)
            sock.listen(address.backlog)
    except BaseException:
        sock.close()
        raise
    return Listener(sock, address, label, _made=made)


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Keep out another multiloop that starts at the same moment: between bind() and listen() ours would look stale."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(fd)
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    """Take the folder's lock; without it after a second, since anybody who may read the folder can hold it for ever."""
    import fcntl

    deadline = time.monotonic() + _LIVE_CHECK_S
    while time.monotonic() < deadline:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:  # a file system without locks
            return None
    return None


def _remove_stale(path: str) -> None:
    """Remove the socket of a server that is gone. A live one's, or another kind of file, is a ConfigError."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(
            f"--uds {path!r}: a file that is no socket is there, choose another path", exit_code=EXIT_LISTEN
        )
    found = _identity(path)
    if _is_live(path):
        raise ConfigError(f"--uds {path!r}: a server listens there already, stop it first", exit_code=EXIT_LISTEN)
    # Moved aside first: what is removed is then what was found stale, and not what came in its place meanwhile.
    with tempfile.TemporaryDirectory(prefix=".multiloop-", dir=os.path.dirname(path) or ".") as aside:
        moved = os.path.join(aside, "stale")
        os.rename(path, moved)
        if _identity(moved) != found:
            os.link(moved, path)
            raise ConfigError(f"--uds {path!r}: another server starts there, stop it first", exit_code=EXIT_LISTEN)


def _is_live(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_LIVE_CHECK_S)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # its backlog is full, we may not connect, or it is a datagram socket: somebody is there
            return True
        return True


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


# --- errors -------------------------------------------------------------------------------------------------------
_REASONS: Mapping[int, str] = {
    errno.EADDRINUSE: "the address is in use: stop what listens there, or choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EAFNOSUPPORT: "this machine does not speak that kind of address",
    errno.EINVAL: "it cannot listen (it is connected, or bound to nothing)",
    errno.EMFILE: "this process has no descriptor left: raise the limit (ulimit -n)",
    errno.ENOENT: "the folder does not exist",
    errno.ENOTDIR: "its folder is not a folder",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "the file system is full",
}


@contextlib.contextmanager
def _one_line(label: str) -> Iterator[None]:
    """Turn what the system says into one line that names the address and what to do."""
    try:
        yield
    except OverflowError:
        raise ConfigError(f"cannot listen on {label}: ports are 0 to 65535", exit_code=EXIT_LISTEN) from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            reason = (
                "not allowed to write in that folder"
                if label.startswith("unix:")
                else "not allowed: ports below 1024 need root or CAP_NET_BIND_SERVICE, choose a higher one"
            )
        else:
            reason = _REASONS.get(error.errno or 0, os.strerror(error.errno) if error.errno else str(error))
        raise ConfigError(f"cannot listen on {label}: {reason}", exit_code=EXIT_LISTEN) from None
