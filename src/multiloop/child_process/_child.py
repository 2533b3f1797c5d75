"""`ChildProcess`: a running child with its streams, events and message channel; and `spawn`, which starts it.

What lives here: both. What must not: collecting output (`_exec`), Python children (`_fork`), the process itself
(`_process`).

    spawn ─▶ 'spawn' ─▶ 'data' on stdout and stderr, 'message' … ─▶ 'exit' (code, signal) ─▶ 'close' (code, signal)
          └▶ 'error' (could not be started) ─▶ 'close' (-errno, None)

Guarantees (Node's X1)
* 'spawn' or the 'error' of starting comes first, and never inside the call. One of code and signal is None.
* 'exit' comes after every message the child had sent; 'close' after its streams have ended, too.
* The child keeps the program going until 'close', unless `unref()`. When the program ends before (by an exception or a
  signal), a child that still counts is killed; one that is unref'd or detached lives on.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shlex
import signal as _signal
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, Unpack, overload

from .._limits import CHILD_KILL_AFTER_S
from ..errors import InvalidCommand, UsageError
from ..ipc import ChannelEnds, pair
from ..loop import AnyOperation, CallbackOperation, ErrorFirst, Handle, Hub, Operation, begin, hub
from ._messaging import Messaging
from ._options import SignalLike, SpawnKeywords, SpawnOptions, Stdio, StrPath, signal_name, signal_number
from ._pipes import ReadPipe, WritePipe
from ._process import Process

CHANNEL_VARIABLE = "MULTILOOP_CHANNEL"  # the stream's inode : stream : descriptors : max message, for the child


class Exit(NamedTuple):
    """How a child ended: its exit code, or the name of the signal that killed it; the other one is None."""

    code: int | None
    signal: str | None


class ChildProcess(Handle, Messaging):
    """A child process. Events: 'spawn' 'error' 'exit' 'close' 'message' 'disconnect' (see the module).

    Attributes: `pid` (None when it could not be started) · `stdin` (`WritePipe`), `stdout`, `stderr` (`ReadPipe`), each
    None unless it is a pipe · `exit_code`, `signal_code` (None while it runs) · `killed` (a signal was sent by us) ·
    `spawn_file`, `spawn_args`.
    """

    def __init__(self, of: Hub | None, file: str, arguments: Sequence[str], options: SpawnOptions) -> None:
        Handle.__init__(self)
        if of is not None:
            self._hub = of  # else it is started before the loop, see `_launch`
        self._options = options
        self._process: Process | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._waiters: list[AnyOperation[Exit]] = []
        self._exit: Exit | None = None
        self._error: OSError | InvalidCommand | None = None
        self._closed = False
        self._readers_open = 0
        self.spawn_file = file
        self.spawn_args = list(arguments)
        self.pid: int | None = None
        self.stdin: WritePipe | None = None
        self.stdout: ReadPipe | None = None
        self.stderr: ReadPipe | None = None
        self.exit_code: int | None = None
        self.signal_code: str | None = None
        self.killed = False

    # -- starting --------------------------------------------------------------------------------------------------
    def _start(self, arguments: Sequence[str | bytes | os.PathLike[str]], executable: StrPath | None) -> None:
        try:
            opened = self._launch(arguments, executable)
        except OSError as error:
            self._fails_to_start(error)
        else:
            ours, ends = opened
            self._open_streams(self._hub, ours)
            self._started(ends)

    def _fails_to_start(self, error: OSError | InvalidCommand) -> None:
        self._opened(self._hub)
        self._hub.loop.call_soon(self._not_started, error)

    def _launch(
        self, arguments: Sequence[str | bytes | os.PathLike[str]], executable: StrPath | None
    ) -> tuple[list[int | None], ChannelEnds | None]:
        """Start the process, which needs no loop; returns our ends of its pipes, and of the channel. All or nothing."""
        plan, wants_channel = self._options.plan_stdio()
        ours: list[int | None] = []
        ends: list[ChannelEnds] = []
        with contextlib.ExitStack() as childs_ends:  # closed here whether it was started or not
            try:
                theirs = _open_stdio(plan, ours, childs_ends)
                child_ends: ChannelEnds | None = None
                if wants_channel:
                    our_ends, child_ends = pair()
                    ends.append(our_ends)
                    childs_ends.callback(child_ends.close)
                self._process = self._run(arguments, executable, theirs, child_ends)
            except BaseException:
                for descriptor in ours:
                    if descriptor is not None:
                        os.close(descriptor)
                for end in ends:
                    end.close()
                raise
        self.pid = self._process.pid
        return ours, ends[0] if ends else None

    def _run(
        self,
        arguments: Sequence[str | bytes | os.PathLike[str]],
        executable: StrPath | None,
        stdio: Sequence[Any],
        channel: ChannelEnds | None,
    ) -> Process:
        options = self._options
        passed = list(options.pass_fds)
        env = os.environ if options.env is None else options.env
        if channel is not None:
            passed += channel.pass_fds()
            numbers = (os.fstat(channel.stream.fileno()).st_ino, *channel.pass_fds(), options.max_message_size)
            env = {**env, CHANNEL_VARIABLE: ":".join(map(str, numbers))}
        try:
            return Process(
                arguments,
                own_group=options.wants_group(),
                executable=executable,
                stdin=stdio[0],
                stdout=stdio[1],
                stderr=stdio[2],
                cwd=None if options.cwd is None else os.fspath(options.cwd),
                env=env,
                user=options.uid,
                group=options.gid,
                start_new_session=options.detached,
                pass_fds=passed,
            )
        except KeyError as error:
            raise UsageError(f"uid={options.uid!r}, gid={options.gid!r}: {error.args[0]}") from None
        except ValueError:  # which does not say what of it is bad
            for word in map(os.fsdecode, (executable or "", *arguments, options.cwd or "", *env, *env.values())):
                if "\0" in word:
                    raise InvalidCommand(word) from None
            raise

    def _open_streams(self, of: Hub | None, ours: Sequence[int | None]) -> None:
        """Make the streams of our ends of its pipes. Without a loop they wait to be attached to one."""
        if ours[0] is not None:
            self.stdin = WritePipe(of, ours[0])
        if ours[1] is not None:
            self.stdout = self._reader(of, ours[1])
        if ours[2] is not None:
            self.stderr = self._reader(of, ours[2])

    def _started(self, ends: ChannelEnds | None) -> None:
        process, of = self._process, self._hub
        assert process is not None
        self._opened(of)
        if ends is not None:
            channel = self._open_channel(ends, self._options.max_message_size, f"to child {self.pid}")
            channel.unref()  # the child itself is what counts
        if self._options.timeout is not None:
            self._timers.append(of.loop.call_later(self._options.timeout, self._when_timed_out))
        of.loop.call_soon(self._spawned)

    def _reader(self, of: Hub | None, descriptor: int) -> ReadPipe:
        self._readers_open += 1
        return ReadPipe(of, descriptor, self._reader_closed)

    def _spawned(self) -> None:
        process = self._process
        if process is None or not self._alive:
            return
        self._hub.call(self.emit, "spawn")
        for reader in (self.stdout, self.stderr):
            if reader is not None:
                reader._begin()
        process.watch(self._hub.loop, self._exited)

    def _not_started(self, error: OSError | InvalidCommand) -> None:
        self._error = error
        error.syscall, error.path, error.spawn_args = "spawn", self.spawn_file, self.spawn_args  # type: ignore[union-attr]
        if not self._waiters or self.listener_count("error"):
            self._hub.call(self.emit, "error", error)
        number = errno.EINVAL if isinstance(error, InvalidCommand) else error.errno
        self._exit = Exit(-(number or 1), None)
        self._maybe_close()

    # -- ending ----------------------------------------------------------------------------------------------------
    def _exited(self, code: int | None, number: int | None) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._exit = Exit(code, None if number is None else signal_name(number))
        self.exit_code, self.signal_code = self._exit
        if self.stdin is not None:
            self.stdin.destroy()
        if self.channel is not None:
            self.channel.finish()
        self._hub.call(self.emit, "exit", *self._exit)
        for reader in (self.stdout, self.stderr):
            if reader is not None:
                reader._child_ended()
        self._maybe_close()

    def _reader_closed(self) -> None:
        self._readers_open -= 1
        self._maybe_close()

    def _channel_closed(self) -> None:
        super()._channel_closed()
        self._maybe_close()

    def _maybe_close(self) -> None:
        if self._exit is None or self._readers_open or self._closed:
            return
        if self.channel is not None and not self.channel.closed:
            return
        self._closed = True
        self._hub.loop.call_soon(self._tell_close)

    def _tell_close(self) -> None:
        assert self._exit is not None
        self._hub.call(self.emit, "close", *self._exit)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            self._settle(waiter)
        self._ended()

    def _settle(self, waiter: AnyOperation[Exit]) -> None:
        assert self._exit is not None
        if self._error is not None:
            waiter._fail(self._error)
        else:
            waiter._succeed(self._exit)

    @overload
    def wait(self) -> Operation[Exit]: ...
    @overload
    def wait(self, *, callback: ErrorFirst) -> CallbackOperation[Exit]: ...
    def wait(self, *, callback: ErrorFirst | None = None) -> AnyOperation[Exit]:
        """Wait for 'close'; the result is an `Exit` (code, signal). Cancelling stops waiting, not the child.

        Raises the OSError of starting, when it could not be started.
        """
        waiter: AnyOperation[Exit] = begin(callback, self._hub)
        if self._closed and not self._alive:
            self._hub.loop.call_soon(self._settle, waiter)
        else:
            self._waiters.append(waiter)
        return waiter

    # -- killing ---------------------------------------------------------------------------------------------------
    def kill(self, signal: SignalLike | None = None) -> bool:
        """Send a signal (`kill_signal`, SIGTERM by default); whether there was a child to send it to.

        Signal 0 only asks. Raises UsageError for an unknown signal, PermissionError for a child that changed its user.
        """
        number = signal_number(self._options.kill_signal if signal is None else signal)
        if self._process is None or self._exit is not None or not self._process.signal(number):
            return False
        self.killed = self.killed or number != 0
        return True

    def _when_timed_out(self) -> None:
        self._stop()

    def _stop(self) -> None:
        """Kill it for good: with its signal, and with SIGKILL when that is ignored. Its output does not matter any more."""
        if self._process is None or self._exit is not None:
            return
        self.kill()
        later = self._hub.loop.call_later(CHILD_KILL_AFTER_S, self.kill, _signal.SIGKILL)
        self._timers.append(later)

    def _drop_streams(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.destroy()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill the child if it still runs, and wait for its end."""
        self._stop()
        self._drop_streams()
        if self._alive:
            try:
                await self.wait()
            except OSError:
                pass  # it could not be started: 'error' said so

    def _shutdown(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._drop_streams()
        if self.channel is not None:
            self.channel.abort()
        process = self._process
        if process is not None and not process.reaped:
            if self._counted and not self._options.detached:
                process.kill_and_reap()
            else:
                process.let_go()
        super()._shutdown()

    def __repr__(self) -> str:
        state = "running" if self._exit is None else f"ended {tuple(self._exit)}"
        return f"<ChildProcess {self.spawn_file!r} pid={self.pid} {state}>"


def _open_stdio(
    plan: tuple[Stdio, Stdio, Stdio], ours: list[int | None], childs_ends: contextlib.ExitStack
) -> list[Any]:
    """Return what Popen gets for the child; adds our ends of the pipes to `ours`, None where there is none."""
    theirs: list[Any] = []
    for index, entry in enumerate(plan):
        ours.append(None)
        if entry == "ignore":
            theirs.append(subprocess.DEVNULL)
        elif entry == "inherit":
            theirs.append(None)
        elif entry in ("pipe", "overlapped"):
            reading, writing = os.pipe()
            theirs.append(reading if index == 0 else writing)
            ours[index] = writing if index == 0 else reading
            childs_ends.callback(os.close, theirs[-1])
        elif isinstance(entry, int) or hasattr(entry, "fileno"):
            theirs.append(entry)
        else:
            raise UsageError(f"stdio[{index}]={entry!r} is neither a word, nor a descriptor, nor a file")
    return theirs


def command_line(
    command: StrPath, arguments: Sequence[StrPath], options: SpawnOptions
) -> tuple[list[str | bytes | os.PathLike[str]], StrPath | None]:
    """Return what to run and the file, if that is not its first word."""
    if isinstance(arguments, str | bytes):
        raise UsageError(f"spawn({command!r}, {arguments!r}): the arguments are a list of strings, not one string")
    if options.shell:
        line = os.fspath(command)
        if arguments:
            line = " ".join((line, *(shlex.quote(os.fspath(argument)) for argument in arguments)))
        shell = "/bin/sh" if options.shell is True else options.shell
        return [options.argv0 or shell, "-c", line], shell if options.argv0 else None
    command = os.fspath(command)
    return [options.argv0 or command, *arguments], command if options.argv0 else None


def start(command: StrPath, arguments: Sequence[StrPath], options: SpawnOptions) -> ChildProcess:
    """Start a child on the running loop."""
    line, executable = command_line(command, arguments, options)
    child = ChildProcess(hub(), os.fsdecode(command), [os.fsdecode(word) for word in line], options)
    child._start(line, executable)
    return child


def spawn(command: StrPath, args: Sequence[StrPath] = (), **options: Unpack[SpawnKeywords]) -> ChildProcess:
    """Start a command with its arguments; returns the child at once. Options: see `SpawnOptions`.

    That the command does not exist, or cannot be run, is the child's 'error' event (an OSError with the name in it).
    Raises UsageError for options and arguments that cannot be meant; InvalidCommand for a NUL in them.
    """
    return start(command, args, SpawnOptions(**options))
