"""`@pool.offloaded`: a CPU-bound function that is awaited.

What lives here: the decorator and what it makes. What must not: pools other than by their faces.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from typing import Any, Generic, ParamSpec, TypeVar, overload

from ..loop import Operation
from ._inside import current_worker

P = ParamSpec("P")
T = TypeVar("T")


class _Original:
    """Names the function behind an `Offloaded` in a pickle: its own name leads to the wrapper."""

    def __init__(self, module: str, qualified_name: str) -> None:
        self._where = (module, qualified_name)

    def leads_to(self, function: Any) -> bool:
        """Whether a worker finds the function by this name: not one that was made inside another."""
        try:
            return _find_original(*self._where) is function
        except (ImportError, AttributeError, KeyError):
            return False

    def __reduce__(self) -> Any:
        return _find_original, self._where


def _find_original(module: str, qualified_name: str) -> Any:
    *path, name = qualified_name.split(".")
    place: Any = import_module(module)
    for part in path:
        place = getattr(place, part)
    found = vars(place)[name] if isinstance(place, type) else getattr(place, name)
    found = getattr(found, "__func__", found)  # of a class method or static method
    return getattr(found, "__wrapped__", found)


class Offloaded(Generic[P, T]):
    """A function whose calls run in a pool: `value = await function(*args)`. `__wrapped__` is the function itself.

    Called inside a worker it is a plain call and returns the value: there is no loop to wait on.
    """

    __wrapped__: Callable[P, T]

    def __init__(self, function: Callable[P, T], pool: Any, options: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self._pool = pool
        self._options = options
        self._multiloop_offloaded = _Original(function.__module__, function.__qualname__)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Operation[T]:
        if current_worker() is not None:
            return self.__wrapped__(*args, **kwargs)  # type: ignore[return-value]
        pool = self._pool
        if pool is None:
            from ._default import default_pool

            pool = default_pool()
        if self._options:
            pool = pool.options(**self._options)
        made: Operation[T] = pool.run(self, *args, **kwargs)
        return made

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __reduce__(self) -> str:
        return self.__wrapped__.__qualname__  # as a function: by its name

    def __repr__(self) -> str:
        return f"<offloaded {self.__wrapped__!r}>"


@overload
def offloaded(function: Callable[P, T], /) -> Offloaded[P, T]: ...
@overload
def offloaded(*, pool: Any = None, **options: Any) -> Callable[[Callable[P, T]], Offloaded[P, T]]: ...
def offloaded(function: Any = None, /, *, pool: Any = None, **options: Any) -> Any:
    """Make a CPU-bound function awaitable: its calls run in a worker of the default pool, or of `pool`.

    `@offloaded`, or `@offloaded(timeout=5, pool=my_pool)` with the options of `pool.options`.
    """
    if function is None:
        return lambda given: Offloaded(given, pool, options)
    return Offloaded(function, pool, options)
