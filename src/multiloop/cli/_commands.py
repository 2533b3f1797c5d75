"""The commands: `serve`, `status`, `reload`, `scale`, `stop`, and `--version`.

What lives here: their names and arguments. What must not: doing them (`_serve`, `_control`), imported when one is called.
"""

from __future__ import annotations

from typing import Any

import click

from ._help import ServeCommand, arguments, parameters

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=_CONTEXT, invoke_without_command=True, no_args_is_help=False)
@click.option("--version", is_flag=True, help="Say the version, and what it runs on.")
@click.pass_context
def multiloop(ctx: click.Context, version: bool) -> int:
    """Event loops that never block, on every core."""
    if version:
        from ._version import version_line

        click.echo(version_line())
        ctx.exit(0)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
    return 0


def _serve(**params: Any) -> int:
    from ._serve import serve

    return serve(arguments(params))


multiloop.add_command(
    ServeCommand(
        "serve",
        params=parameters(),
        callback=_serve,
        context_settings=_CONTEXT,
        short_help="Serve an application on every core.",
    )
)

_control = click.option(
    "--control",
    metavar="PATH",
    envvar="MULTILOOP_CONTROL",
    help="The server's control socket [the only one that runs here].",
)


@multiloop.command()
@_control
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(control: str | None, as_json: bool) -> int:
    """Show a running server's workers."""
    from ._control import status as show

    return show(control, as_json)


@multiloop.command("reload")
@_control
def reload_(control: str | None) -> int:
    """Replace the workers by ones with the present code, without losing a request.

    The old ones stay when the new code does not start; then the exit code is 8.
    """
    from ._control import reload

    return reload(control)


@multiloop.command()
@click.argument("workers", type=click.IntRange(1, 1024))
@_control
def scale(workers: int, control: str | None) -> int:
    """Change the number of WORKERS."""
    from ._control import scale as change

    return change(control, workers)


@multiloop.command()
@_control
def stop(control: str | None) -> int:
    """End a running server gracefully, and wait until it is gone."""
    from ._control import stop as end

    return end(control)
