"""Metrics as scrapers read them: OpenMetrics, or Prometheus' older text, by prometheus_client's own encoders.

What lives here: `expose`. What must not: values and their sums (`_sums`).

It works on plain copies, so it may run on any thread: ten thousand values take a tenth of a second.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from ._sums import Family, Labels

log = logging.getLogger("multiloop.dashboard")

Total = tuple[str, Family, list[tuple[str, Labels, float]]]

_TYPES = {"counter", "gauge", "summary", "histogram", "gaugehistogram", "unknown", "info", "stateset"}


def expose(totals: Iterable[Total], accept: str) -> tuple[bytes, str]:
    """Return the text for a scraper that sent this Accept header, and its content type."""
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(accept)
    registry: Any = _Registry(totals)
    return encode(registry), content_type


class _Registry:
    """What the encoders need of a registry."""

    def __init__(self, totals: Iterable[Total]) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Any]:
        from prometheus_client import Metric

        for name, family, samples in self._totals:
            kind = family.type if family.type in _TYPES else "unknown"
            try:
                made = Metric(name, family.help, kind, family.unit if name.endswith(f"_{family.unit}") else "")
            except ValueError as error:
                log.warning("the metric %r is not published: %s", name, error)
                continue
            for sample, labels, value in sorted(samples, key=_order):
                made.add_sample(sample, dict(labels), value)
            yield made


def _order(sample: tuple[str, Labels, float]) -> tuple[Labels, int, float, str]:
    """Group a histogram's samples by their other labels, its buckets rising: the parser insists."""
    name, labels, _ = sample
    others = tuple(pair for pair in labels if pair[0] != "le")
    bound = next((value for key, value in labels if key == "le"), None)
    return others, bound is None, float(bound) if bound is not None else 0.0, name
