"""Unix sockets' paths: checking, binding, and cleaning up without ever stealing a live server's.

What lives here: what is peculiar to paths, all of it blocking (it is short, and runs on the threads). What must not:
accepting or connecting.

Binding
* A path nobody answers at is stale and replaced; a live one is left alone: EADDRINUSE. Two servers of ours that start at
  once are told apart by a lock on the folder, which leaves no file behind.
* The mode is set before the socket appears under its name, so there is no moment in which others could connect.
* At the end the path is removed only if it is still the one that was made here.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..errors import InvalidPath

_LIMIT_BYTES = 107 if sys.platform == "linux" else 103  # sockaddr_un without its NUL
_CONNECT_S = 1.0  # for a live server with a full backlog to take the question whether it lives

Identity = tuple[int, int]
Bound = tuple[socket.socket, Identity | None]


def as_path(path: str | os.PathLike[str]) -> str:
    """Return the path as text. Raises TypeError for what is none: whether it can be one is for `checked_path`."""
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"a path is a str, not {type(text).__name__}")
    return text


def checked_path(path: str | os.PathLike[str]) -> str:
    """Return the path as text. Raises OSError (EINVAL) for one that the kernel would cut, InvalidPath for a NUL in it."""
    text = as_path(path)
    if not text:
        raise OSError(errno.EINVAL, "a Unix socket's path cannot be empty", text)
    if "\0" in text[1:] or (text[0] == "\0" and sys.platform != "linux"):
        raise InvalidPath(text)
    if len(os.fsencode(text)) > _LIMIT_BYTES:
        raise OSError(errno.EINVAL, f"a Unix socket's path has at most {_LIMIT_BYTES} bytes", text)
    return text


def bind(path: str, mode: int, backlog: int) -> Bound:
    """Return a socket that listens at `path`, and what tells that the path is ours. Raises OSError with the path."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path[0] == "\0":  # Linux's abstract names: no file
            sock.bind(path)
            sock.listen(backlog)
            return sock, None
        with suppress(OSError):  # Linux takes the file's mode from the socket; elsewhere chmod below is the first
            os.fchmod(sock.fileno(), mode)
        with _locked(os.path.dirname(path) or "."):
            try:
                sock.bind(path)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not _is_stale(path):
                    raise
                os.unlink(path)
                sock.bind(path)
            os.chmod(path, mode)
            identity = identify(path)
            sock.listen(backlog)
        return sock, identity
    except OSError as error:
        sock.close()
        if error.filename is None:
            error.filename = path
        raise
    except BaseException:
        sock.close()
        raise


def discard(bound: Bound) -> None:
    """Undo `bind`: for one that came too late."""
    path = bound[0].getsockname()
    bound[0].close()
    if isinstance(path, str):
        unlink_ours(path, bound[1])


def unlink_ours(path: str, identity: Identity | None) -> None:
    """Remove the path if it is still the one that was bound here."""
    with suppress(OSError):
        if identity is not None and identify(path) == identity:
            os.unlink(path)


def identify(path: str) -> Identity | None:
    """Return what tells one file from another of the same name, or None when there is no such socket."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None


def _is_stale(path: str) -> bool:
    if identify(path) is None:
        return False  # something else has this name: never ours to remove
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    import fcntl

    try:
        lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield  # bind tells what is wrong with the folder, with the path in it
        return
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
