"""What a run found, as it is kept in results.json.

What lives here: the shape of the file, reading and writing it. What must not: what the figures mean (`verdicts`).

One row is replaced at a time, so that a row that is measured again keeps the others; each carries when and of which
commit it was measured.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .model import Sample

FORMAT = 1


@dataclass(slots=True)
class SideResult:
    """The samples of one side, round by round, or why there are none."""

    rounds: list[list[Sample]] = field(default_factory=list)
    failed: str = ""
    missing: str = ""

    def samples(self) -> list[Sample]:
        """All of them."""
        return [sample for round_ in self.rounds for sample in round_]


@dataclass(slots=True)
class RowResult:
    """One row as it was measured."""

    measured: str
    commit: str
    form: str
    load_before: float
    sides: dict[str, SideResult]


@dataclass(slots=True)
class Results:
    """A whole report."""

    machine: dict[str, str]
    versions: dict[str, str]
    rows: dict[str, RowResult] = field(default_factory=dict)
    quick: bool = False


def to_json(results: Results) -> str:
    """The text of results.json: figures with six digits, one line for each round."""
    data = {"format": FORMAT, **asdict(results)}
    for row in data["rows"].values():
        for side in row["sides"].values():
            side["rounds"] = [[{name: _short(figure) for name, figure in sample.items()} for sample in round_]
                              for round_ in side["rounds"]]  # fmt: skip
    text = json.dumps(data, indent=1)
    return _rounds_on_one_line(text) + "\n"


def _short(figure: float) -> float:
    return float(f"{figure:.6g}")


def _rounds_on_one_line(text: str) -> str:
    lines: list[str] = []
    depth = 0
    for line in text.splitlines():
        stripped = line.strip()
        if depth:
            lines[-1] += stripped if stripped[0] in "]}" or lines[-1].endswith(("[", "{")) else " " + stripped
            depth += stripped.count("[") - stripped.count("]")
        else:
            lines.append(line)
            if stripped == '"rounds": [':
                depth = 1
    return "\n".join(lines)


def from_json(text: str) -> Results:
    """Read results.json. Raises ValueError when it is of another format."""
    data: dict[str, Any] = json.loads(text)
    if data.pop("format", None) != FORMAT:
        raise ValueError("results.json is of another format: run the benchmarks again")
    rows = {
        key: RowResult(**{**row, "sides": {name: SideResult(**side) for name, side in row["sides"].items()}})
        for key, row in data.pop("rows").items()
    }
    return Results(rows=rows, **data)


def load(path: Path) -> Results:
    """Read a file. Raises OSError, ValueError."""
    return from_json(path.read_text())
