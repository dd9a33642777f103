import io
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from certlut.report.gains_old import Gain, accuracy_curve, gain_table, gains, plot_curves, radius_pair
from certlut.threats.declare import Subspace
from certlut.threats.sets import L1, L2, LINF

D = 4
RED = Subspace(np.array([True, True, False, False]), math.inf, "red")
# Right, right, wrong although certified, abstained.
COLUMNS = {
    "correct": np.array([1.0, 1.0, 0.0, 0.0]),
    "radius_l1": np.array([1.2, 0.6, 9.0, 0.0]),
    "radius_l2": np.array([0.9, 0.4, 9.0, 0.0]),
    "radius_linf": np.array([0.5, 0.2, 9.0, 0.0]),
    "radius_red": np.array([0.6, 0.3, 9.0, 0.0]),
    "radius_cohen": np.array([0.8, 0.4, 9.0, 0.0]),
}


def test_accuracy_curve_by_hand() -> None:
    x, y = accuracy_curve(np.array([0.5, 0.0, 0.2, 0.5]))
    assert x.tolist() == [0.0, 0.2, 0.5, 0.5]
    assert y.tolist() == [0.75, 0.75, 0.5, 0.5]


def test_accuracy_curve_of_nothing_certified_is_0_at_0() -> None:
    x, y = accuracy_curve(np.zeros(3))
    assert (x.tolist(), y.tolist()) == ([0.0], [0.0])


def test_accuracy_curve_agrees_with_counting() -> None:
    rng = np.random.default_rng(40)
    radius = np.where(rng.random(200) < 0.3, 0.0, np.round(rng.random(200), 2))
    x, y = accuracy_curve(radius)
    assert np.all(np.diff(x) >= 0.0)
    assert np.all(np.diff(y) <= 0.0)
    for level, share in zip(x, y, strict=True):
        assert share == sum(r > 0.0 and r >= level for r in radius.tolist()) / 200


@pytest.mark.parametrize(
    ("threat", "factor"), [(L1, 1.0), (L2, 1.0), (LINF, 2.0), (RED, math.sqrt(2.0))], ids=["l1", "l2", "linf", "subspace"]
)
def test_a_wrong_prediction_has_no_radius_and_cohens_ball_holds_so_much_of_the_threat(threat: Subspace, factor: float) -> None:
    ours, cohen = radius_pair(COLUMNS, threat, D)
    assert ours.tolist() == [*COLUMNS[f"radius_{threat.name}"][:2], 0.0, 0.0]
    assert cohen.tolist() == pytest.approx([0.8 / factor, 0.4 / factor, 0.0, 0.0])


def test_gains_by_hand() -> None:
    l1, linf, red = gains(COLUMNS, (L1, LINF, RED), D)
    assert (l1.threat, linf.threat, red.threat) == ("l1", "linf", "red")
    assert (l1.ours, l1.cohen, l1.percent) == pytest.approx((0.45, 0.3, 50.0))
    assert (linf.ours, linf.cohen) == pytest.approx((0.175, 0.15))
    assert (red.ours, red.cohen) == pytest.approx((0.225, 0.3 / math.sqrt(2.0)))


def test_a_gain_over_nothing_has_no_percentage() -> None:
    assert math.isnan(Gain("l1", 0.5, 0.0).percent)
    assert Gain("l1", 0.5, 1.0).percent == -50.0


def test_the_table_of_gains_has_a_row_for_every_sigma_and_threat() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(gain_table({0.25: COLUMNS, 0.5: {name: 2.0 * values for name, values in COLUMNS.items()}}, (L1, L2), D))
    text = console.export_text()
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line.startswith("│")]
    assert rows == [
        ["0.25", "l1", "0.3000", "0.4500", "+50.0 %"],
        ["0.25", "l2", "0.3000", "0.3250", "+8.3 %"],
        ["0.5", "l1", "1.2000", "1.8000", "+50.0 %"],
        ["0.5", "l2", "1.2000", "1.3000", "+8.3 %"],
    ]


@pytest.mark.parametrize(("name", "magic"), [("curves.png", b"\x89PNG\r\n\x1a\n"), ("curves.svg", b"<?xml")])
def test_curves_are_drawn_to_a_file(name: str, magic: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    plot_curves(path, {0.25: COLUMNS, 0.5: COLUMNS}, (L1, L2, LINF, RED), D)
    content = path.read_bytes()
    assert content.startswith(magic)
    assert len(content) > 10_000


def test_one_threat_and_nothing_certified_can_be_drawn_too(tmp_path: Path) -> None:
    nothing = {name: np.zeros(3) for name in COLUMNS}
    plot_curves(tmp_path / "curves.png", {0.5: nothing}, (L2,), D)
    assert (tmp_path / "curves.png").stat().st_size > 1000
