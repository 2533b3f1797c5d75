"""The control socket: `multiloop status`, `reload`, `scale`, `logs` and the others talk to a running primary through it.

What lives here: `ControlServer` (in the primary), `call` and `follow` (in the command line). What must not: what a
command does (`_commands`), how its answer looks to people (`cli`).

One line of JSON each way: `{"command": "scale", "workers": 4}` ─▶ `{"ok": true, "result": {…}}` or
`{"ok": false, "error": "one line"}`. A connection may carry several, one after the other. It ends with the server, and
whoever asked for a stop waits for that and then for the end of the process. An answer that goes on (`logs`) is followed
by one line for each item, until the other end closes.

It answers also when the process has no descriptor left, because that is when people ask: one is kept for it.

The socket is 0600 in a folder that is 0700 and ours, and the kernel is asked who connects: only the same user, or root.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import select
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ..errors import ConfigError, PeerError
from ..net._full import NO_ROOM, FullTable
from ._exit_codes import ExitCode
from ._listeners import Listener, open_listeners
from ._settings import ListenAddress

log = logging.getLogger("multiloop.cluster")

Handle = Callable[[str, Mapping[str, Any]], Awaitable[Any]]

_MAX_LINE_BYTES = 64 * 1024
_MAX_CONNECTIONS = 16
_IDLE_S = 60.0  # a connection that asks nothing
_ANSWER_S = 10.0  # how long `call` waits for an answer, where the command does not say otherwise
_PEER = struct.Struct("3i")


class CommandFailed(PeerError):
    """The running server could not do what it was asked; the message says why."""


class Stream(NamedTuple):
    """An answer that goes on: the result, then items until the other end closes; then `source` is closed, too."""

    result: Any
    items: AsyncIterator[Any]
    source: AsyncIterator[Any]


# --- where --------------------------------------------------------------------------------------------------------
def folder() -> str:
    """Return the folder of this user's control sockets, made if it is missing.

    Raises ConfigError when it belongs to somebody else or others may write in it.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = os.path.join(runtime, "multiloop") if runtime else _fallback()
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        if runtime is None:
            raise ConfigError(f"--control: cannot make {path!r}: {error.strerror}") from None
        path = _fallback()  # XDG_RUNTIME_DIR points nowhere: that is common under sudo and in containers
        os.makedirs(path, 0o700, exist_ok=True)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(f"--control: {path!r} is not a private folder of this user: choose a path, or remove it")
    return path


def _fallback() -> str:
    return os.path.join(tempfile.gettempdir(), f"multiloop-{os.getuid()}")


def default_path() -> str:
    """Return where this process's control socket is, when nobody says otherwise."""
    return os.path.join(folder(), f"{os.getpid()}.sock")


def running() -> list[str]:
    """Return the sockets of this user's servers that answer; those of dead servers are removed."""
    where = folder()
    found = []
    for name in sorted(os.listdir(where)):
        if name.endswith(".sock"):
            path = os.path.join(where, name)
            if _answers(path):
                found.append(path)
    return found


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            try:
                os.unlink(path)  # in our own private folder: left behind by a server that was killed
            except OSError:
                pass
            return False
        except OSError:
            return False
        return True


# --- asking -------------------------------------------------------------------------------------------------------
def call(
    path: str | None,
    command: str,
    *,
    timeout_s: float | None = _ANSWER_S,
    until_gone: bool = False,
    **arguments: Any,
) -> Any:
    """Ask a running server; return the result of the command.

    Args:
        path: its control socket; None for the only server of this user that runs here.
        timeout_s: how long to wait for the answer; None for as long as it takes (a reload may take long).
        until_gone: after the answer wait until the server's process has ended; where the kernel cannot tell which that
            is (another namespace, not Linux), until it has closed its socket.

    Raises:
        ConfigError: no server answers there, or several run and none was chosen (exit code NO_SERVER).
        CommandFailed: the server refused, or failed; the message says why.
    """
    with _connected(path, timeout_s) as connection, connection.makefile("rb") as answers:
        if not until_gone:
            return _ask(connection, answers, command, arguments)
        with _listening_process(connection) as process:
            result = _ask(connection, answers, command, arguments)
            connection.settimeout(None)
            answers.read()
            if process is not None and isinstance(result, dict) and result.get("pid") == process.pid:
                process.wait()
    return result


