"""Plots are well-formed, in both themes, and show every bar."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from bench.harness.plots import DARK, LIGHT, THEMES, Bar, Panel, Theme, draw

SVG = "{http://www.w3.org/2000/svg}"
PANEL = Panel(
    "a <row> & more",
    "µs per request",
    (Bar("multiloop", 5.0, "ours"), Bar("Node", 10.0, "peer"), Bar("f", 1.0, "floor")),
)


def bars(text: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(text).iter(f"{SVG}rect"))


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_a_bar_for_each_side_in_the_colour_of_its_role(theme: Theme) -> None:
    drawn = bars(draw([PANEL], theme, "title"))
    assert [bar.get("fill") for bar in drawn] == [theme.ours, theme.peer, theme.floor]
    widths = [float(bar.get("width", "0")) for bar in drawn]
    assert widths[0] * 2 == pytest.approx(widths[1])


def test_text_is_escaped_and_every_figure_is_written() -> None:
    texts = [element.text for element in ElementTree.fromstring(draw([PANEL], LIGHT, "a <title>")).iter(f"{SVG}text")]
    assert "a <row> & more" in texts
    assert {"5.00", "10.0", "1.00"} <= set(texts)


def test_panels_fill_two_columns_without_overlap() -> None:
    root = ElementTree.fromstring(draw([PANEL] * 5, DARK, "five"))
    assert (root.get("width"), root.get("height")) == ("860", str(3 * PANEL.height))
    places = [(bar.get("x"), bar.get("y")) for bar in root.iter(f"{SVG}rect")]
    assert len(set(places)) == 15
    assert all(float(bar.get("y", "0")) < 3 * PANEL.height for bar in root.iter(f"{SVG}rect"))


def test_a_bar_of_nothing_is_drawn_all_the_same() -> None:
    assert len(bars(draw([Panel("p", "µs", (Bar("a", 0.0, "ours"),))], LIGHT, "t"))) == 1


def test_nothing_is_not_drawn() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        draw([Panel("p", "µs", ())], LIGHT, "t")
