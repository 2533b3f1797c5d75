"""dashboard: a running cluster made visible: a live page, metrics for scrapers, health for probes, a few actions.

What lives here: `Dashboard`, which `multiloop serve --admin HOST:PORT` puts beside its primary. What must not: anything
in a worker; what workers tell comes through the primary (`cluster._observer`).

    snapshots (`stats`) ─▶ pure: _track _model _offenders _history _figures _sums ─▶ _server: page, /metrics, /health, /api
                                                     who may: _guard (pure)
"""

from __future__ import annotations

from ._server import Dashboard as Dashboard
