"""The commands: `serve`, `run`, `status`, `reload`, `restart`, `scale`, `logs`, `top`, `stop`, and `--version`.

What lives here: their names and arguments. What must not: doing them (`_serve`, `_control`), imported when one is called.
"""

from __future__ import annotations

from typing import Any

import click

from ._help import ServeCommand, arguments, parameter, parameters
from ._options import OPTIONS, RUN_FOR_ALL, RUN_WITH_WORKERS

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


def _of_the_table(command: Any) -> Any:
    """Add the options that `run` has in common with `serve`."""
    command.params += [parameter(OPTIONS[name], shown=True) for name in (*RUN_WITH_WORKERS, *RUN_FOR_ALL)]
    return command


@_of_the_table
@multiloop.command(
    "run", context_settings={**_CONTEXT, "ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.option("-m", "--module", is_flag=True, help="SCRIPT is the name of a module.")
@click.option(
    "--workers",
    metavar="N|auto",
    help="Keep so many workers of it going; each server in them shares its listener. Without it, SCRIPT runs once, and "
    "forks itself if it likes.",
)
@click.option(
    "--ready",
    type=click.Choice(["listening", "running"]),
    default="listening",
    show_default=True,
    help="When a worker is ready: it listens, or its loop runs.",
)
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run_(**params: Any) -> int:
    """Run SCRIPT with its ARGUMENTS: a program that forks itself, or one that is made a cluster of (--workers).

    With --workers: TERM and INT end it gracefully, HUP reloads, TTIN and TTOU add and remove a worker. USR1 reopens log
    files. status, logs and stop find it, and with --workers reload, restart and scale, too.
    """
    from ._run import run
    from ._run_options import settings_from

    return run(settings_from(arguments(params)))


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


@multiloop.command()
@click.option(
    "--interval", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, help="Seconds between looks."
)
@_control
def top(interval: float, control: str | None) -> int:
    """Watch a running server: its workers, what blocks them, its pools. Ends with q."""
    from ._top import top as watch

    return watch(control, interval)


_app = click.option("--app", metavar="NAME", help="Of several applications, this one.")


@multiloop.command("reload")
@_app
@_control
def reload_(control: str | None, app: str | None) -> int:
    """Replace the workers by ones with the present code, without losing a request.

    The old ones stay when the new code does not start; then the exit code is 8.
    """
    from ._control import reload

    return reload(control, app)


@multiloop.command()
@click.option("--worker", type=click.IntRange(1), required=True, metavar="N", help="Its number, as status shows it.")
@_control
def restart(worker: int, control: str | None) -> int:
    """Replace one worker; the new one is ready before the old one leaves."""
    from ._control import restart as replace

    return replace(control, worker)


@multiloop.command()
@click.argument("workers", type=click.IntRange(1, 1024))
@_app
@_control
def scale(workers: int, control: str | None, app: str | None) -> int:
    """Change the number of WORKERS."""
    from ._control import scale as change

    return change(control, workers, app)


@multiloop.command()
@click.option(
    "-n", "--lines", type=click.IntRange(0, 10_000), default=20, show_default=True, help="The last ones first."
)
@click.option("--follow/--no-follow", default=True, show_default=True, help="Go on with what is written from now on.")
@click.option("--worker", type=click.IntRange(0), metavar="N", help="Only this worker's; 0 is the primary.")
@_app
@_control
def logs(lines: int, follow: bool, worker: int | None, app: str | None, control: str | None) -> int:
    """Show what a running server and its workers log."""
    from ._control import logs as show

    return show(control, lines, follow=follow, app=app, worker=worker)


@multiloop.command()
@_control
def stop(control: str | None) -> int:
    """End a running server gracefully, and wait until it is gone."""
    from ._control import stop as end

    return end(control)
