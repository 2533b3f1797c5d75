"""What a running primary does for those who ask over its control socket.

What lives here: `Commands`. What must not: the socket (`_control`), how answers look to people (`cli`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from .. import _limits as limits
from ._app import App
from ._control import CommandFailed

if TYPE_CHECKING:
    from ._primary import Primary


class Commands:
    """Answers for a primary. A command that cannot be done is a CommandFailed of one line."""

    def __init__(self, primary: Primary) -> None:
        self._primary = primary
        self._do: dict[str, Callable[[Mapping[str, Any]], Awaitable[Any]]] = {
            "status": self._status,
            "look": self._look,
            "reload": self._reload,
            "restart": self._restart,
            "scale": self._scale,
            "stop": self._stop,
            "logs": self._logs,
        }

    async def do(self, command: str, arguments: Mapping[str, Any]) -> Any:
        """Do one command; returns its answer, or a Stream of answers."""
        found = self._do.get(command)
        if found is None:
            raise CommandFailed(f"unknown command {command!r}")
        return await found(arguments)

    def status(self) -> dict[str, Any]:
        """Return what `multiloop status` shows."""
        return self._primary.lookout.status()

    def summary(self) -> str:
        """Say in one line how it goes, for a service manager."""
        return "; ".join(_summary(app) for app in self._primary.apps)

    def _app(self, arguments: Mapping[str, Any]) -> App | None:
        """Return the application that was named; None when none was."""
        name = arguments.get("app")
        if name is None:
            return None
        for app in self._primary.apps:
            if app.settings.called == name:
                return app
        known = ", ".join(app.settings.called for app in self._primary.apps)
        raise CommandFailed(f"no application {name!r} here, only {known}")

    async def _status(self, arguments: Mapping[str, Any]) -> Any:
        return self.status()

    async def _look(self, arguments: Mapping[str, Any]) -> Any:
        return self._primary.lookout.look()

    async def _reload(self, arguments: Mapping[str, Any]) -> Any:
        app = self._app(arguments)
        apps = self._primary.apps if app is None else (app,)
        reasons = await asyncio.gather(*self._primary.reload(apps))
        failed = [f"{one.label}: {why}" if one.label else why for one, why in zip(apps, reasons, strict=True) if why]
        if failed:
            raise CommandFailed(f"reload failed: {'; '.join(failed)}")
        return {
            "generation": max(one.supervisor.generation for one in apps),
            "workers": sum(len(one.supervisor.slots) for one in apps),
        }

    async def _restart(self, arguments: Mapping[str, Any]) -> Any:
        number = arguments.get("worker")
        for app in self._primary.apps:
            if number in app.supervisor.workers:
                slot = app.supervisor.workers[number].slot
                reason = await app.restart(number)
                if reason:
                    raise CommandFailed(f"restart failed: {reason}")
                new = None if slot is None else app.supervisor.slots[slot].serving
                return {"worker": new.number if new is not None else None, "slot": slot}
        raise CommandFailed(f"restart: no worker {number!r} (multiloop status shows their numbers)")

    async def _scale(self, arguments: Mapping[str, Any]) -> Any:
        workers = arguments.get("workers")
        if type(workers) is not int or not 1 <= workers <= limits.MAX_WORKERS:
            raise CommandFailed(f"scale: a number of workers from 1 to {limits.MAX_WORKERS} is needed")
        app = self._app(arguments)
        if app is None and len(self._primary.apps) > 1:
            known = " | ".join(one.settings.called for one in self._primary.apps)
            raise CommandFailed(f"scale: which application? --app {known}")
        return {"workers": (app or self._primary.apps[0]).scale(workers)}

    async def _stop(self, arguments: Mapping[str, Any]) -> Any:
        self._primary.stop()
        return {"pid": os.getpid()}

    async def _logs(self, arguments: Mapping[str, Any]) -> Any:
        app = self._app(arguments)
        return await self._primary.log_desk.answer(arguments, lambda name: app is None or name == app.settings.called)


def _summary(app: App) -> str:
    supervisor = app.supervisor
    ready = sum(1 for slot in supervisor.slots if slot.serving is not None and slot.serving.is_serving)
    name = f"{app.label}: " if app.label else ""
    return f"{name}{supervisor.state}, {ready} of {len(supervisor.slots)} workers, {app.where}"
