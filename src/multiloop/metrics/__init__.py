"""Metrics of one's own, counted in every worker and added up by the primary's `/metrics`.

What lives here: `counter`, `gauge`, `histogram`, `register`. What must not: adding up (`dashboard`).

    orders = metrics.counter("shop_orders", "Orders placed.", labels=("country",))
    orders.labels(country="nl").inc()

They are prometheus_client's own objects in its default registry, so everything of it works; what an application has put
into that registry itself is published just the same. Importing this module loads nothing, the first metric does.

* Counters, histograms and summaries are summed over the workers of a cluster, those that ended included: reloads and
  kills make no counter go backwards. A worker that is killed loses what it counted in its last second.
* Gauges are joined over the workers that live: see `gauge`.
* In a pool's worker or a worker thread's process there is nobody who collects: count in the program that called it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

JOINS = ("sum", "min", "max", "mean", "each")

_registries: list[CollectorRegistry] = []  # besides the default one
_joins: dict[str, str] = {}  # of gauges that are not summed

Made = TypeVar("Made")


def counter(name: str, help: str, *, labels: Iterable[str] = (), unit: str = "") -> Counter:  # noqa: A002
    """Return the counter of this name, made if it is new: `.inc()`, `.labels(...).inc(3)`.

    `/metrics` shows it as `NAME_total`. Raises ValueError when the name is taken by another kind or other labels.
    """
    from prometheus_client import Counter

    return _get_or_make(Counter, name.removesuffix("_total"), help, tuple(labels), unit)


def gauge(
    name: str,
    help: str,  # noqa: A002
    *,
    labels: Iterable[str] = (),
    unit: str = "",
    across: str = "sum",
) -> Gauge:
    """Return the gauge of this name, made if it is new: `.set(7)`, `.inc()`, `.dec()`, `.set_function(f)`.

    Args:
        across: what `/metrics` makes of the workers' values: "sum", "min", "max", "mean", or "each" of them with a
            label `worker`.

    Raises ValueError for another `across`, or when the name is taken by another kind or other labels.
    """
    from prometheus_client import Gauge

    if across not in JOINS:
        raise ValueError(f"gauge({name!r}, across={across!r}): use one of {', '.join(JOINS)}")
    made = _get_or_make(Gauge, name, help, tuple(labels), unit)
    _joins[_full_name(name, unit)] = across
    return made


def histogram(
    name: str,
    help: str,  # noqa: A002
    *,
    labels: Iterable[str] = (),
    unit: str = "",
    buckets: Iterable[float] | None = None,
) -> Histogram:
    """Return the histogram of this name, made if it is new: `.observe(0.2)`, `with h.time(): ...`.

    `buckets` are upper bounds; None takes prometheus_client's (5 ms to 10 s). Raises ValueError when the name is taken
    by another kind or other labels.
    """
    from prometheus_client import Histogram

    more = {} if buckets is None else {"buckets": tuple(buckets)}
    return _get_or_make(Histogram, name, help, tuple(labels), unit, **more)


def register(registry: CollectorRegistry) -> None:
    """Publish a registry of one's own, too; each once. prometheus_client's default one always is."""
    if registry not in _registries:
        _registries.append(registry)


def _get_or_make(kind: type[Made], name: str, text: str, labels: tuple[str, ...], unit: str, **more: Any) -> Made:
    from prometheus_client import REGISTRY

    # A module that is imported twice, and two modules that count the same, must get the same metric.
    full = _full_name(name, unit)
    found: Any = REGISTRY._names_to_collectors.get(full)
    if found is None:
        made: Any = kind
        try:
            return made(name, text, labels, unit=unit, **more)  # type: ignore[no-any-return]
        except ValueError:
            found = REGISTRY._names_to_collectors.get(full)  # another thread was faster
            if found is None:
                raise
    named = found._labelnames
    if type(found) is not kind or named != labels:
        raise ValueError(f"the metric {full!r} exists as a {type(found).__name__} with labels {named}")
    return found


def _full_name(name: str, unit: str) -> str:
    return name if not unit or name.endswith(f"_{unit}") else f"{name}_{unit}"
