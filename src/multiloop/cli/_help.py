"""click's side of `multiloop serve`: flags from the table, and a help text in groups.

What lives here: `ServeCommand`. What must not: what an option means.
"""

from __future__ import annotations

from typing import Any

import click

from ._options import GROUPS, OPTIONS, Option

_WIDTH = 110
_INTRODUCTION = """\
Serve an application on every core.

TARGET is MODULE:ATTRIBUTE: an ASGI or WSGI application, or a handler (one argument returns the reply, two are request
and response). What it is is found out and said at the start.
"""
_EPILOGUE = """\
Each option is also a variable (MULTILOOP_KEEP_ALIVE_TIMEOUT=30) and a key in [tool.multiloop] of pyproject.toml or in
the file of --config (keep-alive-timeout = 30). The command line comes first, then the environment, --config,
pyproject.toml. --check prints what is in force and who said so.

Signals: TERM and INT end it gracefully, a second one at once; HUP reloads; TTIN and TTOU add and remove a worker; USR1
reopens log files.

Exit codes: 0 ended as asked; 2 a wrong option; 3 the application never became ready; 4 no such module or attribute;
5 not an application; 6 the address cannot be listened on.
"""


def parameters() -> list[click.Parameter]:
    """Return click's parameters for the table. Absent ones are None: defaults come later, after the other sources."""
    found: list[click.Parameter] = [click.Argument(["target"], required=False, default=None)]
    found += [_parameter(option) for option in OPTIONS.values()]
    return found


def parameter(option: Option, *, shown: bool = False) -> click.Option:
    """Return click's parameter for one option; with `shown` as its own help shows it."""
    if shown:
        found = _parameter(option)
        found.help, found.metavar = _right(option), option.kind.metavar
        return found
    return _parameter(option)


def _parameter(option: Option) -> click.Option:
    name = option.name.replace("-", "_")
    if option.name in ("check", "dev"):
        return click.Option([option.flag, name], is_flag=True, flag_value=True, default=None)
    if option.kind.is_flag:
        return click.Option([f"{option.flag}/--no-{option.name}", name], default=None)
    return click.Option([option.flag, name], default=None, multiple=option.kind.is_list)


def arguments(params: dict[str, Any]) -> dict[str, Any]:
    """Turn click's parameters into what `_sources.gather` takes: by option name, only what was said."""
    return {name.replace("_", "-"): value for name, value in params.items() if value is not None and value != ()}


class ServeCommand(click.Command):
    """`multiloop serve`, whose help a person can read: sections, one line or two for each option."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help: usage, introduction, the groups, the epilogue."""
        formatter.width = _WIDTH
        formatter.write_usage(ctx.command_path, "TARGET [OPTIONS]")
        formatter.write(f"\n{_INTRODUCTION}")
        for group in GROUPS:
            with formatter.section(group.title):
                formatter.write_dl([(_left(option), _right(option)) for option in group.options], col_max=42)
        formatter.write(f"\n{_EPILOGUE}")


def _left(option: Option) -> str:
    if option.name in ("check", "dev"):
        return option.flag
    if option.kind.is_flag:
        return f"--[no-]{option.name}"
    return f"{option.flag} {option.kind.metavar}"


def _right(option: Option) -> str:
    default = option.shown_default
    value = option.default_value()
    if not default and value not in (None, "", (), False):
        default = option.kind.write(value).strip('"') if not isinstance(value, tuple) else ", ".join(value)
    if option.kind.is_flag:
        default = "on" if value else ""
    if option.has_dev_default:
        default = ", ".join(filter(None, (default, f"with --dev {_word(option.dev_default)}")))
    return f"{option.help} [{default}]" if default else option.help


def _word(value: Any) -> str:
    return "on" if value is True else str(value)
