"""Which calls block, and what to use instead: the table of the guard.

What lives here: audit events (`WATCHED`) and what each of them means, given its arguments. What must not: hooks (`_guard`),
wrappers (`_wrappers`), whether a loop runs.

What an audit event does not tell, a wrapper does (`_wrappers`); what neither sees is listed in docs/reference/health.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

_FILES = "await fs.read_file(path), fs.write_file or fs.open"
_CHILDREN = "await child_process.exec_file(program, arguments), or child_process.spawn"
_CONNECT = "await net.connect(port, host)"
_NAMES = "await dns.lookup(name)"
_OFFLOAD = "await multiloop.offload(function, *arguments), which is a thread"
_FETCH = "await http.fetch(url)"


_MOST_SHOWN = 120


class Blocking(NamedTuple):
    """A call that blocks: what it is ("open('a.txt')"), and what to use instead."""

    what: str
    instead: str


Judge = Callable[[tuple[Any, ...]], Blocking | None]


def judge(event: str, args: tuple[Any, ...]) -> Blocking | None:
    """Return what an audit event means; None when it does not block."""
    return WATCHED[event](args)


def _shown(value: Any) -> str:
    """An argument as it stands in a message: short, and never the text of a foreign object."""
    if isinstance(value, str | bytes | int | float):
        text = repr(value)
        return text if len(text) <= _MOST_SHOWN else f"'...{text[3 - _MOST_SHOWN :]}"  # the end of a path says more
    path = getattr(value, "__fspath__", None) if not isinstance(value, type) else None
    return _shown(path()) if path is not None else f"<{type(value).__name__}>"


def _simple(name: str, instead: str, shown: int = 1) -> Judge:
    """A call whose first arguments are shown."""

    def found(args: tuple[Any, ...]) -> Blocking:
        return Blocking(f"{name}({', '.join(map(_shown, args[:shown]))})", instead)

    return found


def _open(args: tuple[Any, ...]) -> Blocking | None:
    path, mode = args[0], args[1]
    if isinstance(path, int) or path in ("/dev/null", b"/dev/null"):
        return None  # a descriptor that is open already; nothing to wait for
    instead = _FILES
    if isinstance(mode, str):
        if "a" in mode:
            instead = "await fs.append_file(path, data), or fs.open(path, 'a')"
        elif "w" in mode or "x" in mode:
            instead = "await fs.write_file(path, data), or fs.open(path, 'w')"
        elif "+" not in mode:
            instead = "await fs.read_file(path), or fs.open(path)"
    return Blocking(f"open({_shown(path)})", instead)


def _connect(args: tuple[Any, ...]) -> Blocking | None:
    sock, address = args[0], args[1]
    if sock.gettimeout() == 0:
        return None
    return Blocking(f"connect({_address(address)})", _CONNECT)


def _address(address: Any) -> str:
    if isinstance(address, tuple) and len(address) >= 2:
        return f"{address[0]}:{address[1]}"
    return _shown(address)


def _name_look_up(call: str, instead: str) -> Judge:
    def found(args: tuple[Any, ...]) -> Blocking | None:
        host = args[0]
        if isinstance(host, tuple):  # getnameinfo: (host, port)
            host = host[0]
        elif host is None or (call != "gethostbyaddr" and _is_address(host)):
            return None  # nobody is asked
        return Blocking(f"{call}({_shown(host)})", instead)

    return found


def _is_address(host: Any) -> bool:
    text = host.decode("latin-1") if isinstance(host, bytes | bytearray) else host
    if not isinstance(text, str):
        return False
    return ":" in text or (text.count(".") == 3 and text.replace(".", "").isdecimal())


def _sleep(args: tuple[Any, ...]) -> Blocking | None:
    seconds = args[0]
    if isinstance(seconds, int | float) and seconds <= 0:
        return None  # lets another thread run, and that is all
    return Blocking(f"time.sleep({_shown(seconds)})", "await timers.sleep(seconds)")


def _lock_file(args: tuple[Any, ...]) -> Blocking | None:
    if args[1] & 4:  # LOCK_NB
        return None
    return Blocking("a lock on a file", _OFFLOAD)


def _popen(args: tuple[Any, ...]) -> Blocking:
    command = args[1]
    first = command[0] if isinstance(command, list | tuple) and command else command
    return Blocking(f"subprocess ({_shown(first)})", _CHILDREN)


def _url(args: tuple[Any, ...]) -> Blocking:
    return Blocking(f"a request for {_shown(args[0])}", _FETCH)


WATCHED: dict[str, Judge] = {
    "open": _open,
    "time.sleep": _sleep,
    "builtins.input": _simple("input", _OFFLOAD, 0),
    # names and connections
    "socket.connect": _connect,
    "socket.getaddrinfo": _name_look_up("getaddrinfo", _NAMES),
    "socket.gethostbyname": _name_look_up("gethostbyname", _NAMES),
    "socket.gethostbyaddr": _name_look_up("gethostbyaddr", "await dns.reverse(address)"),
    "socket.getnameinfo": _name_look_up("getnameinfo", "await dns.lookup_service(address, port)"),
    "urllib.Request": _url,
    "http.client.connect": lambda args: Blocking(f"a request to {_shown(args[1])}", _FETCH),
    "smtplib.connect": lambda args: Blocking(f"smtplib, to {_shown(args[1])}", _OFFLOAD),
    "ftplib.connect": lambda args: Blocking(f"ftplib, to {_shown(args[1])}", _OFFLOAD),
    "imaplib.open": lambda args: Blocking(f"imaplib, to {_shown(args[1])}", _OFFLOAD),
    "poplib.connect": lambda args: Blocking(f"poplib, to {_shown(args[1])}", _OFFLOAD),
    # children
    "subprocess.Popen": _popen,
    "os.system": _simple("os.system", _CHILDREN),
    "os.spawn": _simple("os.spawn", _CHILDREN, 2),
    "os.posix_spawn": _simple("os.posix_spawn", _CHILDREN),
    # databases and locks
    "sqlite3.connect": _simple("sqlite3.connect", _OFFLOAD),
    "fcntl.flock": _lock_file,
    "fcntl.lockf": _lock_file,
    # names of files
    "os.listdir": _simple("os.listdir", "await fs.readdir(path)"),
    "os.scandir": _simple("os.scandir", "await fs.opendir(path) or fs.scandir"),
    "os.mkdir": _simple("os.mkdir", "await fs.mkdir(path)"),
    "os.remove": _simple("os.remove", "await fs.unlink(path)"),
    "os.rename": _simple("os.rename", "await fs.rename(path, to)", 2),
    "os.rmdir": _simple("os.rmdir", "await fs.rm(path)"),
    "os.truncate": _simple("os.truncate", "await fs.truncate(path, size)"),
    "os.link": _simple("os.link", "await fs.link(path, to)", 2),
    "os.symlink": _simple("os.symlink", "await fs.symlink(target, path)", 2),
    "glob.glob": _simple("glob.glob", "await fs.glob(pattern)"),
    "shutil.copyfile": _simple("shutil.copyfile", "await fs.copy_file(path, to)", 2),
    "shutil.copytree": _simple("shutil.copytree", "await fs.cp(path, to, recursive=True)", 2),
    "shutil.move": _simple("shutil.move", "await fs.rename(path, to)", 2),
    "shutil.rmtree": _simple("shutil.rmtree", "await fs.rm(path, recursive=True)"),
    "shutil.make_archive": _simple("shutil.make_archive", _OFFLOAD),
    "shutil.unpack_archive": _simple("shutil.unpack_archive", _OFFLOAD),
    "tempfile.mkdtemp": _simple("tempfile.mkdtemp", "await fs.mkdtemp(prefix)", 0),
    "tempfile.mkstemp": _simple("tempfile", _OFFLOAD, 0),
}
"""Audit events, each with what judges its arguments."""

SLEEP_IS_AUDITED = sys.version_info >= (3, 13)

# What wrappers see, by what was called.
WAITS = {
    "Event.wait": Blocking(
        "threading.Event.wait()", "asyncio.Event, or loop.call_soon_threadsafe from the other thread"
    ),
    "Condition.wait": Blocking("threading.Condition.wait()", "asyncio.Condition"),
    "Condition.wait_for": Blocking("threading.Condition.wait_for()", "asyncio.Condition"),
    "Semaphore.acquire": Blocking("threading.Semaphore.acquire()", "asyncio.Semaphore, or multiloop.Limiter"),
    "Barrier.wait": Blocking("threading.Barrier.wait()", "asyncio.Barrier"),
    "Thread.join": Blocking("threading.Thread.join()", "await multiloop.offload(thread.join)"),
    "Queue.get": Blocking("queue.Queue.get()", "asyncio.Queue, or await multiloop.offload(queue.get)"),
    "Queue.put": Blocking(
        "queue.Queue.put() to a full queue", "asyncio.Queue, or await multiloop.offload(queue.put, item)"
    ),
    "Queue.join": Blocking("queue.Queue.join()", "await multiloop.offload(queue.join)"),
    "Future.result": Blocking("Future.result()", "await asyncio.wrap_future(future), or await pool.run(function)"),
    "Future.exception": Blocking("Future.exception()", "await asyncio.wrap_future(future)"),
    "wait": Blocking("concurrent.futures.wait()", "await asyncio.wait of wrapped futures, or pool.map"),
    "as_completed": Blocking(
        "concurrent.futures.as_completed()", "asyncio.as_completed of wrapped futures, or pool.map"
    ),
    "ThreadPoolExecutor.shutdown": Blocking("Executor.shutdown()", "await multiloop.offload(executor.shutdown)"),
    "ProcessPoolExecutor.shutdown": Blocking("Executor.shutdown()", "await multiloop.offload(executor.shutdown)"),
    "Popen.wait": Blocking("subprocess.Popen.wait()", _CHILDREN),
    "Popen.communicate": Blocking("subprocess.Popen.communicate()", _CHILDREN),
}
SOCKET_METHODS = {
    "accept": "net.create_server(on_connection)",
    "recv": "async for chunk in the net.Socket of net.connect",
    "recv_into": "async for chunk in the net.Socket of net.connect",
    "recvfrom": "net.create_datagram",
    "recvfrom_into": "net.create_datagram",
    "send": "write and drain of the net.Socket of net.connect",
    "sendall": "write and drain of the net.Socket of net.connect",
    "sendto": "net.create_datagram",
    "sendfile": "fs.create_read_stream with stream.pipeline",
}
