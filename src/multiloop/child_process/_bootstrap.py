"""What the interpreter of a forked child runs first: it makes the target its `__main__`, then runs a loop if one is due.

What lives here: a stand-alone script, started by its path (it may have to find multiloop itself). What must not: imports
of ours at the top.
"""

from __future__ import annotations

import builtins
import importlib.util
import os
import runpy
import sys
import types
from pathlib import Path


def _find_ourselves() -> None:
    """Let the child import multiloop where its parent did, without shadowing anything."""
    own_folder, root = str(Path(__file__).parent), str(Path(__file__).parents[2])
    if not sys.flags.safe_path and sys.path and sys.path[0] == own_folder:
        del sys.path[0]
    if importlib.util.find_spec("multiloop") is None:
        sys.path.append(root)


def _fresh_main() -> types.ModuleType:
    """Replace `__main__`: this script's names are not the target's."""
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    return main


def _run_file(path: str) -> None:
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    if not sys.flags.safe_path:
        sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    names = _fresh_main().__dict__
    names.update(__file__=path, __builtins__=builtins, __spec__=None, __package__=None)
    exec(code, names)


def _main() -> None:
    del sys.argv[0]
    target = sys.argv[0]
    _find_ourselves()
    from multiloop import child_process, run

    parent = child_process.parent
    try:
        if target.endswith(".py") or os.sep in target:
            _run_file(target)
        else:
            if not sys.flags.safe_path:
                sys.path.insert(0, os.getcwd())
            _fresh_main()
            runpy._run_module_as_main(target)  # type: ignore[attr-defined]  # what `python -m` calls
    except Exception as error:
        error.__traceback__ = _without_own_frames(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)
    if parent is not None and parent.channel is None and parent.wants_loop():
        run(_nothing)


def _nothing() -> None:
    """The loop runs for the channel alone."""


def _without_own_frames(trace: types.TracebackType | None) -> types.TracebackType | None:
    first = trace
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, runpy.__file__, "<frozen runpy>"):
        trace = trace.tb_next
    return trace or first  # only ours: the target was not found, or has a syntax error


if __name__ == "__main__":
    _main()
