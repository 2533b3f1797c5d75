"""Instruction counts against a baseline."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.check.baseline import Refused, compare, read, write
from bench.check.counting import BASELINE, read_counts
from bench.check.scenarios import scenarios

HERE = {"python": "CPython 3.11.7", "form": "compiled", "uvloop": "0.23.0"}


def test_growth_up_to_five_percent_passes() -> None:
    outcome = compare({"asgi": 1000.0, "frames": 100.0}, {"asgi": 1049.0, "frames": 60.0})
    assert not outcome.grown
    assert outcome.lines[-1] == "nothing has grown"


def test_more_growth_is_one_line_with_scenario_before_and_after() -> None:
    outcome = compare({"asgi": 12000.0, "frames": 100.0}, {"asgi": 13000.0, "frames": 100.0})
    assert outcome.grown
    assert [line for line in outcome.lines if "GREW" in line] == [
        "GREW asgi: 12 000 before, 13 000 now (+8.3%), at most +5% is allowed"
    ]


def test_a_gain_is_pointed_out_so_that_it_can_be_kept() -> None:
    assert "make bench-check-update keeps the gain" in compare({"a": 100.0}, {"a": 90.0}).lines[0]


def test_scenarios_that_are_new_or_gone_fail() -> None:
    outcome = compare({"old": 1.0}, {"new": 1.0})
    assert outcome.grown
    assert [line.partition(":")[0] for line in outcome.lines[:2]] == ["new has no baseline", "old is gone"]
    assert not compare({"old": 1.0, "same": 1.0}, {"same": 1.0}, partly=True).grown


def test_a_baseline_is_kept_for_each_python(tmp_path: Path) -> None:
    path, other = tmp_path / "baseline.json", {**HERE, "python": "CPython 3.14.0"}
    write(path, HERE, {"asgi": 1.0})
    write(path, other, {"asgi": 2.0})
    assert (read(path, HERE), read(path, other)) == ({"asgi": 1.0}, {"asgi": 2.0})


def test_another_environment_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    with pytest.raises(Refused, match="knows nothing"):
        read(path, HERE)
    write(path, HERE, {"asgi": 1.0})
    with pytest.raises(Refused, match=r"uvloop is 0\.24\.0, the baseline's 0\.23\.0"):
        read(path, {**HERE, "uvloop": "0.24.0"})
    with pytest.raises(Refused, match=r"knows CPython 3\.11\.7, compiled"):
        read(path, {**HERE, "form": "pure Python"})


def test_counts_are_read_from_what_callgrind_writes(tmp_path: Path) -> None:
    file = tmp_path / "counts.1"
    file.write_text("version: 1\ndesc: Trigger: Client Request: asgi-hello\nevents: Ir\nfn=x\n1 2\ntotals: 4711\n")
    assert read_counts(file) == ("asgi-hello", 4711)
    file.write_text("desc: Trigger: Program termination\ntotals: 10\n")
    assert read_counts(file) == ("", 0)


def test_the_committed_baseline_knows_every_scenario() -> None:
    import json

    for entry in json.loads(BASELINE.read_text()).values():
        assert set(entry["instructions"]) == set(scenarios())
