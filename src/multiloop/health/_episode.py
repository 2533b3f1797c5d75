"""One time that the loop's beat is overdue: from the first look to the report.

What lives here: `Episode`, on the watchdog's thread, and how its report reads in the log. What must not: when a beat is
overdue (`_watchdog`), reading stacks (`_stack`).

A block is watched until the next beat, until somebody stops the watchdog, or until the loop runs no more. Each look stands
for the time since the one before: the place with the most time is blamed, for a block may begin and end elsewhere.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from .._limits import BLOCKED_LOOP_LONG_S
from ..stats import BlockedLoop
from . import _stack
from ._requests import Served, as_served, served_by_loop

if TYPE_CHECKING:
    from ._watchdog import Watchdog

log = logging.getLogger("multiloop.health")

_LOOK_AGAIN_MAX_S = 0.5
_MOMENT = 0.3  # of the threshold
_SAY_AGAIN_S = 60.0
_WORTH_SAYING = 0.25  # of a block: that much waiting for a core is told


class Holder(NamedTuple):
    """A thread that is not the loop's and held the interpreter's lock, and for how long at least."""

    thread: int
    seconds: float


class Late(NamedTuple):
    """A beat that came too late, as the beat itself noticed it.

    Its number, about how long that took, the loop's processor time in it and its waiting for a core.
    """

    beats: int
    seconds: float
    cpu_s: float
    starved_s: float


class _Found:
    """What was seen at one place: for how long, and the first sight of it."""

    __slots__ = ("seconds", "sight", "thread")

    def __init__(self, sight: _stack.Sight, thread: str) -> None:
        self.seconds = 0.0
        self.sight = sight
        self.thread = thread


class Episode:
    """A block under way. It began between `earliest_s` and `latest_s`, after the beat of this number."""

    def __init__(self, watchdog: Watchdog, beats: int, earliest_s: float, latest_s: float) -> None:
        self._watchdog = watchdog
        self._beats = beats
        computing_since_s = time.monotonic() - (watchdog.cpu_s() - watchdog.cpu_at_beat_s)
        # If it has computed ever since, the processor's clock knows the beginning better.
        if earliest_s <= computing_since_s <= latest_s:
            self._began_s = computing_since_s
        else:
            self._began_s = (earliest_s + latest_s) / 2
        self._wall_time = time.time() - (time.monotonic() - self._began_s)
        self._cpu_before_s = watchdog.cpu_at_beat_s
        self._starved_before_s = watchdog.starved_at_beat_s
        self._looked_s = self._began_s
        self._found: dict[_stack.Place, _Found] = {}
        self._served: Served | None = None
        self._reported = False

    def watch(self) -> None:
        """Look again and again until it is over, then report it if it was long enough."""
        watchdog = self._watchdog
        watchdog.seen_beats = self._beats
        pause_s = watchdog.threshold / 5
        while True:
            self._look()
            watchdog.wait(pause_s)
            if watchdog.beats != self._beats or watchdog.is_stopped or not watchdog.loop.is_running():
                break
            pause_s = min(pause_s * 1.2, _LOOK_AGAIN_MAX_S)
            if not self._reported and time.monotonic() - self._began_s - self._starved_s() > BLOCKED_LOOP_LONG_S:
                self._report_unfinished()
        self._end(self._ended_s() - self._began_s)

    def _end(self, duration_s: float) -> None:
        watchdog = self._watchdog
        cpu_s = watchdog.cpu_s() - self._cpu_before_s
        if duration_s < watchdog.threshold:
            return
        if duration_s - self._starved_s() < _MOMENT * watchdog.threshold:
            _log_starved(duration_s)  # it ran for a moment only: no line of code is to blame
            return
        # Nothing but waiting was seen: a stopped process or machine; or compiled code without frames, which computes.
        if not (self._found or cpu_s > duration_s / 2 or not _stack.CAN_CAPTURE):
            return
        report = self._make(duration_s)
        if not self._reported:
            _log(report, still=False)
        watchdog.finished(report, cpu_s)

    def _starved_s(self) -> float:
        """How long the loop's thread has waited for a core since the beat."""
        return max(0.0, self._watchdog.starved_s() - self._starved_before_s)

    def _ended_s(self) -> float:
        watchdog = self._watchdog
        if watchdog.beats == self._beats + 1:
            return watchdog.beat_at_s
        if watchdog.beats == self._beats:
            return watchdog.stopped_at_s or self._looked_s  # the loop is over: its last moment is not known
        return time.monotonic()

    def _look(self) -> None:
        watchdog = self._watchdog
        now = time.monotonic()
        holder = watchdog.holder
        if holder is None:
            sight = _stack.capture_loop(watchdog.thread_id, watchdog.base)
        else:
            sight = _stack.capture(holder.thread)
        since_s, self._looked_s = self._looked_s, now
        if sight is None or (holder is None and watchdog.beats != self._beats):  # over: that is what came after it
            return
        place = _stack.blame(sight.stack)
        found = self._found.get(place)
        is_new = found is None
        if found is None:
            found = self._found[place] = _Found(sight, _thread_name(holder))
        found.seconds += now - since_s
        if self._served is None:
            self._served = sight.served
            if self._served is None and holder is None:
                self._served = served_by_loop(watchdog.loop) or as_served(watchdog.request())
        if is_new and watchdog.sighted is not None:
            watchdog.sighted(self._make(now - self._began_s))

    def _report_unfinished(self) -> None:
        if self._found or not _stack.CAN_CAPTURE:
            self._reported = True
            _log(self._make(time.monotonic() - self._began_s), still=True)

    def _make(self, duration_s: float) -> BlockedLoop:
        place, stack, thread = _stack.Place("", 0, ""), "", ""
        if self._found:
            place, found = max(self._found.items(), key=lambda item: item[1].seconds)
            stack, thread = _stack.format_stack(found.sight.stack), found.thread
        served = self._served
        return BlockedLoop(
            duration=duration_s,
            file=place.file,
            line=place.line,
            function=place.function,
            stack=stack,
            request=None if served is None else served.text,
            at=self._wall_time,
            request_id=None if served is None else served.id,
            thread=thread,
            starved=min(self._starved_s(), duration_s),
        )


