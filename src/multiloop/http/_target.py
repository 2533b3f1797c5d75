"""What is served: a target named on the command line, or an object, and which interface it speaks.

What lives here: `AppTarget` (how to find the application), `load` and `detect_interface`. What must not: serving it.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..errors import ConfigError


class Interface(Enum):
    """The ways in which an application can be called."""

    HANDLER = "handler"  # handler(request) -> reply
    NODE = "node"  # handler(request, response)
    ASGI = "asgi"
    WSGI = "wsgi"


@dataclass(frozen=True, slots=True)
class AppTarget:
    """Where the application is: `module:attribute`, found from `app_dir`."""

    name: str
    interface: str = "auto"
    factory: bool = False
    app_dir: str = "."


EXIT_NO_TARGET = 4  # the module or attribute does not exist
EXIT_NOT_AN_APP = 5  # it exists and is not an application


def load(target: AppTarget) -> tuple[Any, Interface]:
    """Import the application and say how to call it.

    Raises:
        ConfigError: the module or attribute does not exist, or is no application; one line that says what to change.
        Exception: whatever the module itself raises while it is imported.
    """
    module_name, separator, attribute = target.name.partition(":")
    if not separator:
        attribute = "app"
    if not module_name or not attribute:
        raise ConfigError(f"target {target.name!r}: write module:attribute, as in main:app", exit_code=EXIT_NO_TARGET)
    folder = os.path.abspath(target.app_dir)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ConfigError(
                f"no module named {error.name!r} (target {target.name!r}, looked in {folder} and the Python path)",
                exit_code=EXIT_NO_TARGET,
            ) from None
        raise
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigError(
                f"module {module_name!r} has no attribute {attribute!r} (target {target.name!r})",
                exit_code=EXIT_NO_TARGET,
            ) from None
    if target.factory:
        if not callable(found):
            raise ConfigError(f"--factory: {target.name!r} cannot be called", exit_code=EXIT_NOT_AN_APP)
        found = found()
    return found, detect_interface(found, target.interface, target.name)


def detect_interface(app: Any, wanted: str = "auto", name: str = "the application") -> Interface:
    """Say how to call an application.

    An async callable of three is ASGI, a sync one of two WSGI, an async one of two Node's face, one argument a handler;
    `@http.handler` marks a sync function in Node's face.

    Raises ConfigError (one line, with what to do) for anything else.
    """
    if wanted != "auto":
        if wanted == "handler":
            return Interface.NODE if _required_count(app) == 2 else Interface.HANDLER
        try:
            return Interface(wanted)
        except ValueError:
            raise ConfigError(f"--interface {wanted!r}: use auto, asgi, wsgi, handler or node") from None
    if not callable(app):
        raise ConfigError(
            f"{name!r} is not an application: {type(app).__name__} cannot be called", exit_code=EXIT_NOT_AN_APP
        )
    marked = getattr(app, "__multiloop_interface__", None)
    if isinstance(marked, Interface):
        return marked
    count = _required_count(app)
    is_coroutine = is_async(app)
    if count == 3 and (is_coroutine or not inspect.isroutine(app)):
        return Interface.ASGI
    if count == 2:
        return Interface.NODE if is_coroutine else Interface.WSGI
    if count == 1:
        return Interface.HANDLER
    hint = "a factory? use --factory" if count == 0 else "ASGI takes 3 arguments, WSGI 2, a handler 1 or 2"
    raise ConfigError(
        f"{name!r} is not an application: it takes {count} arguments ({hint}; --interface overrides)",
        exit_code=EXIT_NOT_AN_APP,
    )


def _callee(app: Any) -> Callable[..., Any]:
    if inspect.isroutine(app) or inspect.isclass(app):
        return app
    return app.__call__  # type: ignore[no-any-return]


def is_async(app: Any) -> bool:
    """Whether calling it gives a coroutine: an async function or method, or an object whose call is one."""
    callee = _callee(app)
    while hasattr(callee, "func"):  # functools.partial
        callee = callee.func
    return inspect.iscoroutinefunction(callee) or inspect.isasyncgenfunction(callee)


def _required_count(app: Any) -> int:
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return 3
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters) and not required:
        return 3
    return len(required)
