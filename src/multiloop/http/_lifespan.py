"""The lifespan of an ASGI application: startup, state, shutdown; and the word that draining has begun.

What lives here: `Lifespan`. Rules (asgi.readthedocs.io, lifespan 2.0): startup must complete before the first
connection; a `startup.failed` is fatal; an application that raises does not speak lifespan ("auto": the server goes on
without, as the specification wants, with a warning if it had asked for the event; "on": fatal). Shutdown is told exactly
once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ..errors import PeerError

log = logging.getLogger("multiloop.http")


class LifespanFailed(PeerError):
    """The application said that it cannot start, or raised while starting: mend it; nothing was served."""


class Lifespan:
    """Runs an application's lifespan on the current loop. `mode`: "auto", "on" or "off"."""

    def __init__(self, app: Any, mode: str, draining: asyncio.Event) -> None:
        self._app = app
        self._mode = mode
        # The event under this key is set when the worker begins to drain: long-lived streams can end by themselves.
        self.state: dict[str, Any] = {"multiloop.draining": draining}
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answer: asyncio.Future[None] | None = None
        self._asked = False
        self._task: asyncio.Task[None] | None = None
        self.supported = False
        self._stopped = False

    async def startup(self) -> None:
        """Tell the application to start and wait until it did. Raises LifespanFailed."""
        if self._mode == "off":
            return
        self._answer = asyncio.get_running_loop().create_future()
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._events.put_nowait({"type": "lifespan.startup"})
        await self._answer

    async def shutdown(self) -> None:
        """Tell the application to end and wait until it did; once, whatever happened before."""
        if self._stopped or not self.supported or self._task is None:
            return
        self._stopped = True
        if self._task.done():
            return
        self._answer = asyncio.get_running_loop().create_future()
        self._events.put_nowait({"type": "lifespan.shutdown"})
        try:
            await self._answer
        except LifespanFailed as error:
            log.error("the application's shutdown failed: %s", error)

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._app_raised(error)
        else:
            self._app_returned()

    def _app_raised(self, error: BaseException) -> None:
        if self.supported:  # it was up; this is its shutdown, or a background failure
            log.error("the application's lifespan raised", exc_info=error)
            self._settle(None)
        elif self._mode == "on":
            failed = LifespanFailed("the application raised while it started")
            failed.__cause__ = error
            self._settle(failed)
        else:
            level = logging.WARNING if self._asked else logging.DEBUG
            log.log(level, "the application does not speak lifespan (--lifespan on makes this fatal): %r", error)
            self._settle(None)

    def _app_returned(self) -> None:
        if self._mode == "on" and not self.supported:
            self._settle(LifespanFailed("the application returned without lifespan.startup.complete"))
        else:
            self._settle(None)

    def _settle(self, error: BaseException | None) -> None:
        answer = self._answer
        if answer is not None and not answer.done():
            if error is None:
                answer.set_result(None)
            else:
                answer.set_exception(error)

    async def _receive(self) -> dict[str, Any]:
        self._asked = True
        return await self._events.get()

    async def _send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self.supported = True
            self._settle(None)
        elif kind == "lifespan.startup.failed":
            self._settle(LifespanFailed(message.get("message") or "the application said startup.failed"))
        elif kind == "lifespan.shutdown.complete":
            self._settle(None)
        elif kind == "lifespan.shutdown.failed":
            self._settle(LifespanFailed(message.get("message") or "the application said shutdown.failed"))
        else:
            raise RuntimeError(f"an event of type {kind!r} has no place in a lifespan")