class _Process(NamedTuple):
    """A process that runs, or has just ended: its number cannot be another one's."""

    pid: int
    pidfd: int

    def wait(self) -> None:
        """Wait for its end."""
        end = select.poll()
        end.register(self.pidfd, select.POLLIN)
        end.poll()


@contextlib.contextmanager
def _listening_process(connection: socket.socket) -> Iterator[_Process | None]:
    """Which process listens at the other end; None where that cannot be known. What it answers must say the same."""
    process = None
    if sys.platform.startswith("linux"):
        pid = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[0]
        with contextlib.suppress(OSError):  # 0: it is in another namespace; or the kernel is too old
            process = _Process(pid, os.pidfd_open(pid))
    try:
        yield process
    finally:
        if process is not None:
            os.close(process.pidfd)


def follow(path: str | None, command: str, **arguments: Any) -> Iterator[Any]:
    """Ask for an answer that goes on; yields the result, then each item, until the server ends. Raises as `call`."""
    with _connected(path, _ANSWER_S) as connection, connection.makefile("rb") as answers:
        yield _ask(connection, answers, command, arguments)
        connection.settimeout(None)
        for line in answers:
            yield json.loads(line)


def _connected(path: str | None, timeout_s: float | None) -> socket.socket:
    path = _the_only_one() if path is None else path
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout_s)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise ConfigError(_why_not(path, error), exit_code=ExitCode.NO_SERVER) from None
    return connection


def _ask(connection: socket.socket, answers: Any, command: str, arguments: Mapping[str, Any]) -> Any:
    connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
    try:
        line = answers.readline()
    except TimeoutError:
        raise CommandFailed(f"the server did not answer within {connection.gettimeout():g} s") from None
    if not line:
        raise CommandFailed("the server ended before it answered")
    answer = json.loads(line)
    if not answer["ok"]:
        raise CommandFailed(answer["error"])
    return answer["result"]


def _the_only_one() -> str:
    found = running()
    if not found:
        raise ConfigError("no server of this user runs here (see --control)", exit_code=ExitCode.NO_SERVER)
    if len(found) > 1:
        raise ConfigError(
            f"several servers run, choose one: --control {' | '.join(found)}", exit_code=ExitCode.NO_SERVER
        )
    return found[0]


