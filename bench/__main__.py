"""The command: `python -m bench …` (the package's first lines list what it can do)."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from .harness import page, profile, runner
from .harness.bench import Bench
from .harness.environments import Tools
from .harness.machine import ROOT, cores
from .harness.processes import Failed, Missing
from .harness.results import Results, load
from .harness.table import summary
from .rows import ROWS, by_key


def arguments() -> argparse.ArgumentParser:
    """What may be said."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="multiloop beside its peers, in one run.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure, and write the report")
    run.add_argument(
        "--quick", action="store_true", help="the rows with budgets, short windows; writes docs/benchmarks/quick/"
    )
    run.add_argument("--rows", default="", help="only these, separated by commas; the others of the report are kept")
    run.add_argument(
        "--side", action="append", default=[], help="only the sides of this name; may be said more than once"
    )
    run.add_argument("--rounds", type=int, help="how often each side has its turn")
    run.add_argument("--out", type=Path, help="another folder for the report; the README is left alone")
    commands.add_parser("list", help="the rows, their sides and budgets")
    commands.add_parser("report", help="write the pages again from results.json")
    look = commands.add_parser("profile", help="where the time of a side goes")
    look.add_argument("row")
    look.add_argument("side")
    look.add_argument("--seconds", type=float, default=10.0)
    check = commands.add_parser("check", help="instruction counts against the committed baseline")
    check.add_argument("--update", action="store_true", help="write a new baseline")
    check.add_argument("--only", default="", help="only these scenarios, separated by commas")
    return parser


def say(text: str) -> None:
    """A line of progress."""
    print(text, flush=True)


def main() -> int:
    """Do what the command line says.

    Returns 0 when it is done, 1 when something of ours failed or counts have grown, 2 when it cannot be done here, 3 when
    counts cannot be compared here.
    """
    chosen = arguments().parse_args()
    try:
        if chosen.command == "run":
            return measure(chosen)
        if chosen.command == "list":
            return list_rows()
        if chosen.command == "report":
            page.write(ROWS, load(page.DOCS / "results.json"), page.DOCS, readme=ROOT / "README.md")
            return 0
        if chosen.command == "profile":
            return profile.show(by_key(chosen.row), chosen.side, chosen.seconds)
        from .check import compare_command

        return compare_command(update=chosen.update, only=[name for name in chosen.only.split(",") if name])
    except (Failed, Missing, ValueError, KeyError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2


def measure(chosen: argparse.Namespace) -> int:
    """Measure and write."""
    wanted = [key for key in chosen.rows.split(",") if key]
    plan = runner.Plan(
        runner.choose(ROWS, quick=chosen.quick, wanted=wanted), chosen.quick, chosen.rounds, tuple(chosen.side)
    )
    published = chosen.out is None and not chosen.quick
    folder = chosen.out or (page.DOCS / "quick" if chosen.quick else page.DOCS)
    results = Results({}, {}, quick=chosen.quick)
    if wanted and (folder / "results.json").exists():
        results = load(folder / "results.json")
    server_core, load_core = cores()
    short = {"window_s": 1.0, "windows": 1, "warm_s": 1.0} if chosen.quick else {}
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        bench = Bench(Tools(), Path(scratch), server_core, load_core, quick=chosen.quick, **short)  # type: ignore[arg-type]

        def written() -> None:
            page.write(ROWS, results, folder, readme=None)

        with bench.services:
            failures = runner.measure(plan, bench, results, say, written)
    page.write(ROWS, results, folder, readme=ROOT / "README.md" if published else None)
    say("\n" + summary(page.verdicts_of(plan.rows, results)))
    say(f"\n{time.monotonic() - began_s:.0f} s; the report: {folder / 'index.md'}")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def list_rows() -> int:
    """Print the rows."""
    for row in ROWS:
        say(f"{row.key:<20} {row.title}{'  (quick, too)' if row.quick else ''}")
        say(f"{'':<20} {', '.join(side.name for side in row.sides)}")
        for budget in row.budgets:
            say(f"{'':<20} {budget.words(row.unit)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
