"""Calls as a worker takes them: functions by number, arguments as themselves or as pickles.

What lives here: `Function` (what the pool knows of one) and `Calls`, which turns a call into what is sent, on the thread
of the caller, so that what cannot be pickled raises there. What must not: sockets, tasks.

A function at the top level of a module is pickled once and named by a number from then on. Everything else that can be
called (methods, partials, and with cloudpickle lambdas and closures) travels with each call, as it is then.
"""

from __future__ import annotations

import _pickle
import inspect
import itertools
import pickle
import sys
import types
from typing import Any

from ..errors import NotSendable, UsageError
from ..worker_threads._main_module import describe_main
from ._assign import UNKNOWN_NS
from ._context import TELEMETRY as _TELEMETRY
from ._context import Carried, Carrier, traceparent
from ._protocol import IS_FULL, IS_PARCEL, IS_PLAIN, IS_SINGLE, IS_STREAM, PLAIN_TYPES
from ._values import PLAIN_PICKLE, Packed, pack

_MAX_FUNCTIONS = 4096

Made = tuple["Function", int, Any, Any]


class Function:
    """What the pool knows of one function. `number` 0: it travels with each call."""

    __slots__ = ("estimate_ns", "is_generator", "name", "number", "pickled")

    def __init__(self, target: Any, number: int, pickled: bytes | None) -> None:
        self.number = number
        self.pickled = pickled
        self.estimate_ns = UNKNOWN_NS  # the mean of about the last eight runs
        self.name = _name_of(target)
        self.is_generator = inspect.isgeneratorfunction(_innermost(target))

    def learn(self, took_ns: int) -> None:
        """Take a run into account."""
        if self.estimate_ns == UNKNOWN_NS:
            self.estimate_ns = took_ns
        else:
            self.estimate_ns += (took_ns - self.estimate_ns) * 0.125


