"""A worker process of `multiloop serve`: one loop, one service, until the primary says or dies.

What lives here: `Worker` and `main`. What must not: the hand-over of connections (`_intake`), supervision.

    argv ─▶ main ─▶ loop ─▶ Start ─▶ service made (the application is imported) ─▶ [Imported … Activate] ─▶ service.start
         ─▶ Ready ─▶ connections, a heartbeat each 0.25 s, a Report each second ─▶ Drain ─▶ service.stop ─▶ exit 0

Rules
* The heartbeat is written by the loop, never by a thread: it says that the loop turns.
* The primary's death is noticed by a side thread (end of file on a pipe that only the primary can write to), so also
  while the loop is blocked: started requests get `ORPHAN_GRACE_S`, then the process is gone.
* SIGINT is the primary's (Ctrl-C hits the whole group). SIGTERM drains this worker.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import _limits as limits
from .. import health, logs
from .._wire import messages as wire
from ..http._pace import Pace, keep_pace
from ..ipc import Channel, ChannelEnds, _relay
from ..ipc._handoff import HandoffSocket
from ..loop import loop_factory
from ..pool import inside_server
from ._acceptor import Acceptor
from ._failure import describe
from ._intake import Intake
from ._lifeline import Lifeline
from ._log_sender import LogSender
from ._measuring import Measuring
from ._page import Page
from ._policy import asks_for_requests
from ._relay import WorkerUplink
from ._service import Service, cut, find_factory, finished
from ._title import set_title
from ._vitals import answer_stack_signal, capacity, rss_bytes

log = logging.getLogger("multiloop.cluster")

_IGNORED = ("SIGINT", "SIGHUP", "SIGUSR1", "SIGTTIN", "SIGTTOU")  # the primary's, when they hit the whole group
_EXIT_NEVER_READY = 3
_CUT_S = 0.3  # for connections that were cut to be gone
_LAST_WORDS_S = 0.5  # for what was sent to the primary to be taken


class Arguments(NamedTuple):
    """What a worker process gets on its command line: descriptors, and the kind of loop."""

    stream: int
    descriptors: int
    handoff: int
    page: int
    lifeline: int
    loop: str

    @classmethod
    def parse(cls, argv: list[str]) -> Arguments:
        """Read the command line, as `_process` wrote it."""
        stream, descriptors, handoff, page, lifeline = map(int, argv[:5])
        return cls(stream, descriptors, handoff, page, lifeline, argv[5])


def main(argv: list[str]) -> int:
    """Live a worker's life; returns the exit code."""
    arguments = Arguments.parse(argv)
    page = Page(arguments.page)
    os.set_inheritable(arguments.page, False)
    lifeline = Lifeline(arguments.lifeline)
    answer_stack_signal(page)
    _take_signals()
    with asyncio.Runner(loop_factory=loop_factory(arguments.loop)) as runner:  # type: ignore[arg-type]
        return runner.run(Worker(arguments, page, lifeline).live())


def _take_signals() -> None:
    # Handlers that do nothing instead of SIG_IGN, which the application's own children would inherit.
    for name in _IGNORED:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # nothing is served yet; replaced when something is
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the spawner held them back until here


