"""What the process itself is to be: umask, pid file, user and group.

What lives here: `prepared`, which does it in the order that matters. What must not: options (`cli`), workers.

    umask ─▶ listening sockets (the caller) ─▶ pid file ─▶ what was made goes to the user ─▶ user and group ─▶ serve

The whole server changes its user, the primary included: its workers run the application's code and send it pickles, so a
primary that stayed root would hand root to whoever takes over a worker.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ..errors import ConfigError
from ._listeners import Listener
from ._settings import ProcessSettings, ServeSettings

EXIT_RUNNING = 6  # ExitCode.CANNOT_LISTEN: somebody has what this process needs


class Identity(NamedTuple):
    """A user and a group to become."""

    uid: int
    gid: int
    name: str  # of the user; "" when the number has none
    home: str


# --- umask --------------------------------------------------------------------------------------------------------
def set_umask(settings: ProcessSettings) -> None:
    """Set the umask, for every file that this process and its workers make. Before any is made."""
    if settings.umask is not None:
        os.umask(settings.umask)


@contextlib.contextmanager
def prepared(settings: ProcessSettings, files: Iterable[str] = ()) -> Iterator[None]:
    """Write the pid file and become the user; at the end the pid file is removed.

    Args:
        files: paths that this process made so far (Unix sockets, the log), to be given to the user.

    Raises:
        ConfigError: another server has the pid file, the user does not exist, or may not be taken on.
    """
    identity = find_identity(settings.user, settings.group)
    with contextlib.ExitStack() as stack:
        if settings.pid_file is not None:
            stack.callback(PidFile(settings.pid_file).remove)
        if identity is not None:
            for path in files:
                with contextlib.suppress(OSError):
                    os.chown(path, identity.uid, identity.gid, follow_symlinks=False)
            become(identity)
        yield


def made_files(settings: ServeSettings, listeners: Iterable[Sequence[Listener]]) -> list[str]:
    """Return the paths that this process has made, which a new user must own."""
    found = [sock.address.path for sockets in listeners for sock in sockets if sock.address.path is not None]
    return [*found, *([settings.logs.file] if settings.logs.file is not None else [])]


# --- user and group -----------------------------------------------------------------------------------------------
def find_identity(user: str | None, group: str | None) -> Identity | None:
    """Return who to become; None when that is who this process is. Raises ConfigError (one line) when it cannot be."""
    if user is None and group is None:
        return None
    if not hasattr(os, "setuid"):
        raise ConfigError("--user and --group: this system has none")
    import grp
    import pwd

    name, home, uid, gid = "", "/", os.getuid(), os.getgid()
    if user is not None:
        try:
            entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
            name, home, uid, gid = entry.pw_name, entry.pw_dir, entry.pw_uid, entry.pw_gid
        except KeyError:
            if not user.isdecimal():
                raise ConfigError(f"--user {user!r}: there is no such user") from None
            uid = gid = int(user)
    if group is not None:
        try:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise ConfigError(f"--group {group!r}: there is no such group") from None
    if max(uid, gid) >= 2**32 - 1:
        raise ConfigError(f"--user {user!r}, --group {group!r}: the number is too large")
    if (uid, gid) == (os.getuid(), os.getgid()):
        return None
    if os.getuid() != 0:
        what = "--user" if user is not None else "--group"
        raise ConfigError(f"{what}: only root can change it; start as root, or as that user without {what}")
    return Identity(uid, gid, name, home)


def become(identity: Identity) -> None:
    """Change user and group for good. Raises ConfigError when the system refuses."""
    try:
        if identity.name:
            os.initgroups(identity.name, identity.gid)
        else:
            os.setgroups([identity.gid])
        os.setgid(identity.gid)
        os.setuid(identity.uid)  # root's setuid sets the saved one, too: there is no way back
    except OSError as error:
        raise ConfigError(f"--user {identity.name or identity.uid}: {error.strerror}") from None
    if identity.uid != 0:
        with contextlib.suppress(OSError):
            os.setuid(0)
            raise ConfigError(f"--user {identity.name or identity.uid}: the way back to root is open, refused")
    _check_reading(identity)
    os.environ["HOME"] = identity.home
    if identity.name:
        os.environ["USER"] = os.environ["LOGNAME"] = identity.name
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime is not None and not _owns(runtime, identity.uid):
        del os.environ["XDG_RUNTIME_DIR"]  # it was the other user's


def _check_reading(identity: Identity) -> None:
    """Now, and not at the first import that comes late: may this user read the package?"""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not (os.access(folder, os.R_OK | os.X_OK) and os.access(__file__, os.R_OK)):
        who = identity.name or identity.uid
        raise ConfigError(f"--user {who}: may not read multiloop in {folder}: install it where that user can reach it")


def _owns(path: str, uid: int) -> bool:
    try:
        return os.stat(path).st_uid == uid
    except OSError:
        return False


# --- the pid file -------------------------------------------------------------------------------------------------
class PidFile:
    """A file with this process's number, locked for as long as it lives.

    The lock, not the number, says whether a server runs: a file that a killed one left behind is taken over.
    Raises ConfigError when another server holds it, or it cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._fd = self._take()
        try:
            os.ftruncate(self._fd, 0)
            os.write(self._fd, b"%d\n" % os.getpid())
        except OSError as error:
            os.close(self._fd)
            raise ConfigError(f"--pid-file {path!r} cannot be written: {error.strerror}") from None

    def _take(self) -> int:
        import fcntl

        while True:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise ConfigError(f"--pid-file {self._path!r} cannot be written: {error.strerror}") from None
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise ConfigError(f"--pid-file {self._path!r} is no file: choose another path")
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                other = os.read(fd, 32).decode("ascii", "replace").strip()
                os.close(fd)
                raise ConfigError(
                    f"--pid-file {self._path!r}: a server runs already (pid {other or 'unknown'}), stop it first",
                    exit_code=EXIT_RUNNING,
                ) from None
            except BaseException:
                os.close(fd)
                raise
            if self._is_ours(fd):
                return fd
            os.close(fd)  # its owner removed it between our open and our lock: look again

    def _is_ours(self, fd: int) -> bool:
        mine = os.fstat(fd)
        try:
            there = os.lstat(self._path)
        except OSError:
            return False
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)

    def remove(self) -> None:
        """Remove it, or empty it where the folder does not let us. Safe to call twice."""
        if self._fd < 0:
            return
        try:
            if self._is_ours(self._fd):
                os.unlink(self._path)
        except OSError:  # the folder belongs to root, and we are not root any more
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
        os.close(self._fd)
        self._fd = -1
