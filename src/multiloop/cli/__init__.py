"""The `multiloop` command: arguments in, exit code out.

What lives here: `main`. The parts: `_options` (the table) `_kinds` `_sources` `_settings` (values to `ServeSettings`)
`_help` (click) `_preflight` `_serve` `_single` (serving in this process) `_control` (commands to a running server). What
must not: anything at import that a `--version` does not need.

Every mistake is one line on standard error and an exit code of `cluster._exit_codes`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ..errors import ConfigError


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit code."""
    code = run(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # `multiloop serve --help | head`: nobody reads the rest, and the end must not say so
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run the command line; return its exit code. Mistakes are said in one line."""
    import click

    from ._commands import multiloop

    try:
        code = multiloop.main(list(arguments), prog_name="multiloop", standalone_mode=False)
    except ConfigError as error:
        return _mistake(str(error), error.exit_code)
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "multiloop"
        message = error.format_message().rstrip(".")
        return _mistake(f"{message[:1].lower()}{message[1:]} (see {command} --help)", error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        return 0
    return code if isinstance(code, int) else 0


def _mistake(message: str, code: int) -> int:
    from ..logs import escape

    try:
        print(f"multiloop: {escape(message)}", file=sys.stderr)
    except (OSError, ValueError):  # standard error is closed: the code says it all
        pass
    return code
