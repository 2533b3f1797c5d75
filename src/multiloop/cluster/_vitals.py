"""What a worker can say of itself: its stack, its room, its memory.

What lives here: the functions, for both kinds of workers. What must not: when they are asked.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys

from ._page import Page

# A real-time signal that glibc, Python and the servers we know leave free; macOS has none.
STACK_SIGNAL: int = signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
_RESERVED_DESCRIPTORS = 64  # for the application's own files, at most a quarter of the limit


def answer_stack_signal(page: Page) -> None:
    """Write the stack of every thread to the page whenever the primary asks, also under the interpreter's lock."""
    faulthandler.enable()
    faulthandler.register(STACK_SIGNAL, file=page.descriptor, all_threads=True)


def capacity() -> int:
    """Return how many connections the limit of descriptors leaves room for."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    try:
        used = len(os.listdir("/proc/self/fd"))
    except OSError:
        used = 32
    return max(1, limit - used - min(_RESERVED_DESCRIPTORS, limit // 4))


def rss_bytes() -> int:
    """Return this process's resident memory."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:  # not Linux: the peak is what there is
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
