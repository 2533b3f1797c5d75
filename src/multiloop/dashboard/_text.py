"""Text of workers and clients made safe to show: nothing in it commands a terminal or hides.

What lives here: `shown`, `shown_lines`. What must not: HTML; the page only ever sets text.
"""

from __future__ import annotations

import os

from ..logs import escape

_MAX_LINES = 200


def shown(text: str | None, limit: int = 500) -> str:
    """Return one line: control characters as `\\xNN`, cut."""
    return escape(text or "", limit)


def shown_lines(text: str, limit: int = 12_000) -> str:
    """Return several lines, each of them safe; long ones lose their middle."""
    if len(text) > limit:
        text = f"{text[: limit // 2]}\n...\n{text[-limit // 2 :]}"
    return "\n".join(escape(line.replace("\t", "    "), limit) for line in text.split("\n")[:_MAX_LINES])


def shown_path(file: str) -> str:
    """Return a file's path from the working folder, if it lies in it."""
    try:
        relative = os.path.relpath(file)
    except (OSError, ValueError):
        return shown(file)
    return shown(file if relative.startswith(os.pardir) else relative)
