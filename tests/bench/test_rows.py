"""The rows are well-formed, and a run measures what it is told to."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.harness.bench import Bench
from bench.harness.environments import APPS, Tools, sources, versions
from bench.harness.model import METRICS, Row, Sample, Side
from bench.harness.page import README_ROWS
from bench.harness.processes import Failed, Missing
from bench.harness.runner import Plan, choose, measure_row
from bench.rows import ROWS, by_key


def bench(tmp_path: Path) -> Bench:
    return Bench(Tools(), tmp_path, 0, 0)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_a_row_has_one_of_us_first_and_names_sides_that_it_has(row: Row) -> None:
    names = [side.name for side in row.sides]
    assert len(set(names)) == len(names)
    assert row.sides[0] is row.ours
    assert row.metric in METRICS
    assert row.what.endswith(".")
    for budget in row.budgets:
        assert set(budget.of) <= set(names)
    if row.quick:
        assert row.ours.quick


def test_keys_are_unique_and_every_budget_has_a_place_in_the_quick_run() -> None:
    assert len({row.key for row in ROWS}) == len(ROWS)
    assert all(row.quick for row in ROWS if row.budgets)
    assert set(README_ROWS) <= {row.key for row in ROWS}


def test_every_version_is_pinned() -> None:
    for group, names in versions().items():
        if group != "commands":
            assert all(version[0].isdigit() for version in names.values()), group


def test_the_project_is_built_from_what_git_knows() -> None:
    names = {path.name for path in sources()}
    assert {"pyproject.toml", "setup.py", "_speed.py", "_connection.pxd", "_atomics.c"} <= names
    assert not any(name.endswith((".so", ".pyc")) for name in names)


def test_programs_are_there() -> None:
    for folder in (APPS,):
        assert {"asgi_apps.py", "http.js", "bun.js", "upload.lua"} <= {path.name for path in folder.iterdir()}


def test_sides_take_turns(tmp_path: Path) -> None:
    turns: list[str] = []

    def side(name: str, role: str = "peer") -> Side:
        def measure(_: Bench) -> list[Sample]:
            turns.append(name)
            return [{"cpu_us": 1.0}]

        return Side(name, measure, role)  # type: ignore[arg-type]

    row = Row("r", "g", "t", (side("a", "ours"), side("b"), side("c")))
    measured = measure_row(row, Plan((row,), quick=False, rounds=3), bench(tmp_path), {}, lambda text: None)
    assert turns == ["a", "b", "c"] * 3
    assert [len(found.rounds) for found in measured.sides.values()] == [3, 3, 3]


def test_a_side_that_fails_or_is_not_to_be_had_does_not_stop_the_others(tmp_path: Path) -> None:
    asked: list[str] = []

    def broken(_: Bench) -> list[Sample]:
        asked.append("broken")
        raise Failed("it ended with 3")

    def absent(_: Bench) -> list[Sample]:
        raise Missing("no PostgreSQL")

    row = Row(
        "r", "g", "t",
        (Side("ours", lambda _: [{"cpu_us": 2.0}], "ours"), Side("broken", broken), Side("absent", absent),
         Side("unmade", broken, needs=("node",))),
    )  # fmt: skip
    said: list[str] = []
    measured = measure_row(
        row, Plan((row,), quick=False, rounds=2), bench(tmp_path), {"node": "npm is not there"}, said.append
    )
    assert asked == ["broken"]
    assert measured.sides["broken"].failed == "it ended with 3"
    assert measured.sides["absent"].missing == "no PostgreSQL"
    assert measured.sides["unmade"].missing == "npm is not there"
    assert len(measured.sides["ours"].rounds) == 2
    assert any("FAILED: it ended with 3" in line for line in said)


def test_rows_are_chosen_by_key() -> None:
    assert choose(ROWS, quick=False, wanted=["balance"]) == (by_key("balance"),)
    assert all(row.quick for row in choose(ROWS, quick=True, wanted=[]))
    assert choose(ROWS, quick=False, wanted=[]) == ROWS
    with pytest.raises(ValueError, match="no such row: balanc; python -m bench list"):
        choose(ROWS, quick=False, wanted=["balanc"])
