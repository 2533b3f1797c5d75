"""Figures from samples: what stands for a side, how sure a ratio is. Pure.

What lives here: the least, medians, ratios and their spread over rounds. What must not: how anything is measured.

Noise only ever adds to CPU time, so the least over several windows is the best guess at what the work costs. Where a
figure has two modes (which core a thread woke up on), the least would compare luck: there the median is taken.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .model import MORE_IS_BETTER, Sample

Take = Literal["least", "median"]


@dataclass(frozen=True, slots=True)
class Spread:
    """What stands for a side, and how far its samples lie apart."""

    value: float
    low: float
    high: float
    count: int


def column(samples: Sequence[Sample], metric: str) -> list[float]:
    """The figures of one metric, of those samples that have it."""
    return [sample[metric] for sample in samples if metric in sample]


def stands_for(figures: Sequence[float], take: Take, *, more_is_better: bool = False) -> float:
    """Return the figure that stands for all. Raises ValueError when there is none."""
    if not figures:
        raise ValueError("no figures")
    if take == "median":
        return statistics.median(figures)
    return max(figures) if more_is_better else min(figures)


def summarize(samples: Sequence[Sample], metric: str, take: Take) -> Spread:
    """Return what stands for a side in one metric. Raises ValueError when no sample has it."""
    figures = column(samples, metric)
    value = stands_for(figures, take, more_is_better=metric in MORE_IS_BETTER)
    return Spread(value, min(figures), max(figures), len(figures))


def ratios_by_round(
    ours: Sequence[Sequence[Sample]], theirs: Sequence[Sequence[Sample]], metric: str, take: Take
) -> list[float]:
    """Return ours ÷ theirs for each round that both have figures of: how far these lie apart is the noise."""
    found = []
    for mine, other in zip(ours, theirs, strict=False):
        a, b = column(mine, metric), column(other, metric)
        if a and b:
            found.append(stands_for(a, take) / stands_for(b, take))
    return found


def beyond_noise(ratios: Sequence[float]) -> Literal["less", "more", "same"]:
    """Whether ours is less or more than theirs in every round; "same" when the rounds disagree or are none."""
    if ratios and max(ratios) < 1:
        return "less"
    if ratios and min(ratios) > 1:
        return "more"
    return "same"
