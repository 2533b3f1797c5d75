"""Calls as a worker on another machine takes them.

What lives here: `FarCalls` and what travels beside a call. What must not: sending (`_far_link`).

What a worker cannot import goes by value: functions and classes of the main file, lambdas, closures (cloudpickle, which
every engine brings along). Everything else goes by name: the engine's machines have the same modules installed.
"""

from __future__ import annotations

import _pickle
import types
from collections.abc import Callable
from typing import Any, NamedTuple

from .._wire._explain import path_to_unpicklable
from ..errors import NotSendable, UsageError
from ._calls import Calls, path_in_call
from ._context import Carrier
from ._far_protocol import Dumps, pack_far
from ._shared import Collecting, Shared

_MAIN = ("__main__", "__mp_main__")


class FarParcel(NamedTuple):
    """What belongs to a call: large memory, and values that were put into the engine."""

    buffers: list[Any]
    shared: dict[int, Shared]


class FarCalls(Calls):
    """Makes calls for one pool."""

    def __init__(self, carrier: Carrier, cloud: Callable[[], Dumps], adopt: Callable[[Any], Shared | None]) -> None:
        super().__init__(carrier)
        self._cloud = cloud  # finds cloudpickle late
        self._adopt = adopt  # makes a Shared of what the engine has for that

    def make(
        self,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        is_stream: bool = False,
        for_many: bool = False,
    ) -> Any:
        """See Calls."""
        for argument in args:
            if self._adopt(argument) is not None:
                args = tuple(self._adopt(each) or each for each in args)
                break
        return super().make(target, args, kwargs, is_stream, for_many)

    def _pack(self, value: Any, is_full: bool, for_many: bool) -> tuple[bytes, FarParcel | None]:
        with Collecting() as shared:
            try:
                body, buffers = pack_far(value, self._cloud)
            except UsageError:
                raise
            except Exception as error:
                path, part = path_to_unpicklable(value, can_be_pickled=self._can_be_pickled)
                raise NotSendable(path_in_call(path, is_full), part, error) from error
        return body, FarParcel(buffers, shared) if buffers or shared else None

    def _can_be_pickled(self, value: Any) -> bool:
        try:
            self._cloud()(value, 5)
        except Exception:
            return False
        return True

    def _definition(self, target: Any) -> bytes | None:
        if (
            isinstance(target, types.FunctionType | type)
            and target.__module__ in _MAIN
            and "<locals>" not in target.__qualname__
            and target.__name__ != "<lambda>"
        ):
            try:
                return self._cloud()(target, 5)
            except Exception:
                return None
        return super()._definition(target)

    def _sendable(self, target: Any, name: str) -> Any:
        try:
            return _ByValue(self._cloud()(target, 5))
        except Exception as error:
            raise NotSendable(f"the function {name}", target, error) from error


class _ByValue:
    """Something that is pickled already, inside a pickle."""

    def __init__(self, pickled: bytes) -> None:
        self._pickled = pickled

    def __reduce__(self) -> Any:
        return _pickle.loads, (self._pickled,)
