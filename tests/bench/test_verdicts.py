"""Budgets, and who is behind."""

from __future__ import annotations

from bench.harness.model import Budget
from bench.harness.results import SideResult
from bench.harness.verdicts import judge

from .made import result, row

ROUNDS = {"multiloop": [8.0, 9.0], "Node": [16.0, 20.0], "Bun": [7.0, 10.0], "floor": [5.0, 5.0]}


def test_a_budget_is_a_share_of_the_best_of_those_it_names() -> None:
    budget = Budget(("Node", "Bun"), 0.5)
    assert budget.limit({"Node": 16.0, "Bun": 7.0}) == 3.5
    assert budget.limit({"Node": 16.0}) == 8.0
    assert budget.limit({"multiloop": 1.0}) is None
    assert budget.words("µs") == "≤ 0.5 × the best of Node, Bun"


def test_either_of_two_limits_is_enough() -> None:
    budget = Budget(("floor",), 1.2, at_most=2.5)
    assert budget.limit({"floor": 3.0}) == 3.0 * 1.2
    assert budget.limit({"floor": 1.0}) == 2.5
    assert budget.words("KB") == "≤ 1.2 × floor or 2.5 KB"


def test_a_row_keeps_some_budgets_and_misses_others() -> None:
    verdict = judge(row(Budget(("Node",), 0.65), Budget(("Bun",), 0.95)), result(**ROUNDS))
    assert [kept.kept for kept in verdict.budgets] == [True, False]
    assert verdict.is_missed


def test_a_figure_that_would_be_printed_like_the_limit_keeps_it() -> None:
    verdict = judge(row(Budget(("Node",), 0.5)), result(multiloop=[8.001], Node=[16.0]))
    assert [kept.kept for kept in verdict.budgets] == [True]


def test_a_budget_without_its_peer_is_not_judged() -> None:
    verdict = judge(row(Budget(("Bun",), 0.5)), result(multiloop=[8.0], Node=[16.0]))
    assert [kept.kept for kept in verdict.budgets] == [None]
    assert not verdict.is_missed


def test_ratios_are_of_what_stands_for_each_with_the_range_of_the_rounds() -> None:
    node = next(s for s in judge(row(), result(**ROUNDS)).standings if s.name == "Node")
    assert node.ratio == 0.5
    assert node.ratios == (0.45, 0.5)


def test_a_peer_is_ahead_only_when_it_is_in_every_round() -> None:
    assert [s.name for s in judge(row(), result(**ROUNDS)).behind] == []  # a floor is no peer, Bun won one round of two
    verdict = judge(row(), result(multiloop=[8.0, 9.0], Bun=[7.0, 7.0]))
    assert [s.name for s in verdict.behind] == ["Bun"]
    assert verdict.best_peer is not None
    assert verdict.best_peer.name == "Bun"


def test_a_side_that_failed_stands_with_its_reason() -> None:
    measured = result(multiloop=[8.0])
    measured.sides["Node"] = SideResult(failed="it does not listen")
    node = next(s for s in judge(row(), measured).standings if s.name == "Node")
    assert (node.figure, node.ratio, node.problem) == (None, None, "it does not listen")
