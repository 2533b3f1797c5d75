"""`multiloop --version`: what runs here.

What lives here: `version_line`. What must not: importing what it names.
"""

from __future__ import annotations

import importlib.util
import platform
from importlib import metadata

from .. import __version__


def version_line() -> str:
    """Return `multiloop 0.1.0 (CPython 3.11.7 on Linux, loop uvloop 0.23.0, pure Python)`."""
    python = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()}"
    return f"multiloop {__version__} ({python}, loop {_loop()}, {_form()})"


def _loop() -> str:
    if importlib.util.find_spec("uvloop") is None:
        return "asyncio"
    try:
        return f"uvloop {metadata.version('uvloop')}"
    except metadata.PackageNotFoundError:
        return "uvloop"


def _form() -> str:
    """Say whether the hot modules run as compiled twins or as their Python source."""
    from .. import _speed

    return _speed.form()
