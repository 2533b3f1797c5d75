"""Waiting for a notification on an element of a SharedBuffer, across threads, interpreters and processes.

What lives here: `wait` and `notify` on the waiting list in the buffer's head. What must not: the loop (`_atomic_ops`).

    FREE ─ waiter ─▶ CLAIMED ─ waiter ─▶ WAITING ─ notifier ─▶ NOTIFIED ─ waiter ─▶ FREE
                                            └── waiter: gives up, or the value is another ──▶ FREE

Rules
* A waiter enters the list, then looks at the value; a notifier changes the value, then looks at the list. With
  sequentially consistent operations one of them sees the other: no notification is lost.
* Each waiter sleeps on its own state, so `notify` wakes exactly whom it counts, the longest waiting first.
* Nobody sleeps longer than a slice. A waiter shows its beat each slice; who shows none was killed, and is passed over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from .._limits import ATOMICS_SLICE_S, ATOMICS_STALE_S
from ..errors import LimitError, PeerDied
from ._head import INFO_WIDE, INFO_WIDES, MAX_WAITERS, STATES_WORD, TICKET, WAITERS, Head, Member

Outcome = Literal["ok", "not-equal", "timed-out"]

_FREE, _CLAIMED, _WAITING, _NOTIFIED = 0, 1, 2, 3


def _beat() -> int:
    return int(time.monotonic() * 1000)  # the same clock in every process of the machine


def _is_stale(beat: int) -> bool:
    return _beat() - beat > ATOMICS_STALE_S * 1000


class _Entry:
    """One's own entry in the waiting list."""

    __slots__ = ("_head", "_info", "_state_at", "_ticket")

    def __init__(self, head: Head, index: int) -> None:
        self._head = head
        slot = self._claim()
        self._state_at = STATES_WORD + slot
        self._info = INFO_WIDE + slot * INFO_WIDES
        self._ticket = head.ops.add(head.wides, TICKET, 1)
        head.wides[self._info] = index
        head.wides[self._info + 1] = self._ticket
        self.show_beat()
        head.ops.add(head.words, WAITERS, 1)
        head.ops.store(head.words, self._state_at, _WAITING)

    def _claim(self) -> int:
        head = self._head
        for slot in range(MAX_WAITERS):
            at = STATES_WORD + slot
            if head.words[at] == _FREE and head.ops.compare_exchange(head.words, at, _FREE, _CLAIMED) == _FREE:
                return slot
        for slot in range(MAX_WAITERS):  # full: take the place of one that was killed
            at = STATES_WORD + slot
            state = head.words[at]
            if _is_stale(head.wides[INFO_WIDE + slot * INFO_WIDES + 2]) and (
                head.ops.compare_exchange(head.words, at, state, _CLAIMED) == state
            ):
                if state != _CLAIMED:
                    head.ops.sub(head.words, WAITERS, 1)
                return slot
        raise LimitError(f"at most {MAX_WAITERS} threads can wait on one SharedBuffer at a time")

    def show_beat(self) -> None:
        self._head.wides[self._info + 2] = _beat()

    def sleep(self, seconds: float) -> None:
        self._head.ops.sleep_while(self._head.words, self._state_at, _WAITING, seconds)

    @property
    def is_mine(self) -> bool:
        """False: this process was stopped for so long that it was taken for dead, and the entry given away."""
        return self._head.wides[self._info + 1] == self._ticket

    @property
    def is_notified(self) -> bool:
        return self._head.ops.load(self._head.words, self._state_at) == _NOTIFIED

    def leave(self) -> bool:
        """Leave the list; True when a notification had come for this entry."""
        head = self._head
        if not self.is_mine:
            return True
        before = head.ops.exchange(head.words, self._state_at, _FREE)
        head.ops.sub(head.words, WAITERS, 1)
        return before == _NOTIFIED


def wait(
    head: Head,
    own: Member,
    cells: memoryview,
    index: int,
    value: int,
    timeout_s: float | None,
    is_stopped: Callable[[], bool] | None = None,
) -> Outcome:
    """Block until the element is notified, if it has this value now; see `Atomics.wait`.

    Raises:
        PeerDied: a member died and no other is left, since at least a slice.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    if head.ops.load(cells, index) != value:
        return "not-equal"
    entry = _Entry(head, index)
    is_listed = True
    forsaken_before = False
    try:
        if head.ops.load(cells, index) != value:
            is_listed = False
            if entry.leave():
                notify(head, index, 1)  # it was meant for somebody who waits
            return "not-equal"
        while True:
            left_s = ATOMICS_SLICE_S if deadline is None else deadline - time.monotonic()
            if left_s > 0:
                entry.sleep(min(left_s, ATOMICS_SLICE_S))
            if not entry.is_mine or entry.is_notified:
                return "ok"
            if (deadline is not None and time.monotonic() >= deadline) or (is_stopped is not None and is_stopped()):
                is_listed = False
                return "ok" if entry.leave() else "timed-out"
            entry.show_beat()
            # Looked at twice: between the death of a worker and the start of its successor there may be nobody.
            forsaken = head.is_forsaken(own)
            if forsaken and forsaken_before:
                raise PeerDied("everybody else who had this SharedBuffer open is gone: nobody will notify")
            forsaken_before = forsaken
    finally:
        if is_listed:
            entry.leave()


def notify(head: Head, index: int, count: int | None) -> int:
    """Wake at most `count` waiters of an element (None: all), the longest waiting first; return how many."""
    if not head.ops.load(head.words, WAITERS):
        return 0
    states = head.words[STATES_WORD : STATES_WORD + MAX_WAITERS].tolist()
    if _WAITING not in states:
        return 0
    info = head.wides[INFO_WIDE : INFO_WIDE + MAX_WAITERS * INFO_WIDES].tolist()
    waiting = sorted(
        (info[slot * INFO_WIDES + 1], slot)
        for slot, state in enumerate(states)
        if state == _WAITING and info[slot * INFO_WIDES] == index
    )
    woken = 0
    for _, slot in waiting:
        if count is not None and woken >= count:
            break
        at = STATES_WORD + slot
        if _is_stale(info[slot * INFO_WIDES + 2]):
            if head.ops.compare_exchange(head.words, at, _WAITING, _FREE) == _WAITING:
                head.ops.sub(head.words, WAITERS, 1)
        elif head.ops.compare_exchange(head.words, at, _WAITING, _NOTIFIED) == _WAITING:
            head.ops.rouse(head.words, at)
            woken += 1
    return woken
