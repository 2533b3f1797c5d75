"""Every public exception, grouped by whose fault it is.

What lives here: the classes, each saying when it is raised and what to do. What must not: logic, imports of our own.

* **yours** — the call was wrong; mend the program: `UsageError` and below.
* **theirs** — the other end, the application or a child did something: `PeerError` and below.
* **the limits'** — a bound that you set (or our default) was reached: `LimitError` and below.

Errors of the operating system stay what Python calls them: subclasses of OSError with `filename` or the address.
"""

from __future__ import annotations

from _pickle import PicklingError  # the same class as pickle.PicklingError, without what the module loads
from typing import Any


class MultiloopError(Exception):
    """The base of all that multiloop raises itself."""


class UsageError(MultiloopError):
    """The call cannot be meant as written: mend the caller."""


class ConfigError(UsageError):
    """An option, a configuration file or a target is wrong. The message is one line and says what to change.

    `exit_code` is what the command line ends with (docs/reference: exit codes).
    """

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ClosedError(UsageError):
    """A handle, port, channel or pool was used after it was closed: keep it open, or make a new one."""


class PoolClosed(ClosedError, RuntimeError):
    """A task was given to a pool that is closed, or closed before the task was done: keep the pool open for longer.

    A RuntimeError, too, as concurrent.futures raises after a shutdown.
    """


class InvalidPath(UsageError, ValueError):
    """A path with a NUL in it, which no file and no Unix socket can have: it was built from something that is no name."""

    def __init__(self, path: str) -> None:
        super().__init__(f"a path cannot have a NUL in it: {path!r}")
        self.filename = path


class InvalidCommand(UsageError, ValueError):
    """A command whose name, arguments, folder or environment have a NUL in them: no process can be given one.

    `word` is what has it.
    """

    def __init__(self, word: str) -> None:
        super().__init__(f"a command, its arguments, folder and environment cannot have a NUL in them: {word!r}")
        self.word = word


class UnhandledError(UsageError):
    """'error' was emitted with something that is no exception, and nobody listened: add an 'error' listener.

    `context` is the value that was emitted.
    """

    def __init__(self, context: object) -> None:
        super().__init__(f"unhandled 'error' event: {context!r}")
        self.context = context


class BlockingCallError(UsageError):
    """A call that blocks was made on the event loop while `health.guard_blocking_calls(raises=True)` was on.

    Nothing was done. `call` says what it was, where, and what to use instead.
    """

    def __init__(self, call: Any) -> None:
        super().__init__(str(call))
        self.call = call


class BlockingCallWarning(RuntimeWarning):
    """A call that blocks was made on the event loop; the pytest plugin warns so when it is not to fail the test."""


class MaxListenersExceededWarning(RuntimeWarning):
    """Many listeners of one event on one emitter: usually a leak. If not: `set_max_listeners`, 0 for no limit."""

    def __init__(self, emitter: object, name: object, count: int) -> None:
        super().__init__(f"{count} listeners of {name!r} on a {type(emitter).__name__}: a leak? set_max_listeners()")
        self.emitter = emitter
        self.name = name
        self.count = count


class TimeoutOverflowWarning(RuntimeWarning):
    """A timer's delay is over 2^31-1 ms (24.8 days), infinite or no number: it fires after 1 ms, as in Node.

    What shall never happen needs no timer; what shall happen so late, a calendar.
    """


class NotSendable(UsageError, PicklingError, TypeError):
    """A value cannot travel to another process or worker, because a part of it cannot be pickled: leave that part out.

    Raised by the call that sends, at once. `path` leads to the part (`value["a"][3].lock`), `part` is it, and the cause
    is what pickle said.
    """

    def __init__(self, path: str, part: object, reason: BaseException) -> None:
        said = str(reason) or type(reason).__name__
        super().__init__(f"{path} ({type(part).__qualname__}) cannot be sent: {said}")
        self.path = path
        self.part = part


class TransferError(UsageError):
    """A `transfer_list` cannot be honoured as written. Nothing was sent, and nothing of the list was detached."""


class PeerError(MultiloopError):
    """The other end of a connection, a child or an application did what it must not."""


class ChannelClosed(PeerError):
    """The other end of a channel between processes is gone; what was sent but not answered may be lost."""


