"""What a pool asks of an engine on other machines.

What lives here: the contract that `_engine_ray` and `_engine_dask` keep, and how their answers come back to the pool's
loop. What must not: tasks, decisions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..worker_threads._ray import Died as Died
from ..worker_threads._ray import Lost as Lost
from . import _far_protocol as far
from ._driver import Driver

Then = Callable[[Any, BaseException | None], Any]  # called on the pool's loop with what came, or an error


@dataclass(frozen=True, slots=True)
class Resources:
    """What each worker asks of the engine: cores, accelerators, bytes, and what else the engine knows by name."""

    cpus: float | None = None
    gpus: float | None = None
    memory: int | None = None
    others: tuple[tuple[str, float], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.cpus is not None or self.gpus is not None or self.memory is not None or self.others)


class Handle(Protocol):
    """One worker. All calls return at once."""

    def ask(self, method: str, args: tuple[Any, ...], then: Then) -> None:
        """Call a method of the worker (`_far_protocol`). Errors: Died, Lost, or what the method raised."""

    def tell(self, method: str, *args: Any) -> None:
        """The same without an answer."""

    def when_gone(self, function: Callable[[Exception], Any]) -> None:
        """Call on the pool's loop, with Died or Lost, should the engine say by itself that it is gone."""

    def kill(self) -> None:
        """End it, whatever it does. What it was asked ends with Died."""

    def leave(self) -> None:
        """Let it run its finalizer and end."""

    def salvage(self, started: far.Started | None, then: Then) -> None:
        """It has died: fetch what its page tells: (Peeked, expired task), or None."""


class FarCluster(Protocol):
    """An engine. `connect` and `put` may take long and run on a thread; everything else returns at once."""

    name: str
    address: str

    def bind(self, returns: Returns) -> None:
        """Answers go there from now on."""

    def connect(self) -> int:
        """Connect, or connect again. Returns how many workers there is room for. Raises Lost."""

    def start(self, boot: far.Boot, then: Then) -> Handle:
        """Start a worker. `then` gets Started, or what the worker raised."""

    def put(self, value: Any) -> tuple[Any, int]:
        """Put a value into the object store; returns what a worker is given for it, and its size."""

    def adopt(self, value: Any) -> Any:
        """Return what a worker is given for a value that is the engine's already (a reference), None for others."""

    def cloud(self) -> far.Dumps:
        """Return the `dumps` of the cloudpickle that the engine's machines have."""

    def is_alive(self) -> bool:
        """Whether it can be reached; takes a moment, runs on a thread."""

    def room(self) -> str:
        """Say in a few words what the cluster has free, for a warning."""

    @property
    def dashboard(self) -> str:
        """The address of the engine's own dashboard, "" where it has none."""

    def close(self) -> None:
        """The pool is closed."""


class Returns:
    """Brings answers from the engine's threads to the pool's loop; many that come together cost one wake-up."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._came: list[tuple[Then, Any, BaseException | None]] = []
        self._lock = threading.Lock()

    def put(self, then: Then, value: Any, error: BaseException | None) -> None:
        """Hand an answer over, from any thread."""
        with self._lock:
            self._came.append((then, value, error))
            wake = len(self._came) == 1
        if wake:
            self._driver.call(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            came, self._came = self._came, []
        for then, value, error in came:
            then(value, error)
