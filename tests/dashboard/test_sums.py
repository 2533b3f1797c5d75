"""Values of workers that come and go, added up: no counter goes backwards, whatever happens to the workers."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from multiloop.dashboard._sums import Sums

COUNT = ("orders", "orders_total", ())
LEVEL = ("level", "level", ())
FAMILIES = {"orders": ("counter", "Orders.", "", "sum"), "level": ("gauge", "Level.", "", "sum")}


def made(join: str = "sum") -> Sums:
    sums = Sums()
    sums.describe({**FAMILIES, "level": ("gauge", "Level.", "", join)})
    return sums


def total(sums: Sums, family: str) -> Any:
    found = [samples for name, _, samples in sums.totals() if name == family]
    return sum(value for _, _, value in found[0]) if found else None


def test_counters_of_all_workers_are_summed_and_stay_when_a_worker_ends() -> None:
    sums = made()
    sums.update(1, "0", {COUNT: 5})
    sums.update(2, "1", {COUNT: 7})
    assert total(sums, "orders") == 12
    sums.ended(1)
    assert total(sums, "orders") == 12
    sums.update(3, "0", {COUNT: 1})
    assert total(sums, "orders") == 13


def test_a_counter_that_begins_anew_inside_a_worker_keeps_what_it_had() -> None:
    sums = made()
    sums.update(1, "0", {COUNT: 5})
    sums.update(1, "0", {COUNT: 2})
    assert total(sums, "orders") == 7
    sums.update(1, "0", {COUNT: None})
    assert total(sums, "orders") == 7


def test_gauges_are_those_of_the_living() -> None:
    for join, expected in (("sum", 12), ("max", 9), ("min", 3), ("mean", 6)):
        sums = made(join)
        sums.update(1, "0", {LEVEL: 3})
        sums.update(2, "1", {LEVEL: 9})
        assert total(sums, "level") == expected
        sums.ended(2)
        assert total(sums, "level") == 3


def test_each_gauge_is_shown_with_its_workers_place() -> None:
    sums = made("each")
    sums.update(7, "0", {LEVEL: 3})
    sums.update(9, "1", {LEVEL: 9})
    ((_, _, samples),) = sums.totals()
    assert sorted(samples) == [("level", (("worker", "0"),), 3.0), ("level", (("worker", "1"),), 9.0)]


def test_a_value_that_is_gone_is_not_shown_and_replacing_removes_the_rest() -> None:
    sums = made()
    sums.update(1, "0", {LEVEL: 3})
    sums.update(1, "0", {LEVEL: None})
    assert total(sums, "level") is None
    sums.replace(1, "0", {LEVEL: 4, COUNT: 2})
    sums.replace(1, "0", {LEVEL: 5})
    assert (total(sums, "level"), total(sums, "orders")) == (5, 2)


def test_a_metric_that_became_another_kind_begins_anew() -> None:
    sums = made()
    sums.update(1, "0", {COUNT: 5})
    sums.ended(1)
    sums.describe({"orders": ("gauge", "Orders.", "", "sum")})
    sums.update(2, "0", {("orders", "orders", ()): 3})
    assert total(sums, "orders") == 3


def test_what_was_never_described_is_not_shown() -> None:
    sums = made()
    sums.update(1, "0", {("nobody", "nobody", ()): 1})
    assert sums.totals() == []


STEPS = st.lists(st.tuples(st.integers(1, 4), st.one_of(st.none(), st.integers(0, 50))), max_size=60)


@given(STEPS)
def test_no_counter_ever_goes_backwards(steps: list[tuple[int, int | None]]) -> None:
    sums, highest = made(), 0.0
    for number, value in steps:
        if value is None:
            sums.ended(number)
        else:
            sums.update(number, str(number), {COUNT: value})
        now = total(sums, "orders") or 0.0
        assert now >= highest
        highest = now
