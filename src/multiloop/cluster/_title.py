"""What ps and top call this process.

What lives here: `set_title`. What must not: what the title says.
"""

from __future__ import annotations


def set_title(title: str) -> None:
    """Name this process; where that is not possible, nothing happens."""
    try:
        from setproctitle import setproctitle
    except ImportError:
        return
    setproctitle(title)
