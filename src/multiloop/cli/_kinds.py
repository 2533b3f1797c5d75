"""How the text of an option becomes a value, and a value becomes text again.

What lives here: the kinds (`number`, `seconds`, `size`, …), each for all sources: text from the command line or the
environment, or a value of a TOML file. What must not: which options there are (`_options`).

A kind raises ValueError whose message completes the sentence "--port 'x': ...".
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value. `read` takes text or a TOML value; `write` gives TOML, which `--check` prints."""

    metavar: str
    read: Callable[[Any], Any]
    write: Callable[[Any], str] = json.dumps
    is_flag: bool = False
    is_list: bool = False


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("text is needed")
    if "\0" in value:
        raise ValueError("a NUL character cannot be part of it")
    return value


def text(metavar: str) -> Kind:
    """Any text; paths, too."""
    return Kind(metavar, _text)


def choice(*allowed: str) -> Kind:
    """One of a few words."""

    def read(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"use one of {', '.join(allowed)}")
        return str(value)

    return Kind("|".join(allowed), read)


def number(least: int, most: int | None = None, metavar: str = "N") -> Kind:
    """A whole number."""
    wanted = f"a whole number from {least} to {most}" if most is not None else f"a whole number of at least {least}"

    def read(value: Any) -> int:
        found = value
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
            found = int(value)
        if type(found) is not int or found < least or (most is not None and found > most):
            raise ValueError(f"{wanted} is needed")
        return found

    return Kind(metavar, read)


_SECONDS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(least: float = 0.0, most: float | None = None, metavar: str = "SECONDS") -> Kind:
    """A time: `30`, `1.5`, or with a unit `500ms`, `30s`, `5m`, `2h`, `1d`."""
    bound = f"from {least:g} to {most:g}" if most is not None else f"of at least {least:g}"
    if not least and most is None:
        bound = "of 0 or more"

    def read(value: Any) -> float:
        found: Any = value
        if isinstance(value, str):
            match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", value.strip())
            found = float(match[1]) * _SECONDS[match[2]] if match and match[2] in _SECONDS else None
        good = isinstance(found, (int, float)) and not isinstance(found, bool) and found >= least
        if not good or (most is not None and found > most) or found > 1e9:
            raise ValueError(f"a time {bound} is needed, in seconds or as 500ms, 30s, 5m, 2h")
        return float(found)

    return Kind(metavar, read, lambda value: f"{value:g}")


_SIZES = {"": 1, "b": 1, "k": 1024, "kib": 1024, "m": 1024**2, "mib": 1024**2, "g": 1024**3, "gib": 1024**3}
_SIZES |= {"kb": 1000, "mb": 1000**2, "gb": 1000**3}


def size(least: int = 0) -> Kind:
    """A number of bytes: `65536`, or with a unit `64KiB`, `16MiB`, `2GiB` (1024), `16MB` (1000)."""

    def read(value: Any) -> int:
        found: Any = value
        if isinstance(value, str):
            match = re.fullmatch(r"([0-9]{1,15})\s*([a-z]*)", value.strip().lower())
            found = int(match[1]) * _SIZES[match[2]] if match and match[2] in _SIZES else None
        if type(found) is not int or found < least:
            raise ValueError(f"a size of at least {least} is needed, in bytes or as 64KiB, 16MiB, 2GiB")
        return found

    return Kind("BYTES", read)


def _share(value: Any) -> float:
    try:
        found = float(value) if not isinstance(value, bool) else -1.0
    except (TypeError, ValueError):
        found = -1.0
    if not 0 <= found <= 1:
        raise ValueError("a share from 0 to 1 is needed")
    return found


share = Kind("SHARE", _share, lambda value: f"{value:g}")


def _mode(value: Any) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"(0o?)?[0-7]{3}", value):
        raise ValueError("three octal digits are needed, as in 660")
    return int(value[-3:], 8)


file_mode = Kind("MODE", _mode, lambda value: f'"{value:03o}"')


_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in _YES and word not in _NO:
        raise ValueError("use true or false")
    return word in _YES


flag = Kind("", _flag, is_flag=True)


def listing(metavar: str, item: Kind | None = None) -> Kind:
    """Several values: the flag is repeated, or text is separated by commas, or TOML has an array."""
    read_item = item.read if item is not None else _text

    def read(value: Any) -> tuple[Any, ...]:
        found: list[Any] = []
        for one in value if isinstance(value, (list, tuple)) else [value]:
            parts = [part.strip() for part in one.split(",")] if isinstance(one, str) else [one]
            found += [read_item(part) for part in parts if part != ""]
        return tuple(found)

    return Kind(metavar, read, lambda value: json.dumps(list(value)), is_list=True)


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _assignments(value: Any) -> tuple[tuple[str, str], ...]:
    if isinstance(value, Mapping):
        pairs = [(name, _scalar(one)) for name, one in value.items()]
    else:
        # The command line gives one assignment at a time; a variable gives several, as a shell would write them.
        parts = shlex.split(value) if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)) or not all(isinstance(one, str) and "=" in one for one in parts):
            raise ValueError("write NAME=value")
        pairs = [(one.partition("=")[0], one.partition("=")[2]) for one in parts]
    for name, one in pairs:
        if not _VARIABLE.fullmatch(name) or "\0" in one:
            raise ValueError(
                f"{name!r} cannot be the name of a variable" if one.isprintable() else "NUL is not allowed"
            )
    return tuple(pairs)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise ValueError("a table of text and numbers is needed")


assignments = Kind(
    "NAME=VALUE",
    _assignments,
    lambda value: json.dumps([f"{name}={one}" for name, one in value], ensure_ascii=False),
    is_list=True,
)


def _umask(value: Any) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"(0o?)?[0-7]{1,3}", value):
        raise ValueError("octal digits are needed, as in 027")
    return int(value.removeprefix("0o"), 8)


umask = Kind("MASK", _umask, lambda value: f'"{value:03o}"')


def _app_name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", value):
        raise ValueError("letters, digits, '-', '_' and '.' are needed, 64 at most")
    return value


app_name = Kind("NAME", _app_name)


def _address(value: Any) -> str:
    found = re.fullmatch(r"(?:(\*|\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):)?([0-9]{1,5})", str(value)) if value != "" else None
    if found is None or isinstance(value, bool) or int(found[2]) > 65535:
        raise ValueError("HOST:PORT is needed, or a port (of 127.0.0.1)")
    return f"{found[1] or '127.0.0.1'}:{int(found[2])}"


address = Kind("HOST:PORT", _address)


def _workers(value: Any) -> int | str:
    if value == "auto":
        return "auto"
    try:
        return int(number(0, 1024).read(value))
    except ValueError:
        raise ValueError("a number from 0 to 1024 or auto is needed (0: one process, no cluster)") from None


workers = Kind("N|auto", _workers)
