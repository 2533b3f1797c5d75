"""The child's side of the message channel: `child_process.parent`.

What lives here: `Parent`, and finding the channel in the environment. What must not: the parent's side (`_child`).

* The variable is taken out of the environment when `multiloop.child_process` is first imported, and is believed only
  where the socket that it names is: a grandchild inherits the variable but not the descriptors.
* The channel attaches to the first loop that runs in the main thread. What was sent before is sent then; when there was
  none, at the end of the program.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import time
from collections.abc import AsyncGenerator, Hashable
from typing import Any, Self

from .._limits import CHANNEL_FLUSH_S
from .._wire.frames import encode
from ..ipc import ChannelEnds
from ..loop import Handle, Hub, hub, on_new_hub
from ._child import CHANNEL_VARIABLE
from ._early import EarlyMessaging


class Parent(EarlyMessaging):
    """The program that started this one: `send`, 'message', `disconnect`, 'disconnect', `connected`.

    While somebody listens for 'message' or 'disconnect' the channel keeps this program going, as in Node; without a
    listener it does not (`ref()` and `unref()` decide otherwise).
    """

    def __init__(self, ends: ChannelEnds, max_message_bytes: int) -> None:
        self._ends = ends
        self._max_message_bytes = max_message_bytes
        self._kept: bool | None = None  # what ref() or unref() has decided
        self.connected = True
        self._pid = os.getpid()
        self._end: AsyncGenerator[None, None] | None = None
        on_new_hub(self._loop_runs)
        atexit.register(self._send_without_a_loop)

    def _loop_runs(self, of: Hub) -> None:
        if self.channel is not None or threading.current_thread() is not threading.main_thread():
            return
        of.loop.call_soon(self._attach, of)

    def _attach(self, of: Hub) -> None:
        if self.channel is None:
            self._open_channel(self._ends, self._max_message_bytes, "to the parent").flushes_at_end = True
            self.count()
            self._send_early()
            if of.fatal is None:
                self._end = self._end_of(of)
                with contextlib.suppress(StopIteration):
                    self._end.__anext__().send(None)  # as far as its yield: now the loop knows it

    @staticmethod
    async def _end_of(of: Hub) -> AsyncGenerator[None, None]:
        """Closed at the end of a loop of others, as `asyncio.run` does with generators: then what was sent leaves."""
        try:
            yield
        finally:
            of.is_ending = True
            await of.last_words()

    def _keep(self, kind: int, value: Any, descriptors: tuple[int, ...]) -> None:
        super()._keep(kind, value, descriptors)
        if asyncio._get_running_loop() is not None and threading.current_thread() is threading.main_thread():
            hub()  # a loop that is not of `multiloop.run`: now the channel has one

    def _send_without_a_loop(self) -> None:
        """The program ends, and there was no loop: send what was kept, without descriptors, while the parent reads."""
        unsent, self._unsent = self._unsent, None
        if not unsent or os.getpid() != self._pid:  # a forked copy of this program has nothing to say
            return
        stream = self._ends.stream
        until_s = time.monotonic() + CHANNEL_FLUSH_S
        for kind, body, buffers, descriptors in unsent:
            if descriptors:
                continue
            try:
                for piece in encode(kind, body, buffers):
                    stream.settimeout(max(0.001, until_s - time.monotonic()))
                    stream.sendall(piece)
            except OSError:  # the parent is gone, or does not read
                return

    # -- keeping the program going ---------------------------------------------------------------------------------
    def _listeners_changed(self, name: Hashable, count: int) -> None:
        super()._listeners_changed(name, count)
        if name in ("message", "disconnect"):
            self.count()

    def wants_loop(self) -> bool:
        """Whether there is a reason to run a loop for the channel."""
        if not self.connected:
            return False
        if self._kept is not None:
            return self._kept or bool(self._unsent)
        return bool(self._unsent) or self._has_listeners()

    def _has_listeners(self) -> bool:
        if self.mirror is not None and self.mirror.keeps_running():
            return True
        return self._is_heard() or self.listener_count("disconnect") > 0

    def count(self) -> None:
        """Look anew whether the channel keeps this program going."""
        if self.channel is not None:
            heard = self._has_listeners()
            handle: Handle = self.channel
            if heard if self._kept is None else self._kept:
                handle.ref()
            else:
                handle.unref()

    def ref(self) -> Self:
        """Let the channel keep this program going, whoever listens."""
        self._kept = True
        self.count()
        return self

    def unref(self) -> Self:
        """Let this program end although the channel is open and somebody listens."""
        self._kept = False
        self.count()
        return self

    def __repr__(self) -> str:
        return f"<parent {'connected' if self.connected else 'disconnected'}>"


def find_parent() -> Parent | None:
    """Return our side of the channel, if this process was started with one; to be called once."""
    numbers = os.environ.pop(CHANNEL_VARIABLE, "")
    try:
        inode, stream, descriptors, max_message_bytes = map(int, numbers.split(":"))
    except ValueError:
        return None
    if not is_ours(stream, inode):
        return None
    try:
        return Parent(ChannelEnds.from_fds(stream, descriptors), max_message_bytes)
    except OSError:
        return None


def is_ours(descriptor: int, inode: int) -> bool:
    """Whether a descriptor that the environment names is the one that was meant, and not a stranger's."""
    try:
        return os.fstat(descriptor).st_ino == inode
    except OSError:
        return False
