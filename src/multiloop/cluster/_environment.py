"""The environment that a worker's process starts with. Pure.

What lives here: `worker_environment`. What must not: the file of `--env-file`, which the worker reads itself (`_env_file`).

Every worker finds who it is in MULTILOOP_WORKER (its number, never used twice), MULTILOOP_SLOT (its place, 0 to N-1,
which its replacement gets, too) and MULTILOOP_APP. `--env NAME=VALUE` adds variables; `{slot}` and `{worker}` in a value
are filled in, so that each worker can have a device, a port or a folder of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ._settings import ServeSettings

SLOT = "{slot}"
WORKER = "{worker}"


def worker_environment(
    settings: ServeSettings, number: int, slot: int | None, base: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the environment for one worker. A standby has no slot yet: MULTILOOP_SLOT is set when it gets one."""
    environment = dict(base)
    environment["MULTILOOP_APP"] = settings.called
    environment["MULTILOOP_WORKER"] = str(number)
    environment.pop("MULTILOOP_SLOT", None)
    if slot is not None:
        environment["MULTILOOP_SLOT"] = str(slot)
    for name, value in settings.env:
        environment[name] = value.replace(WORKER, str(number)).replace(SLOT, "" if slot is None else str(slot))
    return environment
