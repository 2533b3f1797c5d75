"""The life of a worker, seen from inside.

What lives here: `main`, where a new process or interpreter begins, and `live`, from the first message to the last. What
must not: starting workers, loops (they are imported when the user's code asks for one). Standard library only.

    START ─▶ ONLINE ─▶ the user's code ─▶ a loop, if a port waits for one ─▶ ERROR? ─▶ END ─▶ everything flushed
"""

from __future__ import annotations

import functools
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .._limits import LINGER_S
from ..errors import ChannelClosed
from ._authkey import adopt_authkey
from ._failures import pack_error
from ._link import Link, Packet
from ._main_module import install
from ._message import KINDS, unpack
from ._place import Place, become
from ._target import call, load_function, run_as_main
from ._words import END, ERROR, ONLINE, Plan, Start

if TYPE_CHECKING:
    from ._port import MessagePort


def main(raw_plan: Sequence[Any]) -> None:
    """Be a worker, in a process or interpreter of one's own; ends a process with the worker's exit code."""
    plan = Plan(*raw_plan)
    place = Place(plan.thread_id, plan.name, plan.kind)
    place.resource_limits = plan.limits
    become(place)
    control = Link(socket.socket(fileno=plan.control))
    sys.argv[:] = plan.argv
    install(plan.main)
    adopt_authkey(plan.authkey)
    if plan.kind == "process":
        _prepare_process(plan, control)
        code = live(place, control, plan.port)
        if code:
            sys.exit(code)
        return
    from ._inside_interpreter import settle_in

    clean_up = settle_in(plan)
    live(place, control, plan.port, before_end=clean_up)
    control.close()


def live(
    place: Place,
    control: Link,
    port_fd: int,
    *,
    before_end: Callable[[], None] | None = None,
    owns_interpreter: bool = True,
) -> int:
    """Run a worker in the calling thread, whose place it is; returns its exit code.

    Args:
        before_end: called when the user's code is over, whatever ended it: nothing interrupts behind it.
    """
    place.control = control
    place.make_parent_port = functools.partial(_parent_port, port_fd)
    try:
        code = _run(place, control, owns_interpreter)
    finally:
        if before_end is not None:
            before_end()
    _end(place, control, code)
    if place.parent_port is None and place.kind != "process":
        place.make_parent_port = None
        os.close(port_fd)  # nobody asked for it
    return code


def _run(place: Place, control: Link, owns_interpreter: bool) -> int:
    try:
        start = _first_message(control)
        place.worker_data = start.worker_data
        place.environment = start.environment
        control.send(ONLINE, b"")
        if start.target.kind == "function":
            _run_function(load_function(start.target), place)
        else:
            run_as_main(start.target, owns_interpreter=owns_interpreter)
        if place.waiting_for_loop:
            _run_loop(_nothing)
    except SystemExit as leaving:
        return _exit_code(leaving)
    except BaseException as error:
        control.send(ERROR, pack_error(_explained(error, place)))
        return 1
    return 0


def _run_function(function: Callable[..., Any], place: Place) -> None:
    result = call(function, place.worker_data)  # a coroutine has not begun by then
    if hasattr(result, "__await__"):
        _run_loop(_await, result)


def _run_loop(function: Callable[..., Any], *args: Any) -> None:
    from ..loop import run

    run(function, *args)


async def _await(awaitable: Any) -> None:
    await awaitable


def _nothing() -> None:
    return None


def _first_message(control: Link) -> Start:
    packets: list[Packet] = []
    while not packets:
        if control.is_ended:
            raise ChannelClosed("the parent went away before it said what to run")
        control.wait_readable(None)
        packets = control.receive()
    first, *rest = packets
    assert first.kind in KINDS
    assert not rest, "the parent sends more only when it was asked"
    start: Start = unpack(first.kind, first.body, first.fds)
    return start


def _exit_code(leaving: SystemExit) -> int:
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        return leaving.code
    print(leaving.code, file=sys.stderr)
    return 1


def _explained(error: BaseException, place: Place) -> BaseException:
    """Say what to do about a package that does not load in an interpreter."""
    each: BaseException | None = error
    while each is not None and place.kind == "interpreter":
        if isinstance(each, ImportError) and "subinterpreter" in str(each):
            package = (each.name or str(each).partition("module ")[2]).partition(".")[0]
            better = ImportError(
                f"{package} does not load in an interpreter of its own: start this worker with kind='process'",
                name=each.name,
            )
            better.__cause__ = error
            return better
        each = each.__cause__ or each.__context__
    return error


def _parent_port(fd: int) -> MessagePort:
    from . import _shared  # noqa: F401 - the first SharedBuffer that comes shall not wait for an import
    from ._port import ParentPort

    return ParentPort(Link(socket.socket(fileno=fd)))


# --- the end ----------------------------------------------------------------------------------------------------------
def _end(place: Place, control: Link, code: int) -> None:
    """Send what was posted, tell the others, free what the place holds."""
    while place.at_end:
        place.at_end.pop()()
    for buffer in list(place.buffers.values()):
        buffer._abandon()
    _flush_output()
    control.send(END, code.to_bytes(4, "little", signed=True))
    control.flush(None)
    for port in list(place.ports):
        if port is not place.parent_port:
            port._end_with_place(LINGER_S)
    if place.parent_port is not None:
        # The parent reads everything once it knows of the end; what is posted later (atexit) may still get through.
        place.parent_port._end_with_place(None, stays_open=place.kind == "process")


def _flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # None, a closed pipe, a closed stream
            pass


# --- a process --------------------------------------------------------------------------------------------------------
def _prepare_process(plan: Plan, control: Link) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the main program decides
    _set_limits(plan.limits)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)  # a worker that is killed has said what it printed
    _name_process(plan.name)
    threading.Thread(
        target=_die_with_parent, args=(control.fileno(), plan.parent_pid), name="multiloop-parent", daemon=True
    ).start()


def _set_limits(limits: dict[str, float]) -> None:
    if limits:
        import resource

        from ._resource_limits import NUMBERS

        for name, value in limits.items():
            hard = resource.getrlimit(NUMBERS[name])[1]
            soft = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
            resource.setrlimit(NUMBERS[name], (soft, hard))


def _name_process(name: str) -> None:
    try:
        with open("/proc/self/comm", "w") as file:
            file.write(name[:15])
    except OSError:
        pass  # not Linux: `ps` shows the command line


def _die_with_parent(control: int, parent_pid: int) -> None:
    """Wait for the end of the parent, or of its interest in us; then end, whatever runs here.

    Both are watched: a fork of the parent may hold a copy of the link, and a worker may outlive an interpreter or
    thread that was its parent. Not PR_SET_PDEATHSIG: that fires when the parent's starting *thread* ends.
    """
    poll = select.poll()
    poll.register(control, 0)  # POLLHUP and POLLERR come unasked
    if hasattr(os, "pidfd_open"):
        try:
            poll.register(os.pidfd_open(parent_pid), select.POLLIN)
        except ProcessLookupError:
            os._exit(1)
    if os.getppid() == parent_pid:  # else it ended before it was watched, and the number is a stranger's
        poll.poll()
    os._exit(1)
