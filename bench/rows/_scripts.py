"""Sides that are a program which measures itself and prints what it saw.

What lives here: running one, and reading its lines: `metric figure metric figure …`, one line for each sample; what
stands before `skip` lines is warming up. What must not: rows.
"""

from __future__ import annotations

from collections.abc import Callable

from ..harness.bench import Bench
from ..harness.environments import APPS
from ..harness.model import METRICS, Role, Sample, Side
from ..harness.processes import Failed, run

Words = Callable[[Bench], list[object]]


def read_samples(text: str, skip: int = 0) -> list[Sample]:
    """Read what a program printed. Raises Failed when a line says something else, or nothing is left."""
    samples: list[Sample] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0] not in METRICS:
            continue  # what a library says on its way
        try:
            samples.append({name: float(figure) for name, figure in zip(words[::2], words[1::2], strict=True)})
        except ValueError as error:
            raise Failed(f"not a sample: {line!r}") from error
    if len(samples) <= skip:
        raise Failed(f"no samples: {text.strip()[-400:]!r}")
    return samples[skip:]


def script(
    name: str, needs: tuple[str, ...], words: Words, *, role: Role = "peer", skip: int = 0, quick: bool = True
) -> Side:
    """A side that runs a program to its end."""

    def measure(bench: Bench) -> list[Sample]:
        env = {"NODE_PATH": str(bench.tools.modules / "node_modules"), "NODE_ENV": "production",
               "PYTHONDONTWRITEBYTECODE": "1", "BENCH_CORES": f"{bench.server_core},{bench.load_core}"}  # fmt: skip
        return read_samples(run(words(bench), cwd=APPS, env=env, timeout_s=180), skip)

    return Side(name, measure, role, needs, quick)
