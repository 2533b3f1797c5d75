"""What `multiloop run` is told: its options, most of them those of `serve` with the same names, and what follows.

What lives here: `RunSettings`, and how it is made. What must not: running anything (`_run`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from .._limits import MAX_WORKERS
from ..cluster._settings import ProcessSettings
from ..errors import ConfigError
from ..logs import LogSettings
from ..pool._machine import usable_cores
from ._options import RUN_FOR_ALL, RUN_WITH_WORKERS
from ._sources import COMMAND_LINE, look_up

if TYPE_CHECKING:
    from ..cluster._forks._supervision import ReadyWhen, SuperviseOptions


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What `multiloop run` was told."""

    target: str  # the path of a script, or a module's name
    is_module: bool
    arguments: tuple[str, ...]
    workers: int | None  # None: the script forks itself, or nobody
    ready: ReadyWhen
    policy: str | None  # None: what the script says
    supervise: SuperviseOptions
    env: tuple[tuple[str, str], ...]
    name: str  # "": the target
    logs: LogSettings
    process: ProcessSettings

    @property
    def called(self) -> str:
        """What people call it."""
        return self.name or (self.target if self.is_module else os.path.basename(self.target))

    def launcher(self) -> tuple[str, ...]:
        """Return what stands in front of the script in a worker's command line."""
        words = ["-m", "multiloop", "run", *(("--name", self.name) if self.name else ())]
        words += ["--log-level", self.logs.level, "--log-format", self.logs.format]
        if self.logs.file is not None:
            words += ["--log-file", self.logs.file]
        if self.logs.config is not None:
            words += ["--log-config", self.logs.config]
        return tuple(words)


def settings_from(arguments: Mapping[str, Any]) -> RunSettings:
    """Return what the command line and the environment say. Raises ConfigError."""
    workers = _count(arguments.get("workers"))
    found = look_up((*RUN_WITH_WORKERS, *RUN_FOR_ALL), arguments)
    values = {name.replace("-", "_"): setting.value for name, setting in found.items()}
    if workers is None:
        for name in RUN_WITH_WORKERS:
            if found[name].source == COMMAND_LINE:
                raise ConfigError(
                    f"--{name} needs --workers: a script that forks itself says it itself (cluster.supervise)"
                )
    return RunSettings(
        target=arguments["script"],
        is_module=arguments["module"],
        arguments=tuple(arguments.get("arguments", ())),
        workers=workers,
        ready=arguments["ready"],
        policy=values["policy"] if found["policy"].is_given else None,
        supervise=cast("SuperviseOptions", {name.replace("-", "_"): found[name].value for name in RUN_WITH_WORKERS}),
        env=values["env"],
        name=values["name"],
        logs=LogSettings(values["log_level"], values["log_format"], values["log_file"], values["log_config"]),
        process=ProcessSettings(
            control=values["control"],
            pid_file=values["pid_file"],
            user=values["user"],
            group=values["group"],
            umask=values["umask"],
        ),
    )


def _count(text: str | None) -> int | None:
    if text is None or text == "auto":
        return None if text is None else usable_cores()
    if text.isdecimal() and 1 <= int(text) <= MAX_WORKERS:
        return int(text)
    raise ConfigError(f"--workers {text!r}: a number from 1 to {MAX_WORKERS}, or auto; without it the script runs once")
