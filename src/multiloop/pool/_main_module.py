"""The program's main file inside a worker: imported under `__mp_main__` when a function or class of it is first needed.

What lives here: how the main file is found (`describe_main`, in the pool's process) and the stand-in that imports it
(`install`, in a worker). What must not: anything that runs when no function of `__main__` is used.
"""

from __future__ import annotations

import functools
import os
import sys
from types import ModuleType
from typing import Any

from ._inside import here


@functools.cache
def describe_main() -> tuple[str, str] | None:
    """Say how a worker can import this program's main module: ("name", m), ("path", p), or None: it cannot.

    None for the interactive interpreter, notebooks, `-c` and standard input.
    """
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":
        return ("name", spec.name)
    path = getattr(main, "__file__", None)
    if path is None or getattr(main, "__name__", "") not in ("__main__", "__mp_main__") or not os.path.isfile(path):
        return None
    return ("path", os.path.abspath(path))


class MainModule(ModuleType):
    """Stands for `__main__`; becomes the real one on the first look at a name in it."""

    def __init__(self, where: tuple[str, str] | None) -> None:
        super().__init__("__mp_main__")
        self.__dict__["_where"] = where

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(f"module '__main__' has no attribute {name!r}")
        if "_where" in self.__dict__:
            _import_into(self)
            if name in self.__dict__:
                return self.__dict__[name]
        raise AttributeError(f"the program's main module has no {name!r} at its top level")


def install(where: tuple[str, str] | None) -> None:
    """Put the stand-in where pickles look for it."""
    module = MainModule(where)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


def _import_into(module: MainModule) -> None:
    where = module.__dict__["_where"]
    if where is None:
        raise RuntimeError(
            "the program has no main file that a worker can import (interactive interpreter, notebook or -c): "
            "move the function into a module, or install cloudpickle"
        )
    code = _code_of(module, where)
    names = set(module.__dict__)
    here.is_importing_main = True
    del module.__dict__["_where"]
    try:
        exec(code, module.__dict__)
    except BaseException as error:
        # The next look tries again, as an import would.
        for name in set(module.__dict__) - names:
            del module.__dict__[name]
        module.__dict__["_where"] = where
        if isinstance(error, Exception):
            error.add_note(f"while a pool's worker imported the main module ({where[1]}) to find a function of it")
            raise
        raise RuntimeError(
            f"the main module ({where[1]}) ended a pool's worker with {error!r} while it was imported: "
            'put what starts the program under: if __name__ == "__main__":'
        ) from error
    finally:
        here.is_importing_main = False


def _code_of(module: MainModule, where: tuple[str, str]) -> Any:
    kind, value = where
    if kind == "path":
        import io

        module.__dict__["__file__"] = value
        with io.open_code(value) as file:
            return compile(file.read(), value, "exec")
    import importlib.util

    spec = importlib.util.find_spec(value)
    if spec is None or spec.loader is None:
        raise ImportError(f"a pool's worker cannot find the program's main module {value!r}")
    module.__dict__.update(__file__=spec.origin, __spec__=spec, __package__=spec.parent, __loader__=spec.loader)
    return spec.loader.get_code(value)  # type: ignore[attr-defined]
