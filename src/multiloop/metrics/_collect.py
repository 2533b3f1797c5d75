"""What changed in this process's metrics since the last look, as plain values that can travel.

What lives here: `Collector`. What must not: sending (`cluster._measuring`), adding up (`dashboard`).

An application that never loaded prometheus_client costs one look into `sys.modules`.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from .. import _limits as limits
from . import _joins, _registries

log = logging.getLogger("multiloop.metrics")

Key = tuple[str, str, tuple[tuple[str, str], ...]]
Description = tuple[str, str, str, str]

_OF_THE_PROCESS = ("python_", "process_")  # prometheus_client's own about this process: adding those up says nothing
_LEFT_OUT = ("_created", "_gcreated")


class Collector:
    """Looks at the registries; remembers what it said last."""

    def __init__(self) -> None:
        self._described: dict[str, Description] = {}
        self._values: dict[Key, float] = {}
        self._said_too_many = False
        self._said_failed = ""

    def changes(self) -> tuple[dict[str, Description], dict[Key, float | None]]:
        """Return families that are new, and values that changed or (None) are gone."""
        described: dict[str, Description] = {}
        values: dict[Key, float] = {}
        for family in self._families():
            name = family.name
            description = (family.type, family.documentation, family.unit, _joins.get(name, "sum"))
            if self._described.get(name) != description:
                self._described[name] = described[name] = description
            for sample in family.samples:
                if not sample.name.endswith(_LEFT_OUT):
                    values[name, sample.name, tuple(sorted(sample.labels.items()))] = sample.value
        if len(values) > limits.MAX_METRIC_VALUES:
            values = dict(list(values.items())[: limits.MAX_METRIC_VALUES])
            if not self._said_too_many:
                self._said_too_many = True
                log.warning(
                    "over %d values of metrics: the others are not published; use fewer labels",
                    limits.MAX_METRIC_VALUES,
                )
        before, self._values = self._values, values
        changed: dict[Key, float | None] = {key: value for key, value in values.items() if before.get(key) != value}
        changed.update((key, None) for key in before if key not in values)
        return described, changed

    def _families(self) -> list[Any]:
        library = sys.modules.get("prometheus_client")
        default = getattr(library, "REGISTRY", None)
        if default is None:
            return []
        found: dict[str, Any] = {}
        for registry in (default, *_registries):
            try:
                families = list(registry.collect())
            except Exception as error:  # a collector or a gauge's function of the application
                if repr(error) != self._said_failed:
                    self._said_failed = repr(error)
                    log.exception("a collector of the application failed: its registry is not published")
                continue
            for family in families:
                if not family.name.startswith(_OF_THE_PROCESS):
                    found.setdefault(family.name, family)
        return list(found.values())
