import xml.etree.ElementTree as ET

import numpy as np
import pytest

from certlut.report.figures import envelope, growth_panels, slice_panels, threat_title
from certlut.report.gains_old import accuracy_curve
from certlut.report.growth import Curve
from certlut.report.slices import Slice

SVG = "{http://www.w3.org/2000/svg}"
CURVE = Curve(
    "c < d & e", (1000, 30_000), {"l1": {"paper": (1.0, 5.0), "adaptive": (2.0, 7.5)}, "l2": {"paper": (-0.1, 0.0)}}, {"l1": 9.0}
)
PIECE = Slice(0.9, 0.7, np.linspace(0, np.pi, 61), np.linspace(1.4, 2.0, 61))


def test_the_envelope_is_the_best_noise_level_at_every_radius() -> None:
    x, y = envelope([np.array([0.0, 0.2, 0.2]), np.array([0.5, 0.0, 0.1])])
    assert x.tolist() == [0.0, 0.1, 0.2, 0.5]
    assert y == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1 / 3])


def test_the_envelope_of_one_is_its_accuracy_curve() -> None:
    radius = np.where(np.random.default_rng(1).random(30) < 0.3, 0.0, np.random.default_rng(2).random(30))
    x, y = envelope([radius])
    expected = dict(zip(*(a.tolist() for a in accuracy_curve(radius)), strict=True))
    assert dict(zip(x.tolist(), y.tolist(), strict=True)) == expected


@pytest.mark.parametrize("panels", [growth_panels([CURVE]), slice_panels([PIECE])], ids=["growth", "slice"])
def test_panels_are_labelled_svg_that_can_stand_together_on_a_page(panels: list) -> None:
    (panel,) = panels
    root = ET.fromstring(panel.svg)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert root.get("aria-label") == panel.alt
    assert root.get("viewBox", "").startswith("0 0 ")
    assert root.get("width") is None
    assert all(group.get("id") is None for group in root.iter(f"{SVG}g"))
    # Text stays text.
    assert len(list(root.iter(f"{SVG}text"))) > 4
    assert panel.svg == (growth_panels([CURVE]) if "growth" in panel.name else slice_panels([PIECE]))[0].svg


def test_a_panel_says_what_it_shows() -> None:
    assert "l1 +2.0 % to +7.5 %" in growth_panels([CURVE])[0].alt
    assert "n = 1,000 to 30,000" in growth_panels([CURVE])[0].alt
    alt = slice_panels([PIECE])[0].alt
    assert "disc of radius 1.282" in alt
    assert "1.400 against the gradient, 1.700 across it, 2.000 along it" in alt


def test_ticks_are_the_sampled_sizes() -> None:
    texts = [text.text for text in ET.fromstring(growth_panels([CURVE])[0].svg).iter(f"{SVG}text")]
    assert {"1k", "30k"} <= set(texts)


def test_titles() -> None:
    assert [threat_title(name) for name in ("l1", "red", "left")] == ["l1", "l2, red channel", "l2, left half"]
