"""What blocked event loops, by place: how often, how long, who noticed. Pure.

What lives here: `Offenders`. What must not: noticing (`health`), showing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._limits import MAX_OFFENDERS
from ..stats import BlockedLoop
from ._text import shown, shown_lines, shown_path


@dataclass(slots=True)
class Offender:
    """One place of the code. `worst` is the longest block there."""

    number: int
    worst: BlockedLoop
    count: int = 0
    total: float = 0.0
    last_at: float = 0.0
    last_worker: int = 0
    killed: int = 0  # how often the worker was killed for it


class Offenders:
    """The places that blocked a loop, those that cost most first."""

    def __init__(self) -> None:
        self._by_place: dict[tuple[str, int, str], Offender] = {}
        self._next_number = 1
        self.version = 0  # counts changes

    def add(self, worker: int, block: BlockedLoop, *, killed: bool = False) -> bool:
        """Count a block of a worker. True when its place is new."""
        place = (block.file, block.line, block.function)
        found = self._by_place.get(place)
        is_new = found is None
        if found is None:
            found = self._by_place[place] = Offender(self._next_number, block)
            self._next_number += 1
        found.count += 1
        found.total += block.duration
        found.last_at = max(found.last_at, block.at + block.duration)
        found.last_worker = worker
        found.killed += killed
        if block.duration > found.worst.duration:
            found.worst = block
        if len(self._by_place) > MAX_OFFENDERS:
            least = min((one for one in self._by_place.items() if one[1] is not found), key=lambda one: one[1].total)
            del self._by_place[least[0]]
        self.version += 1
        return is_new

    def stack(self, number: int) -> str | None:
        """Return the stack of an offender's worst block; None when there is no such offender."""
        for found in self._by_place.values():
            if found.number == number:
                return shown_lines(found.worst.stack)
        return None

    def as_plain(self) -> list[dict[str, Any]]:
        """Return them for the page, the one that cost most first."""
        ordered = sorted(self._by_place.values(), key=lambda found: -found.total)
        return [
            {
                "id": found.number,
                **place_of(found.worst),
                "count": found.count,
                "total": round(found.total, 3),
                "worst": round(found.worst.duration, 3),
                "last": round(found.last_at, 3),
                "worker": found.last_worker,
                "killed": found.killed,
            }
            for found in ordered
        ]


def place_of(block: BlockedLoop) -> dict[str, Any]:
    """Return where a block is, safe to show."""
    return {
        "file": shown_path(block.file) if block.file else "",
        "line": block.line,
        "function": shown(block.function),
        "request": shown(block.request),
    }


def sentence(block: BlockedLoop) -> str:
    """Return `blocked for 0.41 s at app.py:57 in view (GET /)`."""
    duration = f"{block.duration:.2f} s" if block.duration < 10 else f"{block.duration:.1f} s"
    where = f"at {shown_path(block.file)}:{block.line} in {shown(block.function)}" if block.file else "by compiled code"
    request = f" ({shown(block.request, 200)})" if block.request else ""
    return f"blocked for {duration} {where}{request}"
