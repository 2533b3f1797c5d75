"""The key of the program's multiprocessing: with it workers reach the program's managers, queues and events.

What lives here: `authkey` for the parent, `adopt_authkey` for a worker. What must not: an import of multiprocessing in a
worker that does not use it.

multiprocessing makes a random key for each main process, and its own children inherit it; proxies of a manager refuse
everybody else (AuthenticationError). A worker of ours is such a child as well.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

_NAME = "multiprocessing.process"


def authkey() -> bytes:
    """Return this process's key."""
    from multiprocessing.process import current_process

    return bytes(current_process().authkey)


def adopt_authkey(key: bytes) -> None:
    """Use the program's key, once multiprocessing is imported here."""
    loaded = sys.modules.get(_NAME)
    if loaded is not None:
        _set(loaded, key)
    else:
        sys.meta_path.insert(0, _Finder(key))


def _set(module: ModuleType, key: bytes) -> None:
    module.current_process().authkey = key


class _Finder:
    """Stands before the import of multiprocessing.process, once."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != _NAME:
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec: Any = find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._key)
        return spec


class _Loader:
    """Loads it as its own loader does, and then sets the key."""

    def __init__(self, loader: Any, key: bytes) -> None:
        self._loader = loader
        self._key = key

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _set(module, self._key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # get_source and the like, for tracebacks
