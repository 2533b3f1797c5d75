"""The command itself, on its smallest row: an environment is made, the row is measured, the report is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench.harness.results import load

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_quick_run_measures_its_smallest_row(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "run", "--quick", "--rows", "shared-100mb", "--rounds", "1",
               "--side", "multiloop, SharedBuffer", "--out", str(tmp_path)]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MULTILOOP_", "PYTHON"))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout + done.stderr
    row = load(tmp_path / "results.json").rows["shared-100mb"]
    samples = row.sides["multiloop, SharedBuffer"].samples()
    assert len(samples) == 10
    assert all(0 < sample["wall_ms"] < 10_000 for sample in samples)
    assert "100 MB to a worker without a copy" in (tmp_path / "index.md").read_text()
    assert "multiloop" in row.form