class EngineLost(PeerError, ConnectionError):
    """A pool's engine on other machines (Ray, Dask) cannot be reached. The message says why.

    A task that was there may have run; mark tasks that may run twice with `options(idempotent=True)`. The pool connects
    again by itself, and later tasks find it.
    """


class NoAnswer(PeerError, TimeoutError):
    """Nobody has answered a request over a bus in time: is somebody answering that topic? It is a TimeoutError, too."""


class PrematureClose(PeerError):
    """A stream, socket or pipe was closed before its end: what was to come is lost, what was written may be."""


class BadReply(PeerError):
    """An HTTP server answered with something that is no HTTP. Nothing of it can be used; tell whoever runs the server.

    `url` is what was asked for.
    """

    def __init__(self, message: str, url: str = "") -> None:
        super().__init__(f"{message}: {url}" if url else message)
        self.url = url


class ReplyIncomplete(BadReply, ConnectionError):
    """An HTTP server ended the connection before its reply was whole, or before there was any: ask again, if that is safe.

    Requests that are safe to repeat were repeated already when the connection had been kept from an earlier one.
    """


class StatusError(BadReply):
    """A reply's status is 400 or above; raised only by `reply.raise_for_status()`. `status` is the number."""

    def __init__(self, status: int, reason: str, url: str) -> None:
        super().__init__(f"{status} {reason}", url)
        self.status = status


class FrameError(PeerError):
    """Bytes on a channel between processes are not a frame: the two ends differ in version, or something else wrote."""


class Unanswered(PeerError):
    """A request reached a worker, or the primary, where nobody answers: let it listen for 'request' there."""


class NeverReady(PeerError):
    """No worker of a supervised cluster ever became ready, so nothing is kept going; the message says why. Mend it, start
    again."""


class RestartFailed(PeerError):
    """The workers that were to replace others could not become ready: those from before go on. The message says why."""


