"""The environment that a worker's process starts with. Pure.

What lives here: `worker_environment`, and `filled_in`, its part that is the worker's own. What must not: the file of
`--env-file`, which the worker reads itself (`_env_file`).

Every worker finds who it is in MULTILOOP_WORKER (its number, never used twice), MULTILOOP_SLOT (its place, 0 to N-1,
which its replacement gets, too) and MULTILOOP_APP. `--env NAME=VALUE` adds variables; `{slot}` and `{worker}` in a value
are filled in, so that each worker can have a device, a port or a folder of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from ._settings import ServeSettings

SLOT = "{slot}"
WORKER = "{worker}"


def worker_environment(
    settings: ServeSettings, number: int, slot: int | None, base: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the environment for one worker. A standby has no slot yet: MULTILOOP_SLOT is set when it gets one."""
    environment = dict(base)
    environment.pop("MULTILOOP_SLOT", None)
    return environment | filled_in(settings.called, settings.env, number, slot)


def filled_in(called: str, env: Iterable[tuple[str, str]], number: int, slot: int | None) -> dict[str, str]:
    """Return the variables that are a worker's own: who it is, and those of `--env`."""
    own = {"MULTILOOP_APP": called, "MULTILOOP_WORKER": str(number)}
    if slot is not None:
        own["MULTILOOP_SLOT"] = str(slot)
    for name, value in env:
        own[name] = value.replace(WORKER, str(number)).replace(SLOT, "" if slot is None else str(slot))
    return own
