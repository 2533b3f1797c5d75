"""One worker as the primary has it: the process, its channel, its handoff, its page.

What lives here: `Process`. What must not: deciding anything about it (`_supervisor`), dealing (`_dealer`).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .._wire import messages as wire
from ..ipc import Channel, ChannelEnds, pair
from ..ipc._handoff import HandoffSocket, handoff_pair
from ._observer import Notice
from ._page import Page
from ._relay import has_room
from ._silence import Silence
from ._spawn import Child, Spawner, interpreter_command

_WORKER = "multiloop.cluster._worker:main"


class Birth(NamedTuple):
    """What a worker process begins with."""

    start: wire.Start  # its first message
    environment: Mapping[str, str]
    lifeline: int  # a descriptor whose end of file says that the primary is gone


class Process:
    """A worker process, from the order to start it until everything of it is closed.

    Args:
        on_message: called with each message, and with a Notice of what was found out here.
        on_exit: called once with how it ended, after its last message; also when it could not be started.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        spawner: Spawner,
        birth: Birth,
        on_message: Callable[[Process, Any], None],
        on_exit: Callable[[Process, str], None],
    ) -> None:
        start = birth.start
        self.number = start.number
        self.app = start.settings.called
        self.generation = start.generation
        self.started_at = time.time()
        self.child: Child | None = None
        self._silence: Silence | None = None
        self.report: wire.Report | None = None
        self.ready: wire.Ready | None = None
        self.measures = False  # it was asked to count replies in its page
        self._loop = loop
        self._on_message = on_message
        self._on_exit = on_exit
        self._signals: list[int] = []  # to be sent once it runs
        self._over = False
        with contextlib.ExitStack() as made:  # all or nothing: descriptors may run out at any of these
            ours, theirs = pair()
            made.callback(ours.close)
            made.callback(theirs.close)
            self.handoff, their_handoff = handoff_pair()
            made.callback(self.handoff.close)
            made.callback(their_handoff.close)
            self.receiving = their_handoff.copy()
            made.callback(self.receiving.close)
            self.page = Page.create()
            made.pop_all()
        self._theirs: tuple[ChannelEnds | HandoffSocket, ...] = (theirs, their_handoff)
        self.channel = Channel(
            ours, self._received, lambda: None, on_error=self._channel_error, name=f"worker {self.number}"
        )
        self.channel.send(start)
        numbers = (*theirs.pass_fds(), their_handoff.fileno(), self.page.descriptor, birth.lifeline)
        command = interpreter_command(_WORKER, *numbers, start.settings.loop)
        spawner.start(command, numbers, self._started, birth.environment)

    @property
    def pid(self) -> int:
        """The process's number; 0 while it is being started."""
        return self.child.pid if self.child is not None else 0

    def send(self, message: Any, descriptors: tuple[int, ...] = ()) -> None:
        """Send a message; one to a dead worker is dropped."""
        try:
            self.channel.send(message, descriptors=descriptors)
        except OSError as error:
            self._say("error", f": {error}")

    def take_relayed(self, message: wire.Relay) -> bool:
        """Send what another worker said; False for one that takes nothing."""
        if not has_room(self.channel.buffered_bytes):
            return False
        self.send(message)
        return True

    def signal(self, number: int) -> None:
        """Send a signal, as soon as there is a process."""
        if self.child is not None:
            self.child.signal(number)
        elif not self._over:
            self._signals.append(number)

    def look_at_silence(self) -> None:
        """Find out why the loop is silent, and log what the worker's own watchdog cannot."""
        if self._silence is not None:
            self._silence.look()

    def kill(self, *, stack: bool = False) -> None:
        """Send SIGKILL, after its stack was logged if so asked."""
        if stack and self._silence is not None:
            self._silence.log_stack(lambda: self.signal(signal.SIGKILL))
        else:
            self.signal(signal.SIGKILL)

    def end(self) -> None:
        """Kill it and close everything, on the spot; for the end of the primary."""
        if self.child is not None:
            self.child.end()
        self._close()

    def _started(self, child: Child | None, error: OSError | None) -> None:
        self._close_theirs()
        if child is None:
            self._finish(f"it could not be started: {error}")
            return
        self.child = child
        self._silence = Silence(self._loop, child.pid, self.page, child.signal, self._say)
        child.watch(self._loop, self._exited)
        signals, self._signals = self._signals, []
        for number in signals:
            child.signal(number)

    def _received(self, message: Any, descriptors: tuple[int, ...]) -> None:
        self._on_message(self, message)

    def _say(self, level: str, text: str, detail: str = "") -> None:
        self._on_message(self, Notice(level, f"worker {self.number}{text}", detail))

    def _channel_error(self, error: BaseException) -> None:
        self._say("error", f": its channel failed: {error}")
        self.signal(signal.SIGKILL)

    def _exited(self) -> None:
        self.channel.finish()  # its last words first
        self._finish(self.child.how if self.child is not None else "")

    def _finish(self, how: str) -> None:
        if not self._over:
            self._over = True
            self._on_exit(self, how)
            self._close()

    def _close_theirs(self) -> None:
        for ends in self._theirs:
            ends.close()

    def _close(self) -> None:
        self._over = True
        if self._silence is not None:
            self._silence.end()
        self._close_theirs()
        self.channel.abort()
        self.handoff.close()
        self.receiving.close()
        self.page.close()
