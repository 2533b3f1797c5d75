"""How a worker comes to life: before its first task, and after its last.

What lives here: `main`, which the command line of a worker process calls, its siblings for interpreters and threads, and
what every kind runs round its loop. What must not: tasks (`_worker_main`); imports that a start would feel.
"""

from __future__ import annotations

import _pickle
import _signal  # type: ignore[import-not-found]
import _socket
import fcntl
import os
import sys
from _thread import start_new_thread
from collections.abc import Callable
from typing import Any

from ..worker_threads._authkey import adopt_authkey
from ..worker_threads._failures import pack_error
from ..worker_threads._main_module import install
from . import _protocol as protocol
from ._inside import current_worker, here, in_thread
from ._page import Page
from ._worker_main import PoolGone, Worker


def main() -> None:
    """Be a worker process. The arguments are the descriptors of the socket, the page and the lifeline."""
    socket_descriptor, page_descriptor, lifeline = map(int, sys.argv[1:4])
    _die_with_parent(lifeline)
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)  # Ctrl-C reaches the whole group; the pool decides
    os.set_inheritable(socket_descriptor, False)
    worker = here.worker = _worker(socket_descriptor, page_descriptor, ())
    _live(worker, _become_process)


def live_in_interpreter(socket_descriptor: int, page_descriptor: int, leash_descriptor: int) -> None:
    """Be a worker in an interpreter of its own, on this thread, until the pool or the leash ends it."""
    from ..worker_threads._leash import Leash, Terminated

    worker = here.worker = _worker(socket_descriptor, page_descriptor, (Terminated,))
    leash = Leash(leash_descriptor)
    try:
        _live(worker, _become_interpreter)
    except Terminated:
        pass
    finally:
        leash.let_go()


def live_in_thread(socket_descriptor: int, page_descriptor: int, ends_with: type[BaseException]) -> None:
    """Be a worker on this thread, until the pool or an exception of this type ends it."""
    worker = in_thread.worker = _worker(socket_descriptor, page_descriptor, (ends_with,), may_spin=False)
    try:
        _live(worker, _become_thread)
    except ends_with:
        pass


def _after_fork() -> None:
    """In a child that a task has forked: the socket and the tasks are the worker's, whatever that child does."""
    worker = current_worker()
    if worker is not None:
        worker.forget()
        here.worker = in_thread.worker = None


os.register_at_fork(after_in_child=_after_fork)


def _worker(
    socket_descriptor: int, page_descriptor: int, ends_with: tuple[type[BaseException], ...], may_spin: bool = True
) -> Worker:
    page = Page(page_descriptor)
    os.close(page_descriptor)
    may_spin = may_spin and os.cpu_count() != 1
    return Worker(_socket.socket(fileno=socket_descriptor), page, may_spin=may_spin, ends_with=ends_with)


def _live(worker: Worker, become: Callable[[dict[str, Any]], None]) -> None:
    try:
        options = worker.boot_options()
        if prepare(worker, options, become):
            worker.serve()
            finish(options)
    except PoolGone:
        pass
    except ValueError:  # of the released words
        if not worker.is_forked:
            raise
    finally:
        if worker.is_forked:  # the task has forked, and returned in the child, too
            os._exit(0)
        worker.close()


def prepare(worker: Worker, options: dict[str, Any], become: Callable[[dict[str, Any]], None]) -> bool:
    """Run `become` and the initializer and say READY; False when one of them failed, which the pool is told."""
    try:
        become(options)
        worker.context_names = options["context"]
        if options["initializer"] is not None:
            initializer, args = _pickle.loads(options["initializer"])
            initializer(*args)
    except BaseException as error:
        worker.announce(protocol.BROKEN, pack_error(error))
        return False
    worker.announce(protocol.READY)
    return True


def finish(options: dict[str, Any]) -> None:
    """Run the finalizer."""
    if options["finalizer"] is not None:
        _pickle.loads(options["finalizer"])()


def _become_process(options: dict[str, Any]) -> None:
    """Take on what belongs to the whole process: priority, cores, and all that an interpreter has."""
    _become_interpreter(options)
    if options["nice"] is not None:
        os.nice(options["nice"])
    if options["cores"] is not None:
        os.sched_setaffinity(0, options["cores"])
    if options["traces_crashes"]:
        import faulthandler

        faulthandler.enable()


def _become_interpreter(options: dict[str, Any]) -> None:
    """Take on what belongs to an interpreter: paths, arguments, the main module, streams."""
    sys.path[:] = options["path"]
    sys.argv[:] = options["argv"]
    install(options["main"])
    adopt_authkey(options["authkey"])
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)  # what a task printed is not lost when it is killed


def _become_thread(options: dict[str, Any]) -> None:
    """A thread has nothing of its own."""


def _die_with_parent(lifeline: int) -> None:
    """Have the kernel kill this process when the pool's process is gone, however it went and whatever runs here.

    `lifeline` is the reading end of a pipe into which nobody ever writes. On Linux its end-of-file is made a SIGKILL,
    which C code that never comes back to Python does not delay. (PR_SET_PDEATHSIG would do that too, but it fires when
    the *thread* that started us ends, and needs ctypes, which costs a worker half of its start.)
    """
    if not hasattr(fcntl, "F_SETSIG"):
        start_new_thread(_watch_parent, (lifeline,))
        return
    # Opened anew: owner and signal belong to the open file, which all workers would share.
    own = os.open(f"/proc/self/fd/{lifeline}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.close(lifeline)
    fcntl.fcntl(own, fcntl.F_SETSIG, _signal.SIGKILL)
    fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(own, fcntl.F_SETFL, fcntl.fcntl(own, fcntl.F_GETFL) | os.O_ASYNC)
    try:
        is_gone = os.read(own, 1) == b""
    except BlockingIOError:
        is_gone = False
    if is_gone:  # before we could ask for the signal
        os._exit(1)


def _watch_parent(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(1)
