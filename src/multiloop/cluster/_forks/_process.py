"""A worker's process as the primary has it: `worker.process`.

What lives here: `WorkerProcess`: a child that is started before a loop runs, and attaches to it later. What must not:
what it is told (`_worker`).
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

from ...child_process._child import ChildProcess
from ...child_process._early import EarlyMessaging
from ...child_process._options import SpawnOptions
from ...ipc import Channel, ChannelEnds
from ...loop import Hub

_HELD_BACK = {signal.SIGINT}


class WorkerProcess(EarlyMessaging, ChildProcess):
    """The process of a worker: `pid`, `send`, 'message', `kill`, `stdout` … as every child's (`child_process`).

    It keeps the program going until it has ended.
    """

    def __init__(self, command: Sequence[str], options: SpawnOptions, on_program_end: Callable[[], None]) -> None:
        ChildProcess.__init__(self, None, command[0] if command else "", list(command), options)
        self._on_program_end = on_program_end
        self._ends: ChannelEnds | None = None
        self._failure: OSError | None = None
        self.on_channel: Callable[[Channel], object] = lambda channel: None  # says what else the channel carries
        self._max_message_bytes = options.max_message_size

    def launch(self, of: Hub | None) -> None:
        """Start it, now, with its streams. That it failed is said when it is attached.

        Args:
            of: the loop that will have it; None when none runs yet.
        """
        # Ctrl-C hits the whole group: the worker opens its ears when it has decided what to do with it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        try:
            ours, self._ends = self._launch(self.spawn_args, None)
        except OSError as error:
            self._failure = error
        else:
            self.connected = True
            self._open_streams(of, ours)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or never began."""
        return self._process is None or self._exit is not None

    def attach(self, of: Hub) -> None:
        """The loop runs: hear of its end and its messages."""
        self._hub = of
        if self._failure is not None:
            self._opened(of)
            of.loop.call_soon(self._not_started, self._failure)
            return
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None and not stream._attached:
                stream._attach(of)
        self._started(self._ends)
        self._send_early()

    def _open_channel(self, ends: ChannelEnds, max_message_bytes: int, name: str) -> Channel:
        channel = super()._open_channel(ends, max_message_bytes, name)
        self.on_channel(channel)
        return channel

    def cut(self) -> None:
        """End the channel on the spot: the worker sees it, and leaves."""
        if self._ends is not None and self._ends.stream.fileno() >= 0:
            try:
                self._ends.stream.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def reap(self, seconds: float) -> None:
        """Wait for its end for a moment, then kill it. For the end of the program."""
        process: Any = self._process
        if process is not None and not process.reaped:
            if process.wait_for_end(seconds):
                process._reap()
            else:
                process.kill_and_reap()

    def _shutdown(self) -> None:
        """The program ends: all workers leave together, see `_primary`."""
        self._on_program_end()
        if self.channel is not None:
            self.channel.abort()
        self._drop_streams()
        self._ended()
