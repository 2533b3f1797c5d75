"""`make faults`: the fault matrix as a table.

python -m tests.faults                     every row, the full run (some take minutes)
python -m tests.faults 1 3 --times 20      these rows, twenty times
python -m tests.faults --quick             every row, the short run that the tests do
python -m tests.faults --write FILE        put the rows into the table between the marks of a page of the documentation
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from . import random_run, rows_clients, rows_life, rows_system, rows_workers
from .matrix import ROWS, Result, run_row, table

_BEGIN, _END = "<!-- faults: begin -->", "<!-- faults: end -->"
_ROWS = (rows_workers, rows_life, rows_clients, rows_system, random_run)


def main() -> int:
    """Run rows, print the table; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="make faults")
    parser.add_argument("rows", nargs="*", help="their numbers; none: all")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        parser.error(f"no such rows: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    numbers = options.rows or sorted(ROWS, key=int)
    results: dict[str, list[Result]] = {number: [] for number in numbers}
    for turn in range(options.times):
        for number in numbers:
            began = time.monotonic()
            result = run_row(ROWS[number], is_full=not options.quick, seed=options.seed + turn)
            results[number].append(result)
            mark = "kept" if result.ok else "BROKEN"
            print(f"row {number:>2} {mark} in {time.monotonic() - began:.0f} s: {result.figure}", flush=True)
    text = table({number: results[number] for number in sorted(numbers, key=int)})
    print(f"\n{text}")
    if options.write is not None:
        _write(options.write, text)
    return 0 if all(result.ok for several in results.values() for result in several) else 1


def _write(page: Path, text: str) -> None:
    """Put the rows of a table into that of the page; rows that were not run now stay as they are."""
    before, found, rest = page.read_text().partition(_BEGIN)
    old, found_end, after = rest.partition(_END)
    if not found or not found_end:
        raise SystemExit(f"{page}: the marks {_BEGIN} and {_END} are not there")
    head, rows = text.splitlines()[:2], {**_rows(old), **_rows(text)}
    lines = [*head, *(rows[number] for number in sorted(rows, key=int))]
    page.write_text(f"{before}{_BEGIN}\n" + "\n".join(lines) + f"\n{_END}{after}")


def _rows(text: str) -> dict[str, str]:
    """The lines of a table by the numbers that they begin with."""
    found = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    return {number: line for number, line in found.items() if number.isdigit()}


if __name__ == "__main__":
    sys.exit(main())
