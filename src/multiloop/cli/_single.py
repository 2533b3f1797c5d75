"""`--workers 0`: the application served in this process, without the cluster.

What lives here: listening, accepting and ending, on one loop. What must not: workers, supervision, reloading.

For debuggers (a breakpoint stops the server, nobody replaces it), and for systems that cannot pass sockets between
processes (Windows). SIGINT or SIGTERM end it gracefully, a second one at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from typing import Any

from .. import health, logs
from ..cluster._environment import worker_environment
from ..cluster._failure import describe
from ..cluster._host import made_files, prepared
from ..cluster._listeners import Listener, close_listeners, open_listeners
from ..cluster._notify import Notifier
from ..cluster._service import cut, finished
from ..cluster._settings import ServeSettings
from ..cluster._title import set_title
from ..http._service import HttpService
from ..http._target import Interface
from ..loop import loop_factory
from ..net._full import NO_ROOM, FullTable
from ..pool import inside_server
from ._application import NEVER_READY, load_application

log = logging.getLogger("multiloop.cli")


def serve(settings: ServeSettings) -> int:
    """Serve until told to stop; return the exit code. Raises ConfigError for every mistake."""
    logs.configure(settings.logs)
    set_title(f"multiloop: {settings.called}")
    os.environ.update(worker_environment(settings, 0, 0))
    notifier = Notifier()
    inside_server(1)
    listeners = open_listeners(settings.listen)
    try:
        with prepared(settings.process, made_files(settings, [listeners])):
            loaded = load_application(settings)
            if loaded is None:
                return NEVER_READY
            with asyncio.Runner(loop_factory=loop_factory(settings.loop)) as runner:  # type: ignore[arg-type]
                return runner.run(_Single(settings, listeners, *loaded, notifier).live())
    finally:
        notifier.close()
        close_listeners(listeners)


class _Single:
    def __init__(
        self, settings: ServeSettings, listeners: list[Listener], app: Any, interface: Interface, notifier: Notifier
    ) -> None:
        self._notifier = notifier
        self._settings = settings
        self._listeners = listeners
        self._app = app
        self._interface = interface
        self._full = FullTable()
        self._accepted = 0

    async def live(self) -> int:
        settings = self._settings
        service = HttpService(
            self._app,
            self._interface,
            settings.http,
            tls=settings.tls,
            listeners=tuple(listener.name for listener in self._listeners),
        )
        try:
            await service.start()
        except Exception as error:
            failed = describe(error)
            log.error("%s failed: %s", settings.target.name, failed.reason, extra={"detail": failed.details})
            return NEVER_READY
        watchdog = health.watch()
        if settings.dev:
            health.guard_blocking_calls()
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        signals = self._take_signals()
        accepting = [asyncio.create_task(self._accept(service, i)) for i in range(len(self._listeners))]
        scheme = "https" if settings.tls is not None else "http"
        where = ", ".join(listener.url(scheme) for listener in self._listeners)
        log.info("serving %s (%s) on %s, in this process", settings.called, self._interface.value, where)
        self._notifier.say("READY=1", f"STATUS=serving on {where}")
        self._ping()
        try:
            await self._stop.wait()
        finally:
            self._notifier.say("STOPPING=1")
            for task in accepting:
                task.cancel()
            await asyncio.gather(*accepting, return_exceptions=True)
            close_listeners(self._listeners)
            await self._end(service)
            watchdog.stop()  # which reports a block that ended only just now
            signals.close()
        return 0

    def _ping(self) -> None:
        if self._notifier.watchdog_s is not None and not self._stop.is_set():
            self._notifier.ping(time.monotonic())
            asyncio.get_running_loop().call_later(self._notifier.watchdog_s / 2, self._ping)

    async def _accept(self, service: HttpService, index: int) -> None:
        loop = asyncio.get_running_loop()
        listening = self._listeners[index].sock
        while True:
            try:
                sock, _ = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno in NO_ROOM:
                    pause = self._full.pause(loop.time(), self._accepted)
                    if pause.is_said:
                        log.warning("cannot accept connections for now: %s", error.strerror)
                    await asyncio.sleep(pause.seconds)
                continue  # the client was gone before it was accepted
            self._accepted += 1
            service.adopt(sock, listener=index)

    async def _end(self, service: HttpService) -> None:
        """Finish what was begun, for as long as --grace allows and nobody says again that it shall end."""
        service.begin_drain(None)
        waits = [asyncio.create_task(finished(service)), asyncio.create_task(self._stop_now.wait())]
        _, pending = await asyncio.wait(
            waits, timeout=self._settings.supervisor.grace, return_when=asyncio.FIRST_COMPLETED
        )
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        cut(service)
        await service.stop()

    def _take_signals(self) -> contextlib.ExitStack:
        loop = asyncio.get_running_loop()
        restore = contextlib.ExitStack()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, self._signalled)
                restore.callback(loop.remove_signal_handler, number)
            except NotImplementedError:  # Windows
                before = signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._signalled))
                restore.callback(signal.signal, number, before)
        if hasattr(signal, "SIGUSR1"):
            loop.add_signal_handler(signal.SIGUSR1, logs.reopen)
            restore.callback(loop.remove_signal_handler, signal.SIGUSR1)
        return restore

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()
