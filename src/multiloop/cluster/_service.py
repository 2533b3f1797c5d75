"""What a worker runs: the interface of a service, and how one is made from the settings.

What lives here: `Service` (the contract) and `http_service` (the factory of `multiloop serve`). What must not: when
its methods are called (`_worker`).
"""

from __future__ import annotations

import importlib
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ._settings import ServeSettings

HTTP_SERVICE = f"{__name__}:http_service"

GiveBack = Callable[[socket.socket, int], bool]


class Adopter(Protocol):
    """Takes connections in."""

    def adopt(
        self,
        sock: socket.socket,
        *,
        listener: int,
        prefix: bytes,
        kept: bool = False,
        on_first_byte: Callable[[], None] | None = None,
        on_closed: Callable[[], None] | None = None,
    ) -> bool | None:
        """Serve an accepted socket; call `on_first_byte` before acting on it, and `on_closed` before closing it.

        False: it is refused, and its descriptor is the caller's again.
        """


class Service(Adopter, Protocol):
    """Serves connections on the running loop. Called in this order: start, adopt …, begin_drain, drained, stop."""

    async def start(self) -> None:
        """Become ready; raising means that it never will."""

    def begin_drain(self, give_back: GiveBack | None = None) -> None:
        """Finish what runs. Idle connections may go to `give_back` as duplicates; True means they are taken."""

    async def drained(self) -> None:
        """Wait until no connection is left."""

    def close_now(self) -> None:
        """Cut what is left."""

    async def stop(self) -> None:
        """End the application; called once, last."""

    def freeze(self) -> None:
        """Read nothing new, finish what was begun: the primary is gone."""

    def statistics(self) -> Any:
        """Return a snapshot with `requests` and `active_requests`."""

    def measure(self, meter: Callable[[Any], None] | None) -> None:
        """Call `meter` with each exchange whose reply has ended; None ends that."""


Factory = Callable[["ServeSettings", tuple[str, ...]], tuple[Service, str]]


def find_factory(path: str) -> Factory:
    """Return the function that `module:function` names."""
    module, _, name = path.partition(":")
    found: Factory = getattr(importlib.import_module(module), name)
    return found


async def finished(service: Service) -> None:
    """Wait until a service that drains has no connection left, and this process's pools no task."""
    await service.drained()
    if "multiloop.pool._pools" in sys.modules:
        from ..pool._pools import settled

        await settled()


def cut(service: Service) -> None:
    """The grace is over: cut the connections that are left, and stop the tasks of this process's pools."""
    service.close_now()
    if "multiloop.pool._pools" in sys.modules:
        from ..pool._pools import stop_tasks

        stop_tasks()


def http_service(settings: ServeSettings, listeners: tuple[str, ...]) -> tuple[Service, str]:
    """Import the target and make the HTTP server for it; returns it and how the target is called.

    Raises ConfigError when the target is not there or is no application, and what its import raises.
    """
    from ..http._target import Interface, load

    app, interface = load(settings.target)
    from ..http._service import HttpService

    if interface is Interface.WSGI:
        from .._limits import WSGI_SWITCH_INTERVAL_S

        sys.setswitchinterval(WSGI_SWITCH_INTERVAL_S)
    service = HttpService(app, interface, settings.http, tls=settings.tls, listeners=listeners)
    return service, interface.value
