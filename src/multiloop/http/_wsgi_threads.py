"""The threads on which a WSGI application runs: bounded, named, with a bounded queue before them.

What lives here: `WsgiThreads`. What must not: HTTP, the application.

    loop: submit → queue ║ thread: task.run() → post(call, argument) ║ loop: call(argument), in batches

Guarantees
* Nothing is ever cancelled: a thread cannot be stopped. Threads are daemons, so one that hangs does not keep the process.
* `post` wakes the loop once for all that is posted before it looks, and calls come in the order of their posts.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from .._limits import WSGI_CLOSE_S, WSGI_SWITCH_INTERVAL_S

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("multiloop.http")


class Task(Protocol):
    """What a thread can be given."""

    def run(self) -> None: ...


class WsgiThreads:
    """`threads` threads and a queue of at most `queue` tasks that wait for one. Made on the loop that it reports to."""

    def __init__(self, threads: int, queue: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue_limit = queue
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._busy = [False] * max(1, threads)  # each written by its thread alone
        self._threads: list[threading.Thread] = []
        self._posted: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._armed = False  # the loop was woken for what is posted
        self._context = contextvars.Context()
        self._left = 0  # threads that have not ended
        self._all_ended: asyncio.Future[None] | None = None
        self._switch_interval_s = 0.0
        self.environs: dict[int, dict[str, Any]] = {}  # for the exchanges: what is the same for all of one listener

    # -- on the loop ---------------------------------------------------------------------------------------------------
    def submit(self, task: Task) -> bool:
        """Queue a task for a thread; False when the queue is full."""
        if not self._threads:
            self._start()
        waiting = self._tasks.qsize()
        if waiting >= self._queue_limit and waiting >= self._queue_limit + self._busy.count(False):
            return False
        self._tasks.put(task)
        return True

    def _start(self) -> None:
        # A computing view must not hold the loop's thread for the usual 5 ms a turn.
        self._switch_interval_s = sys.getswitchinterval()
        if self._switch_interval_s > WSGI_SWITCH_INTERVAL_S:
            sys.setswitchinterval(WSGI_SWITCH_INTERVAL_S)
        for number in range(len(self._busy)):
            thread = threading.Thread(
                target=self._work, args=(number,), name=f"multiloop-wsgi-{number + 1}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # no more threads for this process: fewer must do
                if not self._threads:
                    raise
                del self._busy[number:]
                log.warning("only %d of the WSGI threads could be started", number)
                break
            self._threads.append(thread)
        self._left = len(self._threads)

    async def close(self) -> None:
        """End the threads, each after the task it is in; those that take too long are left to end by themselves."""
        threads, self._threads = self._threads, []
        if not threads:
            return
        for _ in threads:
            self._tasks.put(None)
        self._all_ended = self._loop.create_future()
        if self._left:
            await asyncio.wait([self._all_ended], timeout=WSGI_CLOSE_S)
        if self._left:
            log.warning("%d WSGI threads are still inside the application and were left behind", self._left)
        else:
            for thread in threads:
                thread.join(1.0)  # each has posted its end: nothing but its last instructions are left
        if sys.getswitchinterval() == WSGI_SWITCH_INTERVAL_S:
            sys.setswitchinterval(self._switch_interval_s)

    def _drain(self) -> None:
        self._armed = False
        posted = self._posted
        while posted:
            call, argument = posted.popleft()
            try:
                call(argument)
            except Exception:
                log.exception("a reply could not be sent")

    def _thread_ended(self, _: None) -> None:
        self._left -= 1
        if not self._left and self._all_ended is not None and not self._all_ended.done():
            self._all_ended.set_result(None)

    # -- on a thread ---------------------------------------------------------------------------------------------------
    def post(self, call: Callable[[Any], None], argument: Any) -> None:
        """Have the loop call this, after what was posted before. Raises RuntimeError when the loop was closed."""
        self._posted.append((call, argument))
        # The loop clears the flag before it looks, so what comes after its last look always wakes it again.
        if not self._armed:
            self._armed = True
            self._loop.call_soon_threadsafe(self._drain, context=self._context)

    def _work(self, number: int) -> None:
        take = self._tasks.get
        busy = self._busy
        while True:
            task = take()
            if task is None:
                break
            busy[number] = True
            try:
                contextvars.Context().run(task.run)
            except BaseException:
                if self._loop.is_closed():
                    return  # nobody is left to answer to
                log.exception("a WSGI thread failed")
            del task  # an idle thread must not keep a request alive
            busy[number] = False
        try:
            self.post(self._thread_ended, None)
        except RuntimeError:
            pass  # the loop is closed: nobody waits