def _why_not(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no server at {path}: there is no such socket"
    if isinstance(error, ConnectionRefusedError):
        return f"no server at {path}: the one that made this socket is gone"
    if isinstance(error, PermissionError):
        return f"not allowed to talk to the server at {path}"
    return f"no server at {path}: {error.strerror or error}"


# --- answering ----------------------------------------------------------------------------------------------------
class ControlServer:
    """Answers on the control socket, on the running loop."""

    def __init__(self, path: str | None, handle: Handle) -> None:
        self._path = path
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._listener: Listener | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._spare = _Spare()
        self._full = FullTable()
        self._accepted = 0

    @property
    def path(self) -> str:
        """Where it listens."""
        return self._path or ""

    def start(self) -> None:
        """Listen. Raises ConfigError (one line) when the socket cannot be made, or a live server has it."""
        self._path = default_path() if self._path is None else self._path
        try:
            (self._listener,) = open_listeners([ListenAddress(path=self._path, path_mode=0o600)])
        except ConfigError as error:
            said = str(error).replace("--uds", "--control")
            said = said if "--control" in said else f"--control: {said}"
            raise ConfigError(said, exit_code=error.exit_code) from None
        self._spare.keep()
        self._resume()

    def close(self) -> None:
        """Close, and remove the socket. Safe to call twice."""
        if self._listener is not None:
            self._loop.remove_reader(self._listener.sock)
            self._listener.close()
            self._listener = None
        self._spare.let_go()
        for task in self._tasks:
            task.cancel()

    def _resume(self) -> None:
        if self._listener is not None:
            self._loop.add_reader(self._listener.sock, self._accept, self._listener.sock)

    def _accept(self, listener: socket.socket) -> None:
        try:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if error.errno not in NO_ROOM or not self._spare.let_go():
                    raise
                connection, _ = listener.accept()
        except OSError as error:
            if error.errno in NO_ROOM:
                self._loop.remove_reader(listener)
                pause = self._full.pause(self._loop.time(), self._accepted)
                self._loop.call_later(pause.seconds, self._resume)
            return
        self._accepted += 1
        if len(self._tasks) >= _MAX_CONNECTIONS or not _is_allowed(connection):
            self._end(connection)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda task: self._end(connection))

    def _end(self, connection: socket.socket) -> None:
        connection.close()
        if self._listener is not None:
            self._spare.keep()

    async def _serve(self, connection: socket.socket) -> None:
        received = b""
        try:
            while True:
                line, found, received = received.partition(b"\n")
                if found:
                    stream = await self._answer(connection, line)
                    if stream is not None:
                        await self._pump(connection, stream)
                        return
                    continue
                data = await asyncio.wait_for(self._loop.sock_recv(connection, _MAX_LINE_BYTES), _IDLE_S)
                received = line + data
                if not data or len(received) > _MAX_LINE_BYTES:
                    return
        except (OSError, TimeoutError):  # gone, or silent
            return

    async def _answer(self, connection: socket.socket, line: bytes) -> Stream | None:
        """Answer one request; an answer that goes on is returned."""
        answer = await self._result_of(line)
        found = answer.get("result")
        stream = found if isinstance(found, Stream) else None
        if stream is not None:
            answer["result"] = stream.result
        try:
            await self._loop.sock_sendall(connection, _line(answer))
        except BaseException:
            if stream is not None:
                await _close_stream(stream)
            raise
        return stream

    async def _pump(self, connection: socket.socket, stream: Stream) -> None:
        """Send the items until the other end closes (or says anything)."""

        async def send() -> None:
            async for item in stream.items:
                await self._loop.sock_sendall(connection, _line(item))

        tasks = [self._loop.create_task(send()), self._loop.create_task(self._loop.sock_recv(connection, 1))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await _close_stream(stream)

    async def _result_of(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            command = request.pop("command")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            return {"ok": False, "error": "a request is one line of JSON with a command"}
        try:
            return {"ok": True, "result": await self._handle(command, request)}
        except (CommandFailed, ConfigError) as error:
            return {"ok": False, "error": str(error)}
        except Exception:
            log.exception("the command %r failed", command)
            return {"ok": False, "error": "it failed; the server's log says why"}


class _Spare:
    """A descriptor that is kept for the moment in which there is no other."""

    def __init__(self) -> None:
        self._descriptor = -1

    def keep(self) -> None:
        """Have one, if there is one to be had. Safe to call twice."""
        if self._descriptor < 0:
            with contextlib.suppress(OSError):
                self._descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def let_go(self) -> bool:
        """Close it; whether there was one."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        return descriptor >= 0


def _line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


async def _close_stream(stream: Stream) -> None:
    for part in (stream.items, stream.source):
        await part.aclose()  # type: ignore[attr-defined]


def _is_allowed(connection: socket.socket) -> bool:
    """Whether the same user, or root, is at the other end."""
    if not sys.platform.startswith("linux"):
        return True  # the folder and the socket's mode must do
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    user = _PEER.unpack(found)[1]
    return user in (0, os.getuid())
