"""The report as pages: docs/benchmarks/index.md, its plots, and the block in the README.

What lives here: what is said, in which order. Pure but for `write`, which puts it into files, and the two texts that
people write (method.md, notes.toml). What must not: figures
that do not come from the results.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from .machine import ROOT
from .model import Row
from .plots import THEMES, Bar, Panel, draw
from .results import Results, from_json, to_json
from .table import details, number, summary
from .verdicts import Verdict, judge

DOCS = ROOT / "docs" / "benchmarks"
NOTES = ROOT / "bench" / "notes.toml"
METHOD = ROOT / "bench" / "method.md"
BEGIN, END = "<!-- benchmarks: written by `make bench`, do not edit -->", "<!-- benchmarks: end -->"

_BUSY = 3.0  # a row leaves a load average of about 2 behind by itself

_OPENING = (
    "Written by `make bench` from [results.json](results.json). Who wins is reported as it is; where we lose, the reason "
    "stands [below](#where-we-are-not-there-yet)."
)

README_ROWS = ("native-hello", "asgi-hello", "connections", "idle-connections", "files-together", "pool-many",
               "responsive", "fastapi-json")  # fmt: skip


def panel(verdict: Verdict, *, most: int = 8) -> Panel:
    """The chart of a row."""
    row = verdict.row
    bars = [Bar(s.name, s.figure.value, s.role) for s in verdict.standings if s.figure]
    return Panel(row.title, f"{row.unit} per {row.per}" if row.per else row.unit, tuple(bars[:most]))


def verdicts_of(rows: Sequence[Row], results: Results) -> list[Verdict]:
    """The rows that were measured and have a figure of ours."""
    measured = [(row, results.rows[row.key]) for row in rows if row.key in results.rows]
    judged = [judge(row, found) for row, found in measured if row.ours.name in found.sides]
    return [verdict for verdict in judged if verdict.ours.figure is not None]


def report(rows: Sequence[Row], results: Results, notes: dict[str, dict[str, str]]) -> str:
    """docs/benchmarks/index.md."""
    verdicts = verdicts_of(rows, results)
    groups = list(dict.fromkeys(verdict.row.group for verdict in verdicts))
    parts = [
        "# Benchmarks",
        _OPENING,
        _circumstances(results),
        "## In short",
        summary(verdicts),
    ]
    for group in groups:
        parts += [f"## {group}", picture(slug(group), f"{group}: CPU, time or memory of each side")]
        for verdict in verdicts:
            if verdict.row.group == group:
                parts += [f"### {verdict.row.title}", verdict.row.what, details(verdict)]
    parts += [_not_there(verdicts, notes), METHOD.read_text(), _versions(results)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _circumstances(results: Results) -> str:
    machine = results.machine
    days = sorted({row.measured[:10] for row in results.rows.values()})
    commits = sorted({row.commit for row in results.rows.values()})
    forms = sorted({row.form for row in results.rows.values() if row.form})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}" if days else ""
    busy = max((row.load_before for row in results.rows.values()), default=0.0)
    short = " Short windows: a quick run." if results.quick else ""
    if busy > _BUSY:
        short += (
            f" Other work was running (load average up to {busy:.0f}): first readings, to be measured again in quiet."
        )
    return (
        f"Machine: {machine.get('processor', '')}, {machine.get('memory', '')}, {machine.get('system', '')}, "
        f"{machine.get('python', '')}. Measured: {when}, commit {', '.join(commits)}, {'; '.join(forms)}.{short}"
    )


def _not_there(verdicts: Sequence[Verdict], notes: dict[str, dict[str, str]]) -> str:
    lines = ["## Where we are not there yet"]
    for verdict in verdicts:
        behind = verdict.behind
        if not verdict.is_missed and not behind:
            continue
        said = []
        if verdict.is_missed:
            missed = [kept.budget.words(verdict.row.unit) for kept in verdict.budgets if kept.kept is False]
            said.append(f"misses its budget ({'; '.join(missed)})")
        if behind:
            said.append("needs more than " + ", ".join(standing.name for standing in behind) + " in every round")
        note = notes.get(verdict.row.key, {})
        lines.append(
            f"* **{verdict.row.title}** {', '.join(said)}. {note.get('why', '')} {note.get('next', '')}".rstrip()
        )
    if len(lines) == 1:
        lines.append("Every budget is met, and no peer needs less in every round.")
    return lines[0] + "\n\n" + "\n".join(lines[1:])


def _versions(results: Results) -> str:
    names = ", ".join(f"{name} {version}" for name, version in sorted(results.versions.items()))
    return f"## Versions\n\n{names}."


def picture(name: str, words: str, folder: str = "") -> str:
    """A plot for a light or a dark page."""
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{folder}{name}-dark.svg">'
        f'<img src="{folder}{name}-light.svg" alt="{words}"></picture>'
    )


def slug(group: str) -> str:
    """What the plots of a group are called."""
    return group.lower().replace(" ", "-")


def plots(rows: Sequence[Row], results: Results) -> dict[str, str]:
    """File name → SVG: each group, and the chosen rows of the README, in both themes."""
    verdicts = verdicts_of(rows, results)
    pictures: dict[str, str] = {}
    for group in dict.fromkeys(verdict.row.group for verdict in verdicts):
        panels = [panel(verdict) for verdict in verdicts if verdict.row.group == group]
        for theme in THEMES:
            pictures[f"{slug(group)}-{theme.name}.svg"] = draw(panels, theme, f"{group}: multiloop and its peers")
    chosen = [panel(verdict, most=4) for verdict in verdicts if verdict.row.key in README_ROWS]
    if chosen:
        for theme in THEMES:
            pictures[f"summary-{theme.name}.svg"] = draw(chosen, theme, "multiloop and its peers: CPU, time or memory")
    return pictures


def readme_block(rows: Sequence[Row], results: Results) -> str:
    """What stands in the README between the two marks."""
    verdicts = verdicts_of(rows, results)
    chosen = [verdict for verdict in verdicts if verdict.row.key in README_ROWS]
    lines = ["| work | what counts | multiloop | peers, in the same run |", "|---|---|---|---|"]
    for verdict in chosen:
        row = verdict.row
        peers = [f"{s.name} {number(s.figure.value)}" for s in verdict.standings
                 if s.figure and s.role != "ours" and "multiloop" not in s.name]  # fmt: skip
        ours = verdict.ours.figure
        unit = f"{row.unit} per {row.per}" if row.per else row.unit
        what = {"cpu_us": "CPU, ", "kb": "memory, "}.get(row.metric, "")
        lines.append(f"| {row.title} | {what}{unit} | **{number(ours.value) if ours else ''}** | {', '.join(peers)} |")
    judged = [kept.kept for verdict in verdicts for kept in verdict.budgets if kept.kept is not None]
    missed = [verdict.row.title for verdict in verdicts if verdict.is_missed]
    budgets = f"{sum(judged)} of {len(judged)} budgets are met"
    if missed:
        budgets += f"; not yet: {'; '.join(missed)}"
    return "\n\n".join(
        (
            picture("summary", "multiloop and its peers: less is better", "docs/benchmarks/"),
            _circumstances(results),
            "\n".join(lines),
            f"{budgets}. [Every row, the method, and why where we lose](docs/benchmarks/index.md); `make bench` repeats it.",
        )
    )


def fill(text: str, block: str) -> str:
    """The README with the block between its marks. Raises ValueError when the marks are not there, in order, once."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"README.md needs one line {BEGIN!r} and below it one {END!r}")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{block}\n\n{END}{tail}"


def read_notes() -> dict[str, dict[str, str]]:
    """bench/notes.toml: why a row is where it is, and the next idea; people write it."""
    return tomllib.loads(NOTES.read_text()) if NOTES.exists() else {}


def write(rows: Sequence[Row], results: Results, folder: Path, *, readme: Path | None) -> None:
    """Write everything. Plots that no row has any more are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = to_json(results)
    (folder / "results.json").write_text(kept)
    results = from_json(kept)  # the pages say what the file says, to the last digit
    (folder / "index.md").write_text(report(rows, results, read_notes()))
    pictures = plots(rows, results)
    for old in folder.glob("*.svg"):
        if old.name not in pictures:
            old.unlink()
    for name, text in pictures.items():
        (folder / name).write_text(text)
    if readme is not None:
        readme.write_text(fill(readme.read_text(), readme_block(rows, results)))
