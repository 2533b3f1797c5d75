"""Waiting for a descriptor without a thread: FIFOs, terminals, devices.

What lives here: `Pending`, which a function on a thread raises when the kernel says "not now": the operation then waits
on the loop and goes back to a thread when the descriptor is ready. What must not: what is read or written.

Regular files are always ready, so none of this is on their way.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
from collections.abc import Callable
from typing import Any

from .._limits import FIFO_LOOK_S
from ..loop import AnyOperation, GoOn, Hub, offload_to


class Pending(GoOn):
    """Not now: call `function(*args)` again when `fd` is ready.

    Args:
        writing: ready to be written to, not to be read from.
        release: frees what the operation holds, if it is cancelled before the call begins; called at any time until then.
    """

    def __init__(
        self,
        fd: int,
        writing: bool,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        *,
        release: Callable[[], Any] | None = None,
        discard: Callable[[Any], Any] | None = None,
    ) -> None:
        self._fd = fd
        self._writing = writing
        self._function = function
        self._args = args
        self._release = release
        self._discard = discard

    def release(self) -> None:
        if self._release is not None:
            self._release()

    def resume(self, op: AnyOperation[Any]) -> None:
        waits = _waits_of(op._hub)
        key = (self._fd, self._writing)

        def ready() -> None:
            op._stop = self.release  # the call may still be waiting for a thread when it is cancelled
            offload_to(op, self._function, self._args, discard=self._discard)

        def failed(error: BaseException) -> None:
            op._stop = None
            self.release()
            op._fail(error)

        def stopped() -> None:
            waits.remove(key, waiter)
            self.release()

        waiter = (ready, failed)
        op._stop = stopped
        try:
            waits.add(key, waiter)
        except OSError as error:  # a kind of file that cannot be waited for
            failed(error)


class NoReader(GoOn):
    """A FIFO was opened for writing and has no reader. Nothing tells when one comes: call again, a little later."""

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], discard: Callable[[Any], Any] | None
    ) -> None:
        self._function = function
        self._args = args
        self._discard = discard

    def resume(self, op: AnyOperation[Any]) -> None:
        def again() -> None:
            op._stop = None
            offload_to(op, self._function, self._args, discard=self._discard)

        op._stop = op._hub.loop.call_later(FIFO_LOOK_S, again).cancel


_Waiter = tuple[Callable[[], None], Callable[[BaseException], None]]


class _Waits:
    """Who waits for which descriptor on one loop; several may wait for one."""

    def __init__(self, of: Hub) -> None:
        self._loop = of.loop
        self._waiters: dict[tuple[int, bool], list[_Waiter]] = {}

    def add(self, key: tuple[int, bool], waiter: _Waiter) -> None:
        waiters = self._waiters.get(key)
        if waiters is None:
            fd, writing = key
            watch = self._loop.add_writer if writing else self._loop.add_reader
            watch(fd, self._ready, key)
            self._waiters[key] = [waiter]
        else:
            waiters.append(waiter)

    def remove(self, key: tuple[int, bool], waiter: _Waiter) -> None:
        waiters = self._waiters.get(key, [])
        if waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                self._forget(key)

    def abandon(self, fd: int, error: BaseException) -> None:
        """The descriptor is about to be closed: fail all who wait for it."""
        for writing in (False, True):
            for _, failed in self._forget((fd, writing)):
                failed(error)

    def _ready(self, key: tuple[int, bool]) -> None:
        for ready, _ in self._forget(key):
            ready()

    def _forget(self, key: tuple[int, bool]) -> list[_Waiter]:
        waiters = self._waiters.pop(key, None)
        if waiters is None:
            return []
        if not self._loop.is_closed():
            fd, writing = key
            (self._loop.remove_writer if writing else self._loop.remove_reader)(fd)
        return waiters


def _waits_of(of: Hub) -> _Waits:
    try:
        return of.loop._multiloop_waits  # type: ignore[attr-defined,no-any-return]
    except AttributeError:
        made = of.loop._multiloop_waits = _Waits(of)  # type: ignore[attr-defined]
        return made


def abandon(loop: asyncio.AbstractEventLoop, fd: int, error: BaseException) -> None:
    """Fail every operation on this loop that waits for a descriptor, before it is closed."""
    waits: _Waits | None = getattr(loop, "_multiloop_waits", None)
    if waits is not None:
        waits.abandon(fd, error)


def has_no_writer_yet(fd: int) -> bool:
    """Whether an empty read from a FIFO means that nobody has opened it for writing, not that it has ended."""
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return False
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return not poll.poll(0)  # once a writer was there and left, it answers POLLHUP
