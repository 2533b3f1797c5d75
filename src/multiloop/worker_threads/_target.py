"""What a worker runs: a file, a module or a function.

What lives here: recognising it (`describe`, at home) and running it (`run_target`, in the worker). What must not: how
the worker came to be, what it sends.
"""

from __future__ import annotations

import functools
import os
import pickle
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from ..errors import UsageError
from ._main_module import describe_main, load_code


class Target(NamedTuple):
    """What to run, in a form that travels."""

    kind: str  # "file", "module" or "function"
    name: str  # the file's path, the module's or function's name
    pickled: bytes = b""  # of a function


def describe(target: Any) -> Target:
    """Recognise what was given to `Worker`.

    A string that ends in .py or has a separator is a file, found from the working folder; any other is a module.

    Raises:
        TypeError: it is none of the three.
        UsageError: a function that cannot be found from another place: a lambda, or one inside a function.
    """
    if isinstance(target, os.PathLike):
        return Target("file", os.path.abspath(os.fsdecode(target)))
    if isinstance(target, str):
        if not target:
            raise UsageError("Worker(''): give the path of a file, the name of a module, or a function")
        if target.endswith(".py") or os.sep in target or (os.altsep and os.altsep in target):
            return Target("file", os.path.abspath(target))
        return Target("module", target)
    if not callable(target):
        raise TypeError(f"Worker() takes a path, the name of a module or a function, not {type(target).__name__}")
    return Target("function", _name_of(target), _pickled(target))


def _name_of(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', '?')}.{name}"


def _pickled(function: Callable[..., Any]) -> bytes:
    try:
        data = pickle.dumps(function, 5)
        if not _is_of_main(function) or describe_main() is not None:
            return data
        reason = "the program has no main file that a worker could import"
    except Exception as error:
        reason = str(error)
    try:
        import cloudpickle
    except ImportError:
        raise UsageError(
            f"a worker cannot find the function {_name_of(function)}: {reason}; "
            "define it at the top level of a module, or install cloudpickle"
        ) from None
    found: bytes = cloudpickle.dumps(function, 5)
    return found


def _is_of_main(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__module__", None) in ("__main__", "__mp_main__")


# --- in the worker ----------------------------------------------------------------------------------------------------
def load_function(target: Target) -> Callable[..., Any]:
    """Unpickle the function; imports its module, or the program's main file."""
    found: Callable[..., Any] = pickle.loads(target.pickled)
    return found


def call(function: Callable[..., Any], worker_data: Any) -> Any:
    """Call the function as a worker does: with `worker_data` if it takes an argument."""
    return function(worker_data) if _takes_argument(function) else function()


_CO_VARARGS = 0x04


def _takes_argument(function: Callable[..., Any]) -> bool:
    code = getattr(function, "__code__", None)
    if code is not None and not hasattr(function, "__wrapped__"):  # the common case, without inspect's import
        return bool(code.co_argcount or code.co_flags & _CO_VARARGS)
    import inspect

    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions do not tell
        return True
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    return any(each.kind in positional for each in parameters)


def run_as_main(target: Target, *, owns_interpreter: bool) -> None:
    """Run a file or module as `__main__`.

    Args:
        owns_interpreter: register it as `__main__` and `__mp_main__`, so that pickles find its classes, and put a
            file's folder in front of sys.path, as `python file.py` does. Not where others use the same interpreter.
    """
    module = ModuleType("__main__")
    module.__dict__["__builtins__"] = __builtins__
    if owns_interpreter:
        if target.kind == "file":
            folder = os.path.dirname(target.name)
            if folder not in sys.path[:1]:
                sys.path.insert(0, folder)
        sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    code = load_code((target.kind, target.name), module)
    if owns_interpreter and target.kind == "module":
        sys.argv[0] = module.__dict__["__file__"] or target.name
    exec(code, module.__dict__)
