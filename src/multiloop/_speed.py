"""Which form of the hot modules runs: compiled twins of the same sources, or the plain Python.

What lives here: the list of hot modules, and the finder that takes a twin when it fits. What must not: any hot code.

A twin is taken when its file name carries the hash of the source beside it (a stale one is never loaded), MULTILOOP_PURE
is unset, and it loads: a sub-interpreter refuses it, and the source runs there. Modules keep their names either way, so
nobody above knows which form runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
else:
    Loader = MetaPathFinder = object  # every worker imports this module: importlib.abc would cost it 10 ms

_ROOT = os.path.dirname(os.path.abspath(__file__))

HOT = {
    f"multiloop.{name}": os.path.join(_ROOT, *name.split(".")) + ".py"
    for name in ("_wire.http1", "http._exchange", "http._reader", "http._connection", "http._asgi", "http._handler")
}
"""The hot modules and their sources. setup.py compiles these."""


def twin_stem(module: str, source: bytes) -> str:
    """The file name, without its suffix, of the twin of this source."""
    import hashlib

    name = module.removeprefix("multiloop.").replace(".", "__")
    return f"{name}-{hashlib.sha256(source).hexdigest()[:16]}"


def find_twin(module: str) -> str | None:
    """The path of the twin that fits the source of a hot module, or None."""
    try:
        with open(HOT[module], "rb") as file:
            stem = twin_stem(module, file.read())
    except OSError:
        return None
    path = os.path.join(_ROOT, "_compiled", stem + EXTENSION_SUFFIXES[0])
    return path if os.path.exists(path) else None


class _TwinLoader(Loader):
    """Loads a twin, or the source where this interpreter cannot load it."""

    def __init__(self, name: str, twin: str) -> None:
        self._twin = ExtensionFileLoader(name, twin)
        self._source = SourceFileLoader(name, HOT[name])
        self._refused = False

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        try:
            return self._twin.create_module(spec)
        except ImportError:
            self._refused = True
            spec.origin = HOT[spec.name]
            return None

    def exec_module(self, module: ModuleType) -> None:
        if self._refused:
            module.__file__ = HOT[module.__name__]
            self._source.exec_module(module)
        else:
            self._twin.exec_module(module)

    def get_source(self, name: str) -> str | None:
        """The Python source, for tracebacks."""
        return self._source.get_source(name)


class _TwinFinder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in HOT:
            return None
        twin = find_twin(fullname)
        if twin is None:
            return None
        spec = ModuleSpec(fullname, _TwinLoader(fullname, twin), origin=twin)
        spec.has_location = True
        return spec


def install() -> None:
    """Let twins be taken in this process from now on, unless MULTILOOP_PURE is set."""
    if not os.environ.get("MULTILOOP_PURE") and not any(isinstance(finder, _TwinFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TwinFinder())


def form() -> str:
    """ "compiled" when every hot module has a twin that fits, else "pure Python" and why."""
    if os.environ.get("MULTILOOP_PURE"):
        return "pure Python (MULTILOOP_PURE is set)"
    missing = [name for name in HOT if find_twin(name) is None]
    if not missing:
        return "compiled"
    if len(missing) == len(HOT):
        return "pure Python (not compiled at installation)"
    return f"partly compiled (no fitting twin of {', '.join(missing)})"
