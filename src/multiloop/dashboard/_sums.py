"""Values of many workers that come and go, added up so that no counter ever goes backwards. Pure.

What lives here: `Sums`. What must not: where values come from, how they are written (`_exposition`).

A value is known by (family, name of the sample, labels). What only grows (counters, histograms, summaries) is kept when
its worker ends; a smaller value than before means that the worker began anew, and what it had said stays. Gauges are
those of the workers that live, joined as their family says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, str, Labels]


class Family(NamedTuple):
    """What a metric is: its OpenMetrics type, help, unit, and how gauges of several workers are joined."""

    type: str
    help: str
    unit: str = ""
    join: str = "sum"


_GROWING = ("counter", "histogram", "summary")
_JOINS: dict[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "min": min,
    "max": max,
    "mean": lambda values: sum(values) / len(values),
}


class Sums:
    """The sums over the workers of one cluster."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}
        self._live: dict[int, dict[Key, float]] = {}
        self._places: dict[int, str] = {}
        self._retired: dict[Key, float] = {}

    def describe(self, families: Mapping[str, Iterable[str]]) -> None:
        """Take descriptions of families. One that became another type begins anew: its values meant something else."""
        for name, described in families.items():
            family = Family(*described)
            known = self._families.get(name)
            if known is not None and known.type != family.type:
                for values in (self._retired, *self._live.values()):
                    for key in [key for key in values if key[0] == name]:
                        del values[key]
            self._families[name] = family

    def update(self, number: int, place: str, changes: Mapping[Key, float | None]) -> None:
        """Take values of a worker; None removes one. `place` is its label where each worker is shown."""
        self._places[number] = place
        live = self._live.setdefault(number, {})
        for key, value in changes.items():
            grows = self._grows(key)
            before = live.get(key)
            if before is not None and grows and (value is None or value < before):
                self._retired[key] = self._retired.get(key, 0.0) + before
            if value is None:
                live.pop(key, None)
            else:
                live[key] = value

    def replace(self, number: int, place: str, values: Mapping[Key, float]) -> None:
        """Take all values of a worker; those that it had before and has no more are removed."""
        gone = {key: None for key in self._live.get(number, {}) if key not in values}
        self.update(number, place, {**gone, **values})

    def ended(self, number: int) -> None:
        """A worker is gone: what only grows stays."""
        for key, value in self._live.pop(number, {}).items():
            if self._grows(key):
                self._retired[key] = self._retired.get(key, 0.0) + value
        self._places.pop(number, None)

    def totals(self) -> list[tuple[str, Family, list[tuple[str, Labels, float]]]]:
        """Return every family with its samples, ordered by name; a copy that others may read."""
        found: dict[str, dict[tuple[str, Labels], list[float]]] = {}
        for key, value in self._retired.items():
            found.setdefault(key[0], {}).setdefault(key[1:], []).append(value)
        for number, values in self._live.items():
            place = self._places[number]
            for (name, sample, labels), value in values.items():
                family = self._families.get(name)
                if family is not None and family.join == "each" and family.type == "gauge":
                    labels = (*labels, ("worker", place))
                found.setdefault(name, {}).setdefault((sample, labels), []).append(value)
        made = []
        for name in sorted(found):
            family = self._families.get(name)
            if family is not None:
                join = sum if family.type in _GROWING else _JOINS.get(family.join, sum)
                samples = [(sample, labels, float(join(values))) for (sample, labels), values in found[name].items()]
                made.append((name, family, samples))
        return made

    def _grows(self, key: Key) -> bool:
        family = self._families.get(key[0])
        return family is not None and family.type in _GROWING
