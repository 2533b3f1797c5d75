"""The one place of the defaults."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from multiloop import _limits


def test_every_default_is_written_once() -> None:
    tree = ast.parse(Path(_limits.__file__).read_text())
    names = Counter(target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets)  # type: ignore[attr-defined]
    assert [name for name, times in names.items() if times > 1] == []
