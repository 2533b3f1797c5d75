"""The file of environment variables (`--env-file`): reading it and putting it into this process's environment.

What lives here: `read` (pure) and `apply`. What must not: options of ours (they are not taken from this file).

The rules are those of a shell's simple assignments: `NAME=value`, `export NAME=value`, `#` comments, single quotes
taken literally, double quotes with \\n \\t \\" \\\\ escapes. Nothing is expanded. A variable that is already set in the
environment stays as it is, so that whoever starts the server has the last word.
"""

from __future__ import annotations

import os
import re

from ..errors import ConfigError

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*=(.*)", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


def read(path: str) -> dict[str, str]:
    """Return the variables that the file sets.

    Raises ConfigError (one line, with the line's number) when it cannot be read or a line is no assignment.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"--env-file {path!r} cannot be read: {reason}") from None
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        value = _value(match.group(2)) if match else None
        if match is None or value is None or "\0" in value:
            raise ConfigError(f"--env-file {path!r}, line {number}: write NAME=value")
        found[match.group(1)] = value
    return found


def _value(text: str) -> str | None:
    """The value of one assignment; None when a quote is not closed or something follows it."""
    text, spaced = text.strip(), text[:1].isspace()
    if spaced and text.startswith("#"):
        return ""
    if text[:1] == "'":
        body, quote, rest = text[1:].partition("'")
        return body if quote and _is_comment(rest) else None
    if text[:1] == '"':
        match = re.fullmatch(r'"((?:[^"\\]|\\.)*)"(.*)', text)
        if match is None or not _is_comment(match.group(2)):
            return None
        return _ESCAPE.sub(lambda m: _ESCAPED.get(m.group(1), m.group(1)), match.group(1))
    return re.split(r"\s#", text, maxsplit=1)[0].strip()


def _is_comment(rest: str) -> bool:
    return not rest.strip() or rest.lstrip().startswith("#")


def apply(path: str) -> None:
    """Set the file's variables in this process, except those that are set already. Raises ConfigError as `read`."""
    for name, value in read(path).items():
        os.environ.setdefault(name, value)
