"""Figures and tables in Markdown."""

from __future__ import annotations

import pytest
from bench.harness.model import Budget
from bench.harness.results import SideResult
from bench.harness.table import anchor, details, number, summary
from bench.harness.verdicts import judge

from .made import result, row


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (0, "0"),
        (0.01234, "0.012"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (1234, "1 230"),
        (1234567, "1 230 000"),
    ],
)
def test_three_digits_of_a_figure_count(figure: float, text: str) -> None:
    assert number(figure) == text


def test_the_summary_has_a_line_for_each_row_with_ratio_and_budget() -> None:
    verdict = judge(
        row(Budget(("Node",), 0.65), Budget(("Bun",), 0.95)), result(multiloop=[8.0], Node=[16.0], Bun=[7.0])
    )
    assert summary([verdict]).splitlines()[2] == (
        "| [GET hello, native](#get-hello-native) | µs per request | 8.00 | Bun 7.00 | 1.14 | "
        "≤ 0.65 × Node: met<br>≤ 0.95 × Bun: **missed** |"
    )


def test_the_details_name_everybody_also_who_failed() -> None:
    measured = result(multiloop=[8.0, 9.0], Node=[16.0, 20.0])
    measured.sides["Bun"] = SideResult(missing="npm is not there")
    lines = details(judge(row(), measured)).splitlines()
    assert lines[0] == "|  | CPU, µs per request | samples | ours ÷ this | per second |"
    assert lines[2] == "| **multiloop** | 8.00 | 8.00 – 9.00 |  | 125 000 |"
    assert lines[3] == "| Node | 16.0 | 16.0 – 20.0 | 0.50 (0.45–0.50) | 62 500 |"
    assert lines[4] == "| Bun | npm is not there |  |  |  |"
    assert len({line.count("|") for line in lines}) == 1


def test_headings_are_found_as_pages_name_them() -> None:
    assert anchor("GET hello, 4 KiB (3.14)") == "get-hello-4-kib-314"
