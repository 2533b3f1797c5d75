"""Workers: a message and back, and 100 MB to one."""

from __future__ import annotations

from ..harness.bench import Bench
from ..harness.model import Budget, Row, Side
from ._scripts import script


def _ping(name: str, kind: str, env: str, *, ours: bool = False) -> Side:
    def words(b: Bench) -> list[object]:
        tools = b.tools
        return [(tools.ours314 if env == "ours314" else tools.ours) / "python", "pingpong_ours.py", kind]

    return script(name, (env,), words, role="ours" if ours else "peer", skip=1)


PING = Row(
    "worker-ping",
    "Workers",
    "a message to a worker and back",
    (
        _ping("multiloop, interpreter (3.14)", "interpreter", "ours314", ours=True),
        _ping("multiloop, process", "process", "ours"),
        script(
            "Node worker_threads", ("node", "ours"),
            lambda b: [b.tools.node, "pingpong.js", b.tools.ours / "python"], skip=1,
        ),
        script(
            "interpreters.Queue (3.14)", ("ours314",),
            lambda b: [b.tools.ours314 / "python", "pingpong_standard.py"], quick=False,
        ),
    ),
    metric="wall_us",
    per="round trip",
    take="median",
    budgets=(Budget(("Node worker_threads",), 1.0),),
    quick=True,
    quick_rounds=1,
    what="2 000 small messages there and back, each awaited; the main thread on one core, the worker on the other.",
)  # fmt: skip


def _large(name: str, how: str, kind: str, env: str, role: str = "peer", *, quick: bool = True) -> Side:
    def words(b: Bench) -> list[object]:
        tools = b.tools
        return [(tools.ours314 if env == "ours314" else tools.ours) / "python", "large_ours.py", how, kind]

    return script(name, (env,), words, role="ours" if role == "ours" else "peer", skip=2, quick=quick)


SHARED = Row(
    "shared-100mb",
    "Workers",
    "100 MB to a worker without a copy",
    (
        _large("multiloop, SharedBuffer", "shared", "process", "ours", "ours"),
        _large("SharedBuffer, interpreter (3.14)", "shared", "interpreter", "ours314", quick=False),
        script("Node, transfer", ("node",), lambda b: [b.tools.node, "large.js", "transfer"], skip=2),
        script("Node, SharedArrayBuffer", ("node",), lambda b: [b.tools.node, "large.js", "shared"], skip=2),
    ),
    metric="wall_ms",
    unit="ms",
    per="message",
    take="median",
    budgets=(Budget(at_most=1.0),),
    quick=True,
    quick_rounds=1,
    what="From the post to the worker's answer, which has read the last byte.",
)

COPIED = Row(
    "copied-100mb",
    "Workers",
    "a numpy array of 100 MB to a worker",
    (
        _large("multiloop, numpy", "numpy", "process", "ours", "ours"),
        script(
            "one memcpy into new memory", ("peers",), lambda b: [b.tools.peers / "python", "large_floor.py", "memcpy"],
            role="floor", skip=2,
        ),
        script("Node, structured clone", ("node",), lambda b: [b.tools.node, "large.js", "clone"], skip=2),
        script(
            "multiprocessing, pipe", ("peers",), lambda b: [b.tools.peers / "python", "large_floor.py", "pipe"],
            skip=2, quick=False,
        ),
    ),
    metric="wall_ms",
    unit="ms",
    per="message",
    take="median",
    budgets=(Budget(("one memcpy into new memory",), 1.25),),
    quick=True,
    quick_rounds=1,
    what="The same for memory that the worker does not share: at best one copy. The floor is that copy and nothing else.",
)  # fmt: skip

ROWS = (PING, SHARED, COPIED)
