"""`kind="auto"`: interpreter where the target's packages are known to load there, else process.

What lives here: reading what a target imports, and trying the packages in a scratch interpreter. What must not:
starting workers.

    source ─ ast ─▶ names ─▶ standard library: fine · our own and local modules: read on · packages: tried, once
    In doubt it is a process: an interpreter that fails half-way through the work is worse than a slower start.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import io
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .._limits import PROBE_TIMEOUT_S
from ._main_module import describe_main
from ._options import Options, refusal
from ._place import Place

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

_MAX_FILES = 200
_NOT_INSIDE = {  # of ours: what rests on packages that do not load in an interpreter
    "multiloop.http": "httptools",
    "multiloop.cluster": "httptools",
    "multiloop.dashboard": "httptools",
    "multiloop.cli": "httptools",
    "multiloop.pool": "its worker processes are started from the main place",
}
_known: dict[str, str] = {}  # package → why it does not load ("" when it does)


class Choice(NamedTuple):
    """A kind, and why."""

    kind: str
    reason: str


class _Doubt(Exception):
    """The sources do not tell: the reason is the argument."""


def choose(target: Any, options: Options, place: Place, chosen: Callable[[Choice], None]) -> None:
    """Decide, and call `chosen`: at once, or from the loop when packages had to be tried."""
    refused = refusal("interpreter", options, place)
    if refused is not None:
        chosen(Choice("process", refused.partition(":")[0].removeprefix("kind='interpreter' ")))
        return
    try:
        packages = _packages(target, options)
    except _Doubt as doubt:
        chosen(Choice("process", str(doubt)))
        return
    if packages <= _known.keys():
        chosen(_judge(packages))
        return
    from ..loop import hub

    here = hub()
    here.retain()

    def done() -> None:
        here.release()
        chosen(_judge(packages))

    def work() -> None:
        for package in packages - _known.keys():
            _known[package] = _try_out(package)
        try:
            here.loop.call_soon_threadsafe(done)
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass

    threading.Thread(target=work, name="multiloop-probe", daemon=True).start()


def _judge(packages: set[str]) -> Choice:
    for package in sorted(packages):
        if _known[package]:
            return Choice("process", f"{package} does not load in an interpreter: {_known[package]}")
    if not packages:
        return Choice("interpreter", "the target imports nothing but the standard library")
    return Choice("interpreter", f"these load in an interpreter: {', '.join(sorted(packages))}")


# --- what it imports --------------------------------------------------------------------------------------------------
def _packages(target: Any, options: Options) -> set[str]:
    """The names of the packages of others that the target's sources import, directly or through local modules."""
    packages: set[str] = set()
    seen: set[str] = set()
    waiting: list[tuple[str, str]] = [_first_source(target, options)]
    paths = [os.path.dirname(waiting[0][0]), *sys.path] if options.target.kind == "file" else None
    while waiting:
        path, package = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if len(seen) > _MAX_FILES:
            raise _Doubt(f"the target imports more than {_MAX_FILES} files of its own")
        for name in _imports(path, package):
            found = _look_up(name, paths)
            if isinstance(found, str):
                packages.add(found)
            elif found is not None:
                waiting.append(found)
    return packages


def _first_source(target: Any, options: Options) -> tuple[str, str]:
    kind, name, _ = options.target
    if kind == "file":
        return name, ""
    if kind == "module":
        spec = _spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = _spec(f"{name}.__main__")
        if spec is None or not _is_source(spec.origin):
            raise _Doubt(f"there is no source of {name}")
        return str(spec.origin), spec.parent or ""
    module = inspect.getmodule(inspect.unwrap(getattr(target, "func", target)))
    path = getattr(module, "__file__", None)
    if getattr(module, "__name__", "") in ("__main__", "__mp_main__"):
        where = describe_main()
        path = path if where is not None and where[0] == "module" else where and where[1]
    if module is None or not _is_source(path):
        raise _Doubt(f"there is no source of {name}")
    return str(path), getattr(module, "__package__", "") or ""


def _is_source(path: Any) -> bool:
    return isinstance(path, str) and path.endswith(".py") and os.path.isfile(path)


def _imports(path: str, package: str) -> Iterator[str]:
    """The full names of the modules that a file imports, anywhere in it."""
    try:
        with io.open_code(path) as file:
            tree = ast.parse(file.read(), path)
    except (OSError, SyntaxError, ValueError) as error:
        raise _Doubt(f"{path} cannot be read: {error}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                if not package:
                    raise _Doubt(f"{path} imports relatively, but is in no package")
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            yield base
            for alias in node.names:
                yield f"{base}.{alias.name}"  # a module, or something in one: looked up either way


def _look_up(name: str, paths: list[str] | None) -> tuple[str, str] | str | None:
    """What stands behind a name: a source to read (path, package), a package to try, or nothing to worry about."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("__main__", "__mp_main__"):
        return None
    if top == "multiloop":
        for prefix, culprit in _NOT_INSIDE.items():
            if name == prefix or name.startswith(prefix + "."):
                raise _Doubt(f"{prefix} does not load in an interpreter ({culprit})")
        return None
    spec = _spec_on(top, paths)
    if spec is None:
        raise _Doubt(f"the package {top!r} is not found")
    if spec.origin in ("built-in", "frozen"):
        return None
    if _is_installed(spec):
        return top
    if "." in name:
        spec = _spec(name) or None
        if spec is None:
            return None  # something in a module, which is looked up by itself
    if spec.origin is None:  # a namespace package: its parts are looked up by themselves
        return None
    if not _is_source(spec.origin):
        return top  # a local extension module: tried like an installed one
    return str(spec.origin), spec.parent or ""


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None


def _spec_on(name: str, paths: list[str] | None) -> ModuleSpec | None:
    from importlib.machinery import PathFinder

    return _spec(name) or (PathFinder.find_spec(name, paths) if paths else None)


def _is_installed(spec: ModuleSpec) -> bool:
    """Whether it is somebody else's package, not a module of the program."""
    places = [spec.origin or "", *(spec.submodule_search_locations or ())]
    homes = {sysconfig.get_path(each) for each in ("purelib", "platlib")}
    return any(
        path.startswith(tuple(home + os.sep for home in homes))
        or f"{os.sep}site-packages{os.sep}" in path
        or f"{os.sep}dist-packages{os.sep}" in path
        for path in places
    )


# --- trying out -------------------------------------------------------------------------------------------------------
def _try_out(package: str) -> str:
    """Import a package in a scratch interpreter; returns why that failed, or "". Blocks: not for the loop's thread."""
    outcome: list[str] = []
    thread = threading.Thread(target=_import_inside, args=(package, outcome), name="multiloop-probe", daemon=True)
    thread.start()
    thread.join(PROBE_TIMEOUT_S)
    return outcome[0] if outcome else f"its import took longer than {PROBE_TIMEOUT_S} s"


def _import_inside(package: str, outcome: list[str]) -> None:
    try:
        interpreters = importlib.import_module("concurrent.interpreters")  # from 3.14 on

        interpreter = interpreters.create()
        try:
            interpreter.exec(f"import sys; sys.path[:] = {[str(each) for each in sys.path]!r}; import {package}")
        finally:
            interpreter.close()
    except BaseException as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        outcome.append(said[-1][:200])
    else:
        outcome.append("")
