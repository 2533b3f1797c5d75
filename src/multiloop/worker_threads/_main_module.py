"""The program's main file inside a worker: imported under `__mp_main__` when something of it is first needed.

What lives here: how the main file is found (`describe_main`, at home) and the stand-in that imports it (`install`, in a
worker). What must not: anything that runs when no function or class of `__main__` is used.

As in multiprocessing the file runs again, under another name: what starts the program belongs under
`if __name__ == "__main__":`. A worker that is started while it runs again is refused with that sentence.
"""

from __future__ import annotations

import functools
import io
import os
import sys
from types import CodeType, ModuleType
from typing import Any

from ..errors import UsageError

Main = tuple[str, str]  # ("module", name) or ("file", path)

GUARD = 'put what starts the program under: if __name__ == "__main__":'
_importing = False


def describe_main() -> Main | None:
    """Say how a worker can import this program's main module; None where it cannot (REPL, notebook, `-c`)."""
    return _describe(sys.modules.get("__main__"))


@functools.lru_cache(maxsize=1)  # asked once for each task of a main script's function
def _describe(main: ModuleType | None) -> Main | None:
    if isinstance(main, MainModule):
        return main.where()
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":
        return ("module", spec.name)
    path = getattr(main, "__file__", None)
    if path is None or not os.path.isfile(path):
        return None
    return ("file", os.path.abspath(path))


def answer_to_both_names() -> None:
    """Let objects of the main file that come back from a worker be found: there it has the other name."""
    if "__main__" in sys.modules:
        sys.modules.setdefault("__mp_main__", sys.modules["__main__"])


def is_importing_main() -> bool:
    """Whether this place imports the main file just now, for a function or class of it."""
    return _importing


class MainModule(ModuleType):
    """Stands for `__main__`, and becomes it at the first look at a name in it."""

    def __init__(self, where: Main | None) -> None:
        super().__init__("__mp_main__")
        self.__dict__["_where"] = where
        self.__dict__["_was"] = where
        if where is not None and where[0] == "file":
            self.__dict__["__file__"] = where[1]

    def where(self) -> Main | None:
        found: Main | None = self.__dict__["_was"]
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(f"module '__main__' has no attribute {name!r}")
        if "_where" in self.__dict__:
            _import_into(self)
            if name in self.__dict__:
                return self.__dict__[name]
        raise AttributeError(f"the program's main module has no {name!r} at its top level")


def install(where: Main | None) -> None:
    """Put the stand-in where pickles look for it."""
    sys.modules["__main__"] = sys.modules["__mp_main__"] = MainModule(where)


def _import_into(module: MainModule) -> None:
    global _importing
    where = module.where()
    if where is None:
        raise UsageError(
            "the program has no main file that a worker can import (interactive interpreter, notebook or -c): "
            "move the function into a module, or install cloudpickle"
        )
    code = load_code(where, module)
    before = set(module.__dict__)
    del module.__dict__["_where"]
    _importing = True
    try:
        exec(code, module.__dict__)
    except BaseException as error:
        for name in set(module.__dict__) - before:  # the next look tries again, as an import would
            del module.__dict__[name]
        module.__dict__["_where"] = where
        if isinstance(error, Exception):
            error.add_note(f"while a worker imported the main module ({where[1]}) to find something in it")
            raise
        raise UsageError(
            f"the main module ({where[1]}) ended a worker with {error!r} while it was imported: {GUARD}"
        ) from error
    finally:
        _importing = False


def load_code(where: Main, module: ModuleType) -> CodeType:
    """Return the code of a file or module, and give `module` the attributes that belong to it.

    Raises FileNotFoundError, ModuleNotFoundError or SyntaxError.
    """
    kind, value = where
    if kind == "file":
        with io.open_code(value) as file:
            source = file.read()
        module.__dict__.update(__file__=value, __spec__=None, __package__=None, __cached__=None)
        code: CodeType = compile(source, value, "exec")
        return code
    import importlib.util

    spec = importlib.util.find_spec(value)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{value}.__main__")
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"no module named {value!r}, or a package without a __main__", name=value)
    found: CodeType | None = spec.loader.get_code(spec.name)  # type: ignore[attr-defined]
    if found is None:
        raise ImportError(f"the module {value!r} has no Python code to run", name=value)
    module.__dict__.update(
        __file__=spec.origin, __spec__=spec, __package__=spec.parent, __loader__=spec.loader, __cached__=spec.cached
    )
    return found
