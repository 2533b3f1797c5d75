"""`exec` and `exec_file`: run a command to its end and collect what it writes.

What lives here: both, and the operation that they return. What must not: starting (`_child`).
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack, overload

from .._limits import EXEC_MAX_BUFFER_BYTES
from ..errors import CommandFailed, CommandTimeout, InvalidCommand, MaxBufferExceeded, UsageError
from ..loop import CallbackOperation, ErrorFirst, Hub, Operation, check_callback, hub
from ._child import ChildProcess, command_line
from ._options import SpawnKeywords, SpawnOptions, StrPath


class ExecKeywords(SpawnKeywords, total=False):
    """The options of `exec` and `exec_file` beside those of `spawn` (without `stdio`)."""

    encoding: str | None
    max_buffer: int
    input: str | bytes | None


class Output(NamedTuple):
    """What a command wrote: text, or bytes with `encoding=None`."""

    stdout: Any
    stderr: Any


class ExecOperation(Operation[Output]):
    """The operation of `exec`: awaitable, and `child` is the running `ChildProcess`. Cancelling kills the child."""

    __slots__ = ("child",)
    child: ChildProcess


class ExecCallback(CallbackOperation[Output]):
    """The same with a callback."""

    __slots__ = ("child",)
    child: ChildProcess


@overload
def exec(  # noqa: A001 - Node's name
    command: str, *, callback: ErrorFirst, **options: Unpack[ExecKeywords]
) -> ExecCallback: ...
@overload
def exec(  # noqa: A001 - Node's name
    command: str, *, callback: None = None, **options: Unpack[ExecKeywords]
) -> ExecOperation: ...
def exec(  # noqa: A001 - Node's name
    command: str, *, callback: ErrorFirst | None = None, **options: Unpack[ExecKeywords]
) -> ExecOperation | ExecCallback:
    """Run a shell's command line to its end: `output = await exec("ls -l | wc")`. Never put foreign text into it.

    The result is an `Output` (stdout, stderr). Stdin is a pipe (`operation.child.stdin`) that `input` fills and ends.
    Options as `spawn`, and:

    Args:
        encoding: of the output; None gives bytes. Broken text does not fail, it gets replacement characters.
        max_buffer: bytes of each stream (1 MiB).
        input: text or bytes for its stdin.

    Raises:
        OSError: it could not be started. InvalidCommand: there is a NUL in it. Both through await, or to the callback.
        CommandFailed: it ended with another code than 0, or by a signal; `stdout` and `stderr` are in it.
        CommandTimeout: it was killed after `timeout` (also a TimeoutError, and a CommandFailed).
        MaxBufferExceeded: it wrote more than `max_buffer` and was killed; the truncated output is in it.
    """
    options.setdefault("shell", True)
    return _run(command, (), options, callback)


@overload
def exec_file(
    file: StrPath, args: Sequence[StrPath] = (), *, callback: ErrorFirst, **options: Unpack[ExecKeywords]
) -> ExecCallback: ...
@overload
def exec_file(
    file: StrPath, args: Sequence[StrPath] = (), *, callback: None = None, **options: Unpack[ExecKeywords]
) -> ExecOperation: ...
def exec_file(
    file: StrPath,
    args: Sequence[StrPath] = (),
    *,
    callback: ErrorFirst | None = None,
    **options: Unpack[ExecKeywords],
) -> ExecOperation | ExecCallback:
    """Run a program with its arguments to its end, without a shell. Otherwise as `exec`."""
    return _run(file, args, options, callback)


def _run(
    command: StrPath, args: Sequence[StrPath], keywords: ExecKeywords, callback: ErrorFirst | None
) -> ExecOperation | ExecCallback:
    check_callback(callback)
    settings: dict[str, Any] = dict(keywords)
    collecting = _Collecting(
        settings.pop("encoding", "utf-8"),
        settings.pop("max_buffer", EXEC_MAX_BUFFER_BYTES),
        settings.pop("input", None),
    )
    if "stdio" in settings:
        raise UsageError("exec() and exec_file() collect the output: for another stdio use spawn()")
    options = SpawnOptions(**settings)
    return collecting.start(hub(), command, args, options, callback)


class _Collecting:
    """One run of a command."""

    def __init__(self, encoding: str | None, max_buffer: int, given: str | bytes | None) -> None:
        if max_buffer < 0:
            raise UsageError(f"max_buffer={max_buffer}: bytes, 0 or more")
        self._encoding = encoding if encoding is None else codecs.lookup(encoding).name
        self._max_bytes = max_buffer
        self._input = given
        self._error: BaseException | None = None
        self._timed_out = False
        self._chunks: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self._sizes = {"stdout": 0, "stderr": 0}

    def start(
        self, of: Hub, command: StrPath, args: Sequence[StrPath], options: SpawnOptions, callback: ErrorFirst | None
    ) -> ExecOperation | ExecCallback:
        line, executable = command_line(command, args, options)
        child = self._child = _Collected(of, str(command), [str(word) for word in line], options, self)
        try:
            child._start(line, executable)
        except InvalidCommand as error:  # spawn() raises it; here somebody waits for all that keeps it from starting
            child._fails_to_start(error)
        operation = self._operation = _make_operation(of, callback)
        operation.child = child
        operation._stop = self._cancelled
        child.unref()  # the operation is what counts
        child.on("error", self._failed_to_start)
        child.on("exit", self._exited)
        child.on("close", self._closed)
        for name, pipe in (("stdout", child.stdout), ("stderr", child.stderr)):
            if pipe is not None:
                pipe.on("data", lambda data, name=name: self._took(name, data))
        if self._input is not None and child.stdin is not None:
            child.stdin.end(self._input)
        return operation

    def _took(self, name: str, data: bytes) -> None:
        room = self._max_bytes - self._sizes[name]
        self._sizes[name] += len(data)
        self._chunks[name].append(data if len(data) <= room else data[: max(room, 0)])
        if len(data) > room and self._error is None:
            self._error = MaxBufferExceeded(name, self._max_bytes)
            self._child._stop()
            self._child._drop_streams()

    def _failed_to_start(self, error: BaseException) -> None:
        self._error = self._error or error

    def _exited(self, code: int | None, signal: str | None) -> None:
        if self._child.killed:  # what it has started may hold its pipes open for ever
            for pipe in (self._child.stdout, self._child.stderr):
                if pipe is not None:
                    pipe._finish()

    def _closed(self, code: int | None, signal: str | None) -> None:
        output = Output(self._text("stdout"), self._text("stderr"))
        error = self._error
        if isinstance(error, MaxBufferExceeded):
            error.stdout, error.stderr = output
        elif error is None and self._timed_out:
            error = CommandTimeout(self._child.spawn_file, code, signal, output, self._child._options.timeout)
        elif error is None and code != 0:
            error = CommandFailed(self._child.spawn_file, code, signal, output, self._child.killed)
        operation = self._operation
        del self._operation  # so that it goes, and tells its failure, when nobody else has it
        if error is not None:
            operation._fail(error)
        else:
            operation._succeed(output)

    def _text(self, name: str) -> Any:
        data = b"".join(self._chunks[name])
        return data if self._encoding is None else data.decode(self._encoding, "replace")

    def _cancelled(self) -> None:
        """Nobody waits: kill it, free everything. The child is reaped when it ends."""
        self._child._stop()
        self._child._drop_streams()
        if not self._child._closed:
            self._child.ref()  # until its end is known


class _Collected(ChildProcess):
    """The child of an exec: it tells its collector of a timeout."""

    def __init__(
        self, of: Hub, file: str, arguments: Sequence[str], options: SpawnOptions, collecting: _Collecting
    ) -> None:
        super().__init__(of, file, arguments, options)
        self._collecting = collecting

    def _when_timed_out(self) -> None:
        self._collecting._timed_out = True
        super()._when_timed_out()


def _make_operation(of: Hub, callback: ErrorFirst | None) -> ExecOperation | ExecCallback:
    if callback is not None:
        return ExecCallback(of, callback)
    made = ExecOperation(loop=of.loop)
    made._hub = of
    made._counted = True
    made._stop = None
    of.retain()
    return made
