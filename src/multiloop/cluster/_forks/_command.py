"""How the program that runs here was started, so that it can be started again as a worker.

What lives here: `Program`, read from the interpreter's own command line. What must not: starting anything.

`sys.orig_argv` has everything: the interpreter's options (-X, -W, -O …), then a script, -m or -c, then the program's
arguments. A worker gets the same; `setup_primary` may put others in their place.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from ...errors import UsageError

_WITH_VALUE = "WX"
_PROGRAM = "cm"
_LONG_WITH_VALUE = "--check-hash-based-pycs"


class Program(NamedTuple):
    """A Python command line in parts."""

    options: tuple[str, ...]  # of the interpreter
    target: tuple[str, ...]  # (script,), ("-m", module) or ("-c", code); () for none
    arguments: tuple[str, ...]  # the program's own
    launcher: tuple[str, ...] = ()  # what runs the target, in front of it: `multiloop run`


launched: Program | None = None  # set by `multiloop run`: the command line is its own, not the program's


def here() -> Program:
    """Return how the program that runs here was started."""
    return launched or read(sys.orig_argv)


def read(orig_argv: Sequence[str]) -> Program:
    """Take a command line apart."""
    words = list(orig_argv[1:])
    options: list[str] = []
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word == "-":
            return Program(tuple(options), (word,), tuple(words))
        if word == "--":
            return Program(tuple(options), tuple(words[:1]), tuple(words[1:]))
        if word.startswith("--"):
            options.append(word)
            if word == _LONG_WITH_VALUE and words:
                options.append(words.pop(0))
            continue
        for position, letter in enumerate(word[1:], 1):
            if letter not in _WITH_VALUE + _PROGRAM:
                continue
            rest = word[position + 1 :]
            value = rest or (words.pop(0) if words else "")
            before = word[:position] if position > 1 else ""
            if letter in _PROGRAM:
                if before:
                    options.append(before)
                return Program(tuple(options), (f"-{letter}", value), tuple(words))
            options += [word] if rest else [word, value]
            break
        else:
            options.append(word)
    return Program(tuple(options), (), ())


def worker_command(
    program: Program,
    executable: str,
    *,
    exec: str | None = None,  # noqa: A002 - Node's name
    args: Sequence[str] | None = None,
    exec_argv: Sequence[str] | None = None,
    main_file: str | None = None,
) -> list[str]:
    """Return the command line of a worker.

    Args:
        program: how this one was started.
        exec: another program: a path (it ends in .py or has a separator), else a module.
        args, exec_argv: its arguments and the interpreter's options, instead of this one's.
        main_file: where the script that runs here lies, for one whose name does not lead to it any more.

    Raises UsageError when this program cannot be started again, and no other one is given.
    """
    options = [*(program.options if exec_argv is None else exec_argv), *program.launcher]
    arguments = list(program.arguments if args is None else args)
    if exec is not None:
        is_path = exec.endswith(".py") or os.sep in exec
        return [executable, *options, *([exec] if is_path else ["-m", exec]), *arguments]
    if not program.target or program.target == ("-",):
        raise UsageError(
            "cluster.fork() starts this program again, and there is none: it is typed in or read from a pipe; "
            "name one with cluster.setup_primary(exec='worker.py')"
        )
    target = program.target
    if len(target) == 1 and main_file is not None and not os.path.exists(target[0]):
        target = (main_file,)  # the working folder has changed since
    return [executable, *options, *target, *arguments]
