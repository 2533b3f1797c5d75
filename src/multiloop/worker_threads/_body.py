"""What a worker is made of, whatever its kind: the small interface behind `Worker`.

What lives here: the interface, and the plan that a new place reads first. What must not: any one kind (`_process`,
`_interpreter`, `_thread`), events.
"""

from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from . import _memory
from ._authkey import authkey
from ._main_module import describe_main
from ._options import Options
from ._place import Place
from ._transit import close_all
from ._words import Plan

if TYPE_CHECKING:
    import asyncio


@dataclass(frozen=True, slots=True)
class Ending:
    """How a body came to its end. At most one of `signal` and `failure` is there."""

    code: int | None = None  # of a process that ended by itself
    signal: int | None = None
    failure: BaseException | None = None  # it could not begin


OnEnd = Callable[[Ending], None]


@dataclass(frozen=True, slots=True)
class Outfit:
    """The descriptors that a new body gets; they belong to it. -1: it has the program's own."""

    control: int
    port: int
    stdin: int = -1
    stdout: int = -1
    stderr: int = -1

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All of them."""
        return self.control, self.port, self.stdin, self.stdout, self.stderr

    def close(self) -> None:
        """Close all of them here: the body has its own copies, or will never need them."""
        close_all(self.descriptors)


@dataclass(frozen=True, slots=True)
class Birth:
    """What a body is made from. The outfit belongs to it, also when it cannot begin."""

    options: Options
    outfit: Outfit
    place: Place  # that it is started from
    thread_id: int
    loop: asyncio.AbstractEventLoop
    on_end: OnEnd


class Body(Protocol):
    """A running worker. `on_end` is called once, on the loop, when nothing of it runs any more."""

    pid: int  # of the process that it is in

    @property
    def native_thread(self) -> int | None:
        """The kernel's number of its thread; None: it is a whole process."""

    def stop(self) -> None:
        """Stop it, whatever it does; returns at once. Safe to call twice."""

    def stack(self) -> str:
        """Where it is, when it does not stop; empty if that is not known."""

    def is_over(self) -> bool:
        """Whether nothing of it runs any more."""

    def abandon(self) -> None:
        """The program ends: stop it, call nobody."""


def make_plan(kind: str, birth: Birth, leash: int = -1) -> Plan:
    """Everything that a new place needs before its first message."""
    options, outfit = birth.options, birth.outfit
    is_process = kind == "process"
    environment = None
    if not is_process and options.env is not None:
        environment = {os.fsencode(key): os.fsencode(value) for key, value in options.env.items()}
    return Plan(
        kind=kind,
        path=[str(each) for each in sys.path],
        argv=[options.target.name, *options.argv],
        name=options.name,
        thread_id=birth.thread_id,
        control=outfit.control,
        port=outfit.port,
        parent_pid=os.getpid(),
        main=describe_main(),
        authkey=authkey(),
        limits=options.resource_limits,
        leash=leash,
        environment=environment,
        stdin=-1 if is_process else outfit.stdin,
        stdout=-1 if is_process else outfit.stdout,
        stderr=-1 if is_process else outfit.stderr,
    )


def write_plan(plan: Plan) -> int:
    """Put the plan into memory of its own, for `_words.BOOTSTRAP`; returns the descriptor."""
    data = marshal.dumps(tuple(plan))
    fd = _memory.create_filled([data], len(data), "plan")
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
