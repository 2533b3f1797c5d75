"""results.json, the report, and the README's block."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from bench.harness import page
from bench.harness.model import Budget
from bench.harness.results import from_json, to_json
from bench.rows import ROWS

from .made import result, results, row

ROOT = Path(__file__).parents[2]
MADE_ROW = row(Budget(("Node",), 0.65), Budget(("Bun",), 0.95), key="native-hello")
MADE = results({"native-hello": result(multiloop=[8.0, 9.0], Node=[16.0, 20.0], Bun=[7.0, 7.5], floor=[5.0, 5.0])})


def test_results_come_back_as_they_were_written() -> None:
    text = to_json(MADE)
    assert from_json(text) == MADE
    assert max(map(len, text.splitlines())) < 200
    with pytest.raises(ValueError, match="another format"):
        from_json(json.dumps({**json.loads(text), "format": 99}))


def test_the_report_says_who_wins_and_why_we_lose() -> None:
    notes = {"native-hello": {"why": "Half of it is the kernel's.", "next": "Next: fewer calls."}}
    text = page.report([MADE_ROW], MADE, notes)
    assert "| Bun | 7.00 | 7.00 – 7.50 | 1.14 (1.14–1.20) |" in text
    assert (
        "* **GET hello, native** misses its budget (≤ 0.95 × Bun), needs more than Bun in every round. "
        "Half of it is the kernel's. Next: fewer calls."
    ) in text


def test_the_report_is_silent_about_budgets_that_are_met() -> None:
    made = results({"native-hello": result(multiloop=[4.0], Node=[16.0], Bun=[7.0])})
    assert "Every budget is met, and no peer needs less in every round." in page.report([MADE_ROW], made, {})


def test_a_busy_machine_and_short_windows_are_said() -> None:
    busy = results({"native-hello": result(multiloop=[4.0], Node=[16.0])})
    busy.rows["native-hello"].load_before = 7.2
    busy.quick = True
    assert "Short windows: a quick run. Other work was running (load average up to 7)" in page.report(
        [MADE_ROW], busy, {}
    )
    assert "Other work" not in page.report([MADE_ROW], MADE, {})


def test_a_row_without_a_figure_of_ours_is_left_out() -> None:
    assert page.verdicts_of([MADE_ROW], results({"native-hello": result(Node=[16.0])})) == []


def test_the_block_is_filled_between_its_marks_and_nothing_else_changes() -> None:
    text = f"# Title\n\nbefore\n{page.BEGIN}\nold\n{page.END}\nafter\n"
    filled = page.fill(text, "new")
    assert filled == f"# Title\n\nbefore\n{page.BEGIN}\n\nnew\n\n{page.END}\nafter\n"
    assert page.fill(filled, "new") == filled
    for broken in ("no marks", text + page.END, f"{page.END}\n{page.BEGIN}"):
        with pytest.raises(ValueError, match="needs one line"):
            page.fill(broken, "new")


def test_everything_is_written_and_plots_of_old_rows_go(tmp_path: Path) -> None:
    (tmp_path / "old-light.svg").write_text("<svg/>")
    readme = tmp_path / "README.md"
    readme.write_text(f"{page.BEGIN}\n{page.END}\n")
    page.write([MADE_ROW], MADE, tmp_path, readme=readme)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md", "index.md", "replies-dark.svg", "replies-light.svg", "results.json", "summary-dark.svg",
        "summary-light.svg",
    ]  # fmt: skip
    assert (
        "| GET hello, native | CPU, µs per request | **8.00** | Node 16.0, Bun 7.00, floor 5.00 |" in readme.read_text()
    )
    assert from_json((tmp_path / "results.json").read_text()) == MADE


def test_what_is_published_comes_from_the_published_figures() -> None:
    published = from_json((page.DOCS / "results.json").read_text())
    assert set(published.rows) <= {row.key for row in ROWS}
    assert (page.DOCS / "index.md").read_text() == page.report(ROWS, published, page.read_notes())
    text = (ROOT / "README.md").read_text()
    assert page.fill(text, page.readme_block(ROWS, published)) == text
    for name, drawn in page.plots(ROWS, published).items():
        assert (page.DOCS / name).read_text() == drawn, name


def test_every_picture_of_the_report_and_the_readme_is_there() -> None:
    for file in (page.DOCS / "index.md", ROOT / "README.md"):
        for name in re.findall(r'(?:src|srcset)="([^"]+)"', file.read_text()):
            assert (file.parent / name).exists(), name


def test_every_budget_that_is_missed_has_its_reason_and_the_next_idea() -> None:
    notes = page.read_notes()
    assert set(notes) <= {row.key for row in ROWS}
    for verdict in page.verdicts_of(ROWS, from_json((page.DOCS / "results.json").read_text())):
        if verdict.is_missed:
            assert {"why", "next"} <= set(notes.get(verdict.row.key, {})), verdict.row.key