class WorkerDied(PeerError):
    """A worker ended without being asked to: killed by a signal (`signal` is its name), or by an exit of its process.

    `exit_code` is what its process ended with, None when a signal killed it.
    """

    def __init__(self, message: str, *, exit_code: int | None = None, signal: str | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.signal = signal


class PoolBroken(PeerError, RuntimeError):
    """No worker of a pool can start: its initializer raised (the cause), or its processes end before they are ready.

    All tasks fail with it, also later ones: mend the initializer, then make a new pool.
    """


class TaskExited(PeerError):
    """A task of a pool raised what would end this program or coroutine here: SystemExit, StopIteration and the like.

    `reason` is that exception, and the cause. Its worker lives on.
    """

    def __init__(self, name: str, reason: BaseException) -> None:
        super().__init__(f"{name} raised {reason!r}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[TaskExited], tuple[str, BaseException]]:
        return type(self), (self.name, self.reason)


class WorkerStuck(PeerError):
    """A worker in this process does not stop: it is inside C code, or handles every exception. It is left behind.

    It goes on using its core and memory until that code returns or the process ends; `stack` is where it is. What must
    be stoppable needs `kind="process"`.
    """

    def __init__(self, message: str, *, stack: str = "") -> None:
        super().__init__(message)
        self.stack = stack


class PeerDied(PeerError):
    """Everybody else who had a SharedBuffer open is gone, at least one of them by dying: nobody will ever notify."""


class NotDelivered(PeerError):
    """A message to a worker by its id was not handled: there is no such worker, it does not listen, or it has ended.

    `has_raised`: it was delivered, and a listener there raised.
    """

    def __init__(self, message: str, *, has_raised: bool = False) -> None:
        super().__init__(message)
        self.has_raised = has_raised


class LockStolen(PeerError):
    """Somebody took the lock with `steal=True` while this one held it: what it protects may have changed."""


class RemoteError(PeerError):
    """An exception of a worker that cannot be rebuilt here: its class cannot be pickled or imported.

    `type_name` is the class's full name; the worker's own traceback is the cause.
    """

    def __init__(self, type_name: str, text: str) -> None:
        super().__init__(f"{type_name}: {text}" if text else type_name)
        self.type_name = type_name
        self.text = text

    def __reduce__(self) -> tuple[type[RemoteError], tuple[str, str]]:
        return type(self), (self.type_name, self.text)


class RemoteTraceback(PeerError):
    """The traceback of an exception as its worker saw it: the last cause in the chain of that exception. Never raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class CommandFailed(PeerError):
    """A command run by `exec` or `exec_file` ended with another code than 0, or by a signal.

    `command`, `code` (None when a signal ended it), `signal` (its name, or None), `killed` (by us: a timeout or a
    `kill()`), `stdout` and `stderr` (what it had written).
    """

    def __init__(
        self, command: str, code: int | None, signal: str | None, output: tuple[Any, Any], killed: bool
    ) -> None:
        self.command = command
        self.code = code
        self.signal = signal
        self.killed = killed
        self.stdout, self.stderr = output
        super().__init__(self._describe())

    def _describe(self) -> str:
        how = f"ended with code {self.code}" if self.signal is None else f"was killed by {self.signal}"
        text = self.stderr if isinstance(self.stderr, str) else bytes(self.stderr).decode("utf-8", "replace")
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
        return f"{self.command!r} {how}" + (f": {last[:200]}" if last else "")


class CommandTimeout(CommandFailed, TimeoutError):
    """A command run by `exec` or `exec_file` was killed because its `timeout` was over. What it had written is in it."""

    def __init__(
        self, command: str, code: int | None, signal: str | None, output: tuple[Any, Any], timeout: float | None
    ) -> None:
        self.timeout = timeout
        super().__init__(command, code, signal, output, True)

    def _describe(self) -> str:
        return f"{self.command!r} was killed after its timeout of {self.timeout} s"


class LimitError(MultiloopError):
    """A bound was reached: raise it, or send less."""


class FrameTooLarge(LimitError):
    """A message is larger than the channel allows: raise `max_message_size`, or send it in parts."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"a message of {size_bytes} bytes is over the channel's limit of {limit_bytes}")
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class PoolFull(LimitError):
    """A pool has as many unfinished tasks as its `max_queue` allows: wait (`pool.options(block=True)`), or shed load."""

    def __init__(self, unfinished: int, limit: int) -> None:
        super().__init__(f"the pool has {unfinished} unfinished tasks, as many as its workers and max_queue allow")
        self.unfinished = unfinished
        self.limit = limit

    def __reduce__(self) -> tuple[type[PoolFull], tuple[int, int]]:
        return type(self), (self.unfinished, self.limit)


class MaxBufferExceeded(LimitError):
    """A command run by `exec` or `exec_file` wrote more than `max_buffer` and was killed: raise it, or use `spawn`.

    `stdout` and `stderr` are what it had written, cut at the limit.
    """

    def __init__(self, stream: str, limit_bytes: int) -> None:
        super().__init__(f"{stream} is over max_buffer={limit_bytes} bytes")
        self.stream = stream
        self.limit_bytes = limit_bytes
        self.stdout: str | bytes = ""
        self.stderr: str | bytes = ""


class RequestTimeout(LimitError, TimeoutError):
    """An HTTP request took longer than its `Timeouts` allow. `phase` says which: total, queue, connect, reply or body."""

    def __init__(self, phase: str, seconds: float | None, url: str) -> None:
        took = "" if seconds is None else f" ({seconds:g} s)"
        super().__init__(f"{_PHASES[phase]}{took}: {url}")
        self.phase = phase
        self.url = url


_PHASES = {
    "total": "the request took too long in all",
    "queue": "no connection became free in time",
    "connect": "connecting took too long",
    "reply": "the server did not answer in time",
    "body": "the body stopped coming",
}


class TooManyRedirects(LimitError):
    """A request was redirected more often than `max_redirects`: a loop, usually. `url` is the last one."""

    def __init__(self, limit: int, url: str) -> None:
        super().__init__(f"more than {limit} redirects, the last to {url}")
        self.url = url


class BodyTooLarge(LimitError):
    """A body is larger than the `max_size` that was given: raise it, or take the body in pieces (`reply.body`)."""

    def __init__(self, limit_bytes: int, url: str) -> None:
        super().__init__(f"the body is over {limit_bytes} bytes: {url}")
        self.limit_bytes = limit_bytes
        self.url = url
