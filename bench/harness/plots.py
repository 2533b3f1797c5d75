"""Bar charts as SVG, for a light and for a dark page. Pure: panels in, text out.

What lives here: the layout and the colours. What must not: which rows are shown, files.

Bars of a panel share one scale that begins at nothing; every bar has its figure beside it, so colour says only who is
who: us, a peer, or the floor beneath which nobody gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .model import Role
from .table import number

_COLUMN = 430
_LABEL = 182
_BARS = 168
_LINE = 20
_BAR = 12
_TITLE = 34
_GAP = 16
_FONTS = "system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"
_LONGEST_LABEL = 27  # letters, at 12 pixels


@dataclass(frozen=True, slots=True)
class Theme:
    """The colours of a page."""

    name: str
    text: str
    muted: str
    ours: str
    peer: str
    floor: str


LIGHT = Theme("light", "#1f2328", "#59636e", "#0b6bcb", "#a9b4c0", "#dfe4ea")
DARK = Theme("dark", "#e6edf3", "#9198a1", "#4c9bf5", "#626c77", "#383f47")
THEMES = (LIGHT, DARK)


@dataclass(frozen=True, slots=True)
class Bar:
    """One side."""

    label: str
    value: float
    role: Role


@dataclass(frozen=True, slots=True)
class Panel:
    """One row of the report."""

    title: str
    unit: str
    bars: tuple[Bar, ...]

    @property
    def height(self) -> int:
        """Pixels."""
        return _TITLE + _LINE * len(self.bars) + _GAP


def draw(panels: Sequence[Panel], theme: Theme, title: str) -> str:
    """One picture of two columns. Raises ValueError when there is nothing to draw."""
    if not any(panel.bars for panel in panels):
        raise ValueError("nothing to draw")
    left, right = _columns([panel for panel in panels if panel.bars])
    height = max(sum(panel.height for panel in column) for column in (left, right))
    width = _COLUMN * (2 if right else 1)
    body: list[str] = []
    for place, column in enumerate((left, right)):
        top = 0
        for panel in column:
            body += _panel(panel, place * _COLUMN, top, theme)
            top += panel.height
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"',
            f' role="img" aria-label="{escape(title, quote=True)}" font-family="{_FONTS}">',
            f"<title>{escape(title)}</title>",
            *body,
            "</svg>",
            "",
        )
    )


def _columns(panels: Sequence[Panel]) -> tuple[list[Panel], list[Panel]]:
    """Two columns, in reading order, the first at least as tall as the second."""
    if len(panels) == 1:
        return list(panels), []
    total = sum(panel.height for panel in panels)
    left: list[Panel] = []
    height = 0
    for panel in panels:
        if left and height + panel.height / 2 >= total / 2:
            break
        left.append(panel)
        height += panel.height
    return left, list(panels[len(left) :])


def _panel(panel: Panel, x: int, y: int, theme: Theme) -> list[str]:
    most = max(bar.value for bar in panel.bars) or 1.0
    lines = [
        f'<text x="{x}" y="{y + 14}" font-size="13" font-weight="600" fill="{theme.text}">{escape(panel.title)}</text>',
        f'<text x="{x}" y="{y + 28}" font-size="11" fill="{theme.muted}">{escape(panel.unit)}, less is better</text>',
    ]
    for place, bar in enumerate(panel.bars):
        top = y + _TITLE + place * _LINE
        width = max(1.0, bar.value / most * _BARS)
        colour = {"ours": theme.ours, "peer": theme.peer, "floor": theme.floor}[bar.role]
        weight = ' font-weight="600"' if bar.role == "ours" else ""
        lines += [
            _text(x + _LABEL - 8, top + 11, _fit(bar.label), f'text-anchor="end" fill="{theme.text}"{weight}'),
            f'<rect x="{x + _LABEL}" y="{top + 1}" width="{width:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>',
            _text(x + _LABEL + width + 6, top + 11, number(bar.value), f'fill="{theme.muted}"{weight}'),
        ]
    return lines


def _text(x: float, y: float, text: str, look: str) -> str:
    return f'<text x="{x:.1f}" y="{y}" font-size="12" {look}>{escape(text)}</text>'


def _fit(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"
