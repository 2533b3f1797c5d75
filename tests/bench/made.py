"""Rows and results that are made up, for the tests of what is written about them."""

from __future__ import annotations

from bench.harness.bench import Bench
from bench.harness.model import Budget, Role, Row, Sample, Side
from bench.harness.results import Results, RowResult, SideResult


def never(bench: Bench) -> list[Sample]:
    raise AssertionError("nothing is measured here")


def side(name: str, role: Role = "peer") -> Side:
    return Side(name, never, role)


def row(*budgets: Budget, key: str = "hello", title: str = "GET hello, native") -> Row:
    sides = (side("multiloop", "ours"), side("Node"), side("Bun"), side("floor", "floor"))
    return Row(key, "Replies", title, sides, budgets=budgets, what="Something is asked.")


def result(**figures: list[float]) -> RowResult:
    """Each side with one sample for each round."""
    sides = {
        name: SideResult([[{"cpu_us": figure, "rate": float(f"{1e6 / figure:.6g}")}] for figure in of])
        for name, of in figures.items()
    }
    return RowResult("2030-01-02 03:04 UTC", "abc", "multiloop 1 (compiled)", 0.5, sides)


def results(rows: dict[str, RowResult]) -> Results:
    machine = {"processor": "A <fast> one, 2 cores", "memory": "4 GiB", "system": "Linux 6", "python": "CPython 3.11"}
    return Results(machine, {"node": "26"}, rows)