def report_hold(watchdog: Watchdog, holder: Holder) -> None:
    """Report that another thread held the lock, when the loop was let in before us: its beat has come again."""
    if holder.seconds >= watchdog.threshold:
        began_s = time.monotonic() - holder.seconds
        episode = Episode(watchdog, watchdog.beats, began_s, began_s)
        watchdog.seen_beats = watchdog.beats - 1
        episode._look()
        episode._end(holder.seconds)


def report_unseen(watchdog: Watchdog, late: Late) -> None:
    """Report a block that ended before we could look: the loop was let in first. It computed, so there was one."""
    if late.cpu_s >= max((late.seconds - late.starved_s) / 2, _MOMENT * watchdog.threshold):
        began_s = time.time() - late.seconds
        report = BlockedLoop(late.seconds, "", 0, "", "", None, began_s, starved=max(0.0, late.starved_s))
        _log(report, still=False)
        watchdog.finished(report, late.cpu_s)


def _thread_name(holder: Holder | None) -> str:
    if holder is None:
        return ""
    return next((one.name for one in threading.enumerate() if one.ident == holder.thread), str(holder.thread))


def _log(report: BlockedLoop, still: bool) -> None:
    if not log.isEnabledFor(logging.WARNING):
        return
    what = f"the event loop {'is' if still else 'was'} blocked for {seconds(report.duration)}"
    what += " and still is, " if still else " "
    if report.file:
        what += f"at {shown_path(report.file)}:{report.line} in {report.function}"
    elif not _stack.CAN_CAPTURE:
        what += f"(where is unknown: {_stack.WHY_NOT})"
    else:
        what += "by a call that held the interpreter's lock (nobody could look while it did)"
    if report.thread:
        what += f", by thread {report.thread} that held the interpreter's lock"
    if report.starved >= _WORTH_SAYING * report.duration:
        what += f", {seconds(report.starved)} of it waiting for a core"
    if report.request:
        what += f" ({report.request})"
    fields = {
        "blocked_seconds": round(report.duration, 3),
        "file": report.file,
        "line": report.line,
        "function": report.function,
        "request": report.request,
    }
    if report.request_id is not None:
        fields["request_id"] = report.request_id
    # As stack_info it stands below the line with every formatter, ours and logging's own.
    place = (report.file or __file__, report.line)
    record = log.makeRecord(log.name, logging.WARNING, *place, what, (), None, extra=fields, sinfo=report.stack or None)
    log.handle(record)


_starved_said_s = -_SAY_AGAIN_S


def _log_starved(duration_s: float) -> None:
    global _starved_said_s
    if (now := time.monotonic()) - _starved_said_s >= _SAY_AGAIN_S:
        _starved_said_s = now
        log.warning("the event loop was late by %s: this machine had no core for it", seconds(duration_s))


def seconds(duration_s: float) -> str:
    """Return a duration as people read it: `85 ms`, `0.41 s`, `12.3 s`."""
    if duration_s < 0.0995:
        return f"{duration_s * 1000:.0f} ms"
    return f"{duration_s:.2f} s" if duration_s < 9.995 else f"{duration_s:.1f} s"


def shown_path(file: str) -> str:
    """Return the path from the working folder, if it lies in it."""
    try:
        relative = os.path.relpath(file)
    except (OSError, ValueError):
        return file
    return file if relative.startswith(os.pardir) else relative