class Worker:
    """The life of one worker on its loop."""

    def __init__(self, arguments: Arguments, page: Page, lifeline: Lifeline) -> None:
        self._arguments = arguments
        self._page = page
        self._lifeline = lifeline
        self._service: Service | None = None
        self._intake: Intake | None = None
        self._acceptor: Acceptor | None = None
        self._pace: Pace | None = None  # where the policy asks
        self._watchdog: health.Watchdog | None = None
        self._beats = 0
        self._is_ready = False
        self._leaving: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[None] | None = None

    async def live(self) -> int:
        """Serve until the end; returns the exit code."""
        arguments = self._arguments
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[int] = self._loop.create_future()
        self._activated = asyncio.Event()
        self._cut = asyncio.Event()
        self._handlers: dict[type, Callable[[Any, tuple[int, ...]], Any]] = {
            wire.Start: self._on_start,
            wire.Activate: self._on_activate,
            wire.FollowLogs: lambda message, descriptors: self._log_sender.asked(message),
            wire.Listen: self._on_listen,
            wire.Drain: lambda message, descriptors: self._drain(message.grace_s, message.give_back),
            wire.ReopenLogs: lambda message, descriptors: logs.reopen(),
            wire.Measure: lambda message, descriptors: self._measuring.ask(message.seconds),
            wire.ReportNow: lambda message, descriptors: self._report(now=True),
            wire.Relay: lambda message, descriptors: _relay.arrived(message.name, message.data),
        }
        ends = ChannelEnds.from_fds(arguments.stream, arguments.descriptors)
        self._channel = Channel(ends, self._on_message, self._on_close, name="primary")
        self._log_sender = LogSender(self._loop, self._channel.send, lambda: self._channel.buffered_bytes)
        channel = self._channel
        _relay.set_uplink(WorkerUplink(self._loop, channel.send, lambda: channel.buffered_bytes))
        self._handoff = HandoffSocket.from_fd(arguments.handoff)
        self._measuring = Measuring(self._page, self._channel.send)
        self._lifeline.when_cut(self._loop, self._orphaned)
        try:
            return await self._done
        finally:
            _relay.set_uplink(None)
            if self._watchdog is not None:
                self._watchdog.stop()  # which reports a block that ended only just now
                await asyncio.sleep(0)
            if self._intake is not None:
                self._intake.close()
            self._channel.close()
            await self._channel.drain()

    def _on_message(self, message: Any, descriptors: tuple[int, ...]) -> None:
        self._handlers[type(message)](message, descriptors)

    def _on_close(self) -> None:
        if not self._done.done():
            self._orphaned()

    # -- the beginning -------------------------------------------------------------------------------------------------
    def _on_start(self, start: wire.Start, descriptors: tuple[int, ...]) -> None:
        self._start = start
        self._starting = self._loop.create_task(self._begin(start))

    def _on_activate(self, message: wire.Activate, descriptors: tuple[int, ...]) -> None:
        if message.slot is not None:
            os.environ["MULTILOOP_SLOT"] = str(message.slot)
        self._activated.set()

    async def _begin(self, start: wire.Start) -> None:
        try:
            self._prepare(start)
            if asks_for_requests(start.settings.supervisor.policy):
                self._pace = keep_pace()
            service, description = find_factory(start.factory)(start.settings, start.listeners)
            logs.reassert()
            if start.standby:
                self._channel.send(wire.Imported())
                await self._activated.wait()
            await service.start()
        except (Exception, SystemExit) as error:
            self._channel.send(describe(error))
            self._finish(_EXIT_NEVER_READY)
            return
        self._service = service
        say_load = self._say_load if self._pace is not None else None
        self._intake = Intake(self._loop, self._handoff, service, start.families.__getitem__, say_load)
        self._is_ready = True
        self._watchdog = health.watch()
        self._watchdog.on_wake = lambda: self._page.thread_beat(time.monotonic())  # a side thread can run
        if start.settings.dev:
            health.guard_blocking_calls()
        self._measuring.begin(service)
        gc.collect()
        gc.freeze()  # what was imported stays: the collector need not look at it again and again
        self._loop.add_signal_handler(signal.SIGTERM, self._terminated)
        self._beat()
        if self._pace is not None:
            self._load_beat()
        self._channel.send(wire.Ready(capacity(), description))

    def _prepare(self, start: wire.Start) -> None:
        settings = start.settings
        sys.argv[:] = start.argv
        inside_server(start.workers)
        logs.configure(settings.logs, worker=start.number, label=start.label)
        logs.queue_streams()
        set_title(f"multiloop: worker {start.number} ({settings.called})")
        if settings.env_file is not None:
            from ._env_file import apply

            apply(settings.env_file)

    def _beat(self) -> None:
        self._page.beat(time.monotonic())
        self._measuring.beat()
        if self._done.done():
            return
        self._loop.call_later(limits.HEARTBEAT_INTERVAL_S, self._beat)
        self._beats += 1
        if self._beats % round(limits.REPORT_INTERVAL_S / limits.HEARTBEAT_INTERVAL_S) == 1:
            self._report()

    def _report(self, *, now: bool = False) -> None:
        if self._service is None or self._channel.buffered_bytes:  # the primary is stopped: it will get the next one
            return
        metrics = self._measuring.metrics(now=now)
        if metrics is not None:
            self._channel.send(metrics)
        self._channel.send(wire.Report(rss_bytes(), self._service.statistics(), self._measuring.details()))

    def _say_load(self) -> None:
        """Tell a policy that asks how much there is to do here, and how long it takes."""
        if self._service is not None and self._pace is not None:
            self._page.set_load(self._service.statistics().active_requests, self._pace.typical_s(time.perf_counter()))

    def _load_beat(self) -> None:
        self._say_load()
        if not self._done.done():
            self._loop.call_later(limits.LOAD_INTERVAL_S, self._load_beat)

    def _on_listen(self, listen: wire.Listen, descriptors: tuple[int, ...]) -> None:
        if self._service is None or self._leaving is not None:
            for descriptor in descriptors:
                os.close(descriptor)
            return
        if self._acceptor is not None:
            self._acceptor.close()
        self._acceptor = Acceptor(self._loop, self._service, listen.batch)
        for descriptor, index in zip(descriptors, listen.indices, strict=True):
            self._acceptor.listen(descriptor, index, self._start.families[index])

    # -- the end -------------------------------------------------------------------------------------------------------
    def _terminated(self) -> None:
        if self._leaving is None:
            self._channel.send(wire.Leaving())
            self._drain(self._start.settings.supervisor.grace, True)

    def _drain(self, grace_s: float, give_back: bool) -> None:
        if self._leaving is not None:
            if not grace_s:
                self._cut.set()
        elif self._is_ready:
            if not grace_s:
                self._cut.set()
            self._leaving = self._loop.create_task(self._leave(grace_s, give_back))
        else:
            self._finish(0)

    def _finish(self, code: int) -> None:
        if not self._done.done():
            self._done.set_result(code)

    async def _leave(self, grace_s: float, give_back: bool) -> None:
        service, intake = self._service, self._intake
        assert service is not None
        assert intake is not None
        deadline = self._loop.time() + grace_s
        try:
            if self._acceptor is not None:
                if not give_back:  # everybody leaves: what has reached the listening sockets is ours to answer
                    self._acceptor.empty()
                self._acceptor.close()
            intake.read_all()
            service.begin_drain(intake.give_back if give_back else None)
            await _first_of(grace_s, finished(service), self._cut.wait())
            cut(service)
            await _first_of(_CUT_S, service.drained())
            # The primary may be stopped, or have no descriptors: connections given back wait for it as long as requests may.
            await _first_of(max(_LAST_WORDS_S, deadline - self._loop.time()), intake.settle(), self._cut.wait())
            await service.stop()
        except Exception:
            log.exception("leaving failed")
        finally:
            try:
                self._report(now=True)  # the last figures: nothing that was counted is lost with the worker
            finally:
                self._finish(0)

    def _orphaned(self) -> None:
        """The primary is gone: nobody waits for this process any more."""
        if self._service is None:
            os._exit(1)
        if self._acceptor is not None:
            self._acceptor.close()
        if self._intake is not None:
            self._intake.close()
        if self._leaving is None:
            self._leaving = self._loop.create_task(self._leave_orphaned(self._service))

    async def _leave_orphaned(self, service: Service) -> None:
        try:
            service.freeze()
            await _first_of(limits.ORPHAN_GRACE_S * 0.7, service.drained())
            service.close_now()
            await _first_of(limits.ORPHAN_GRACE_S * 0.2, service.stop())
        finally:
            os._exit(1)


async def _first_of(timeout_s: float, *waits: Any) -> None:
    """Wait for the first of several, or the time; what still waits is cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    _, pending = await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
