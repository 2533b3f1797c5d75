"""Tables in Markdown. Pure: verdicts in, text out."""

from __future__ import annotations

from collections.abc import Sequence

from .model import METRICS
from .verdicts import Kept, Standing, Verdict

_MET, _MISSED, _UNKNOWN = "met", "**missed**", "not measured"


def number(figure: float) -> str:
    """A figure with three digits that count: 12.3, 123, 12 300, 0.0123."""
    if figure == 0:
        return "0"
    size = abs(figure)
    if size >= 1000:
        return f"{float(f'{figure:.3g}'):,.0f}".replace(",", " ")
    if size >= 100:
        return f"{figure:.0f}"
    if size >= 10:
        return f"{figure:.1f}"
    if size >= 1:
        return f"{figure:.2f}"
    return f"{figure:.2g}"


def grid(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table: the first column is text, the others are figures."""
    rule = ["---", *("---:" for _ in headings[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, rule, *lines))


def summary(verdicts: Sequence[Verdict]) -> str:
    """Every row with a budget or a peer, in a line: us, the best of the others, the ratio, the budget."""
    lines = []
    for verdict in verdicts:
        ours, best = verdict.ours, verdict.best_peer
        per = f"{verdict.row.unit} per {verdict.row.per}" if verdict.row.per else verdict.row.unit
        lines.append(
            (
                f"[{verdict.row.title}](#{anchor(verdict.row.title)})",
                per,
                figure_of(ours),
                f"{best.name} {figure_of(best)}" if best else "",
                ratio_of(best) if best else "",
                "<br>".join(budget_of(kept, verdict.row.unit) for kept in verdict.budgets),
            )
        )
    return grid(("work", "what counts", "multiloop", "best peer", "ours ÷ its", "budget"), lines)


def details(verdict: Verdict) -> str:
    """All sides of a row, with everything that was seen beside what counts."""
    row = verdict.row
    seen = {name for standing in verdict.standings for name in standing.others}
    others = [name for name in METRICS if name in seen]
    headings = ("", f"{METRICS[row.metric]}" + (f" per {row.per}" if row.per else ""), "samples", "ours ÷ this",
                *(METRICS[name] for name in others))  # fmt: skip
    lines = []
    for standing in verdict.standings:
        name = f"**{standing.name}**" if standing.role == "ours" else standing.name
        if standing.figure is None:
            lines.append((name, standing.problem or "not measured", *[""] * (2 + len(others))))
            continue
        spread = standing.figure
        lines.append(
            (
                name,
                number(spread.value),
                f"{number(spread.low)} – {number(spread.high)}",
                ratio_of(standing),
                *(number(standing.others[metric]) if metric in standing.others else "" for metric in others),
            )
        )
    return grid(headings, lines)


def figure_of(standing: Standing) -> str:
    """What stands for a side, or the reason why nothing does."""
    return number(standing.figure.value) if standing.figure else "not measured"


def ratio_of(standing: Standing) -> str:
    """Ours ÷ this one, and the least and largest of the rounds."""
    if standing.ratio is None:
        return ""
    if standing.ratios is None or f"{standing.ratios[0]:.2f}" == f"{standing.ratios[1]:.2f}":
        return f"{standing.ratio:.2f}"
    return f"{standing.ratio:.2f} ({standing.ratios[0]:.2f}–{standing.ratios[1]:.2f})"


def budget_of(kept: Kept, unit: str) -> str:
    """A budget and whether it was kept."""
    word = _UNKNOWN if kept.kept is None else _MET if kept.kept else _MISSED
    return f"{kept.budget.words(unit)}: {word}"


def anchor(heading: str) -> str:
    """What a heading is called in links."""
    kept = "".join(letter for letter in heading.lower() if letter.isalnum() or letter in "_- ")
    return kept.replace(" ", "-")
