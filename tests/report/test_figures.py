import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from certlut.report.figures import accuracy, growth_panels, plot_curves, slice_panels, threat_title
from certlut.report.growth import Curve
from certlut.report.page import Line, standalone, templates
from certlut.report.slices import Slice
from certlut.threats.declare import Subspace
from certlut.threats.sets import L1, L2, LINF

SVG = "{http://www.w3.org/2000/svg}"
CURVE = Curve(
    "c < d & e", (1000, 30_000), {"l1": {"paper": (1.0, 5.0), "tails": (2.0, 7.5)}, "l2": {"paper": (-0.1, 0.0)}}, {"l1": 9.0}
)
PIECE = Slice(0.9, 0.7, np.linspace(0, np.pi, 61), np.linspace(1.4, 2.0, 61))


def test_accuracy_by_hand() -> None:
    x, y = accuracy([np.array([0.5, 0.0, 0.2, 0.5])])
    assert x.tolist() == [0.0, 0.2, 0.5]
    assert y.tolist() == [0.75, 0.75, 0.5]


def test_accuracy_of_nothing_certified_is_0_at_0() -> None:
    x, y = accuracy([np.zeros(3)])
    assert (x.tolist(), y.tolist()) == ([0.0], [0.0])


def test_accuracy_agrees_with_counting() -> None:
    rng = np.random.default_rng(40)
    radius = np.where(rng.random(200) < 0.3, 0.0, np.round(rng.random(200), 2))
    x, y = accuracy([radius])
    assert np.all(np.diff(x) > 0.0)
    assert np.all(np.diff(y) <= 0.0)
    for level, share in zip(x, y, strict=True):
        assert share == sum(r > 0.0 and r >= level for r in radius.tolist()) / 200


def test_of_several_sets_the_best_counts_at_every_radius() -> None:
    x, y = accuracy([np.array([0.0, 0.2, 0.2]), np.array([0.5, 0.0, 0.1])])
    assert x.tolist() == [0.0, 0.1, 0.2, 0.5]
    assert y == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1 / 3])


RED = Subspace(np.array([True, True, False, False]), math.inf, "red")
RADII = {name: np.array([0.9, 0.4, 0.0]) for name in ("l1", "l2", "linf", "red", "cohen")}
METHODS = {"first order": RADII, "tails": {**RADII, "l1": np.array([1.2, 0.7, 0.0])}}


@pytest.mark.parametrize(("name", "magic"), [("curves.png", b"\x89PNG\r\n\x1a\n"), ("curves.svg", b"<?xml")])
def test_curves_are_drawn_to_a_file(name: str, magic: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    plot_curves(path, {0.25: METHODS, 0.5: METHODS}, (L1, L2, LINF, RED), 4)
    content = path.read_bytes()
    assert content.startswith(magic)
    assert len(content) > 10_000


def test_every_method_has_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    plot_curves("curves.png", {0.5: METHODS}, (L1, RED), 4)
    for axis, best in zip(drawn[0].axes, (1.2, 0.9), strict=True):
        lines = {str(line.get_label()).rpartition(", ")[2]: line for line in axis.lines}
        assert list(lines) == ["Cohen", "first order", "with tails"]
        # Dashes, dots, solid.
        assert len({str(line.get_linestyle()) + str(line._dash_pattern) for line in lines.values()}) == 3
        assert lines["with tails"].get_linestyle() == "-"
        assert max(lines["with tails"].get_xdata()) == best
        assert max(lines["first order"].get_xdata()) == 0.9


def test_one_threat_and_nothing_certified_can_be_drawn_too(tmp_path: Path) -> None:
    nothing = {name: np.zeros(3) for name in RADII}
    plot_curves(tmp_path / "curves.png", {0.5: {"tails": nothing}}, (L2,), 4)
    assert (tmp_path / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize("panels", [growth_panels([CURVE]), slice_panels([PIECE])], ids=["growth", "slice"])
def test_panels_are_labelled_svg_that_can_stand_together_on_a_page(panels: list) -> None:
    (panel,) = panels
    picture = templates().get_template("parts.html").module.picture
    root = ET.fromstring(picture(panel))
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert root.get("aria-label") == panel.alt
    assert root.get("viewBox", "").startswith("0 0 ")
    assert root.get("width") is None
    assert all(group.get("id") is None for group in root.iter(f"{SVG}g"))
    # Text stays text.
    assert len(list(root.iter(f"{SVG}text"))) > 4
    assert panel == (growth_panels([CURVE]) if "growth" in panel.name else slice_panels([PIECE]))[0]


def test_a_picture_alone_says_what_its_lines_mean_and_where_it_comes_from() -> None:
    (panel,) = growth_panels([CURVE])
    lines = [Line("l1 & l2", "#123456", "none"), Line("a < b", "red", "4 2")]
    root = ET.fromstring(standalone(panel, lines, "caption " * 40))
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert {"l1 & l2", "a < b"} <= set(words)
    assert " ".join(word for word in words if "caption" in str(word)) == " ".join(["caption"] * 40)
    _, _, width, height = map(float, root.get("viewBox", "").split())
    below = [text for text in root.iter(f"{SVG}text") if text.get("style") == "font: 7px sans-serif; fill: #333"]
    assert all(panel.height < float(text.get("y", "nan")) < height for text in below)
    assert width == panel.width
    title = root.find(f"{SVG}title")
    assert title is not None
    assert title.text == root.get("aria-label") == panel.alt


def test_a_panel_says_what_it_shows() -> None:
    assert "l1 +2.0 % to +7.5 %" in growth_panels([CURVE])[0].alt
    assert "n = 1,000 to 30,000" in growth_panels([CURVE])[0].alt
    alt = slice_panels([PIECE])[0].alt
    assert "disc of radius 1.282" in alt
    assert "1.400 against the gradient, 1.700 across it, 2.000 along it" in alt


def test_ticks_are_the_sampled_sizes() -> None:
    texts = [text.text for text in ET.fromstring(standalone(growth_panels([CURVE])[0], [], "")).iter(f"{SVG}text")]
    assert {"1k", "30k"} <= set(texts)


def test_titles() -> None:
    assert [threat_title(name) for name in ("l1", "red", "left")] == ["l1", "l2, red channel", "l2, left half"]
