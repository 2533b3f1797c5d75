"""Which form of the hot modules runs: compiled twins of the same sources, or the plain Python.

What lives here: the list of hot modules, and the finder that takes a twin when it fits. What must not: any hot code.

A twin is taken when its file name carries the fingerprint of all hot sources (their classes know each other's C layout, so a
change in one makes all stale, and a stale one is never loaded), MULTILOOP_PURE is unset, and it loads: a sub-interpreter
refuses it, and the source runs there. Modules keep their names either way, so nobody above knows which form runs.
"""

from __future__ import annotations

import _imp
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
_KEY = 0x6D756C74696C6F6F  # any number; a hash that needs no OpenSSL is enough to notice a change

HOT = {
    f"multiloop.{name}": os.path.join(_ROOT, *name.split(".")) + ".py"
    for name in (
        "_wire.http1",
        "http._state",
        "http._request",
        "http._exchange",
        "http._reader",
        "http._connection",
        "http._asgi",
        "http._handler",
        "net._incoming",
        "net._protocol",
        "net._reading",
    )
}
"""The hot modules and their sources. setup.py compiles these."""

BINDINGS = {
    f"multiloop.{name}": os.path.join(_ROOT, *name.split(".")) + ".pyx"
    for name in ("http._llhttp", "net._reading_send", "health._alarm_clock")
}
"""The modules without a plain form, and their sources: a reader that takes its events from llhttp in C, a slot of a class
that only C can fill, a sleep without the interpreter's lock. What imports them does without."""

_fingerprint = ""
_twins: dict[str, str] | None = None


def source_files() -> list[str]:
    """Everything that the twins are made of: the sources, and the C layouts beside them."""
    layouts = [path[:-3] + ".pxd" for path in HOT.values()]
    return [*HOT.values(), *(path for path in (*layouts, *BINDINGS.values()) if os.path.exists(path))]


def fingerprint() -> str:
    """Sixteen digits that change with every change to a hot source."""
    global _fingerprint
    if not _fingerprint:
        texts = []
        for path in source_files():
            with open(path, "rb") as file:
                texts.append(file.read())
        _fingerprint = _imp.source_hash(_KEY, b"\0".join(texts)).hex()
    return _fingerprint


def twin_stem(module: str) -> str:
    """The file name, without its suffix, of the twin of this module as it is now."""
    return f"{module.removeprefix('multiloop.').replace('.', '__')}-{fingerprint()}"


def find_twin(module: str) -> str | None:
    """The path of the twin that fits a hot module, or None. All of them or none: they know each other's C layout."""
    global _twins
    if _twins is None:
        _twins = {}
        try:
            found = {
                name: os.path.join(_ROOT, "_compiled", twin_stem(name) + EXTENSION_SUFFIXES[0])
                for name in (*HOT, *BINDINGS)
            }
        except OSError:  # sources that are not files
            return None
        if all(map(os.path.exists, found.values())):
            _twins = found
    return _twins.get(module)


class _TwinLoader(Loader):
    """Loads a twin, or the source where this interpreter cannot load it."""

    def __init__(self, name: str, twin: str) -> None:
        self._twin = ExtensionFileLoader(name, twin)
        self._source = SourceFileLoader(name, HOT.get(name, ""))
        self._refused = False

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        try:
            return self._twin.create_module(spec)
        except ImportError:
            if spec.name not in HOT:
                raise
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
        if fullname not in HOT and fullname not in BINDINGS:
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
    """ "compiled", or "pure Python" and why."""
    if os.environ.get("MULTILOOP_PURE"):
        return "pure Python (MULTILOOP_PURE is set)"
    return "compiled" if find_twin(next(iter(HOT))) is not None else "pure Python (not compiled at installation)"
