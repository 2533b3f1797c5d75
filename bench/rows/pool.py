"""The pool: one tiny task and back, and many."""

from __future__ import annotations

from ..harness.model import Budget, Row, Side
from ._scripts import script

_STANDARD = "ProcessPoolExecutor"
_PISCINA = "Piscina on Node"


def _sides(order: str) -> tuple[Side, ...]:
    def python(name: str, library: str, *, quick: bool) -> Side:
        return script(
            name, ("peers",), lambda b: [b.tools.peers / "python", "pool_peers.py", library, order], quick=quick
        )

    return (
        script("multiloop", ("ours",), lambda b: [b.tools.ours / "python", "pool_ours.py", order], role="ours"),
        python(_STANDARD, "standard", quick=True),
        python("loky", "loky", quick=False),
        script(
            _PISCINA, ("node", "ours"), lambda b: [b.tools.node, "piscina.js", order, b.tools.ours / "python"]
        ),
        script(
            "Piscina on Bun", ("bun", "ours"),
            lambda b: [b.tools.bun, "piscina.js", order, b.tools.ours / "python"], quick=False,
        ),
    )  # fmt: skip


TRIP = Row(
    "pool-trip",
    "Pool",
    "a tiny task and back",
    _sides("trip"),
    metric="wall_us",
    per="task",
    take="median",
    budgets=(Budget((_PISCINA,), 0.7),),
    quick=True,
    quick_rounds=1,
    what="One task at a time, two workers; the caller on one core, they on the other: waking a sleeping core is most of it.",
)

MANY = Row(
    "pool-many",
    "Pool",
    "many tiny tasks",
    _sides("many"),
    metric="wall_us",
    per="task",
    take="median",
    budgets=(Budget((_PISCINA,), 0.3), Budget((_STANDARD,), 0.1)),
    quick=True,
    what="20 000 tasks at once (5 000 for the Python peers), two workers.",
)

ROWS = (TRIP, MANY)