class Calls:
    """Makes calls for the workers of one pool. Used from any thread."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._has_variables = carrier.has_variables
        self._functions: dict[Any, Function] = {}
        self._numbers = itertools.count(1)

    def make(
        self,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        is_stream: bool = False,
        for_many: bool = False,
    ) -> Made:
        """Return the function, the flags, the call, and what belongs to it if it is a parcel.

        Args:
            for_many: the task may be run again: the second run must not see what the first one changed.

        Raises:
            NotSendable: the function or an argument cannot be pickled; names the path to it.
            UsageError: the function is asynchronous, or a generator function outside of `stream`.
        """
        try:
            function = self._functions[target]
        except (KeyError, TypeError):  # a new one, or a callable that cannot be hashed
            function = self._learn(target)
        flags = IS_STREAM if is_stream else 0
        if function.is_generator and not is_stream:
            raise UsageError(f"{function.name} is a generator function: iterate pool.stream(...)")
        carried = None
        if self._has_variables or _TELEMETRY in sys.modules or traceparent.get() is not None:
            carried = self._carrier.take()
        value: Any = args
        if kwargs or carried is not None or not function.number:
            flags |= IS_FULL
            value = (args, kwargs, None if function.number else self._sendable(target, function.name), carried)
        else:
            for argument in args:
                if type(argument) not in PLAIN_TYPES:
                    break
            else:
                if len(args) == 1 and not flags and argument is not None:
                    return function, IS_SINGLE, argument, None
                return function, flags | IS_PLAIN, args, None
        body, parcel = self._pack(value, bool(flags & IS_FULL), for_many)
        return function, flags if parcel is None else flags | IS_PARCEL, body, parcel

    def _pack(self, value: Any, is_full: bool, for_many: bool) -> tuple[bytes, Any]:
        """Return the pickle of a call and what has to travel beside it."""
        kind, body, descriptors = _pack(value, is_full, for_many)
        return body, (kind, descriptors) if kind else None

    def _sendable(self, target: Any, name: str) -> Any:
        """Return what stands for a callable in the pickle of its call."""
        return _sendable(target, name)

    def function(self, target: Any) -> Function:
        """Return what is known of a function. Raises UsageError for what is none, or is asynchronous."""
        try:
            return self._functions[target]
        except (KeyError, TypeError):
            return self._learn(target)

    def carried(self) -> Carried | None:
        """Return the values of the context variables that are set."""
        return self._carrier.take()

    def _learn(self, target: Any) -> Function:
        """Return the entry of a function that is seen for the first time, or that travels with each call."""
        pickled = self._definition(target)
        key = target
        if pickled is None:
            # By what it runs: a lambda or a bound method is a new object each time.
            inner = _innermost(target)
            key = getattr(inner, "__code__", None) or ("type", type(inner))
            known = self._functions.get(key)
            if known is not None:
                return known
        if len(self._functions) >= _MAX_FUNCTIONS:
            self._functions.clear()
        _check_callable(target)
        function = Function(target, next(self._numbers) if pickled is not None else 0, pickled)
        self._functions[key] = function
        return function

    def _definition(self, target: Any) -> bytes | None:
        """Return the pickle that names a function, None where it has to travel with each call."""
        original = getattr(target, "_multiloop_offloaded", None)
        try:
            if original is None:
                return _pickle.dumps(target, 5) if _is_importable(target) else None
            function = target.__wrapped__
            found = _is_importable(function) and original.leads_to(function)
            return _pickle.dumps(original, 5) if found else None
        except Exception:
            return None  # not what its module has under that name


def _check_callable(target: Any) -> None:
    if not callable(target):
        raise UsageError(f"a pool runs functions, not {type(target).__name__}: pass the function and its arguments")
    inner = _innermost(target)
    if inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner):
        raise UsageError(
            f"{_name_of(target)} is asynchronous: tasks of a pool are plain functions; await it on the loop instead"
        )


def _innermost(target: Any) -> Any:
    while True:
        inner = getattr(target, "__func__", None) or getattr(target, "func", None)
        if not callable(inner) or inner is target:
            return target
        target = inner


def _name_of(target: Any) -> str:
    inner = _innermost(target)
    name = getattr(inner, "__qualname__", None) or type(inner).__qualname__
    module = getattr(inner, "__module__", None)
    return f"{module}.{name}" if module and module != "builtins" else str(name)


def _is_importable(target: Any) -> bool:
    """Whether a pickle of this names something that a worker finds and that never changes."""
    if isinstance(target, types.FunctionType | type):
        return target.__module__ != "__main__" or describe_main() is not None
    if isinstance(target, types.BuiltinFunctionType):
        return isinstance(target.__self__, types.ModuleType) or target.__self__ is None
    return False


class _ByValue:
    """Something that cloudpickle has pickled, inside an ordinary pickle."""

    def __init__(self, pickled: bytes) -> None:
        self._pickled = pickled

    def __reduce__(self) -> Any:
        return _pickle.loads, (self._pickled,)


def _sendable(target: Any, name: str) -> Any:
    """Return what stands for a callable in the pickle of its call."""
    if hasattr(target, "_multiloop_offloaded"):
        target = target.__wrapped__
    if describe_main() is not None or getattr(_innermost(target), "__module__", None) != "__main__":
        try:
            _pickle.dumps(target, 5)
        except Exception as error:
            reason: Exception = error
        else:
            return target
    else:
        reason = pickle.PicklingError("it is defined in the interactive interpreter, a notebook or -c")
    cloudpickle = _cloudpickle()
    if cloudpickle is None:
        raise NotSendable(
            f"the function {name}",
            target,
            pickle.PicklingError(
                f"{reason}: define it at the top level of a module, or install multiloop[cloudpickle]"
            ),
        ) from reason
    return _ByValue(cloudpickle.dumps(target, 5))


def _pack(value: Any, is_full: bool, for_many: bool) -> Packed:
    try:
        packed = pack(value, for_many=for_many)
    except NotSendable as error:
        if (by_value := _packed_by_value(value)) is not None:
            return by_value
        cause = error.__cause__ or error  # the error of the ordinary pickle says more
        raise NotSendable(path_in_call(error.path, is_full), error.part, cause) from cause
    if packed[2] or b"__main__" not in packed[1] or describe_main() is not None:
        return packed
    return _packed_by_value(value) or packed  # interactive: it names classes that no worker can import


def _packed_by_value(value: Any) -> Packed | None:
    """Pickle with cloudpickle; None where it is not installed, or cannot either."""
    cloudpickle = _cloudpickle()
    if cloudpickle is None:
        return None
    try:
        return PLAIN_PICKLE, cloudpickle.dumps(value, 5), []
    except Exception:
        return None


def path_in_call(path: str, is_full: bool) -> str:
    """Say `args[0].lock` for `value[0].lock`, as the caller knows it."""
    path = path.removeprefix("value")
    if not is_full:
        return "args" + path
    for place, name in (("[0]", "args"), ("[1]", "kwargs"), ("[2]", "function"), ("[3]", "context")):
        if path.startswith(place):
            return name + path.removeprefix(place)
    return path


def _cloudpickle() -> Any:
    try:
        import cloudpickle
    except ImportError:
        return None
    return cloudpickle
