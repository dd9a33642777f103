"""The figure of certified regions by kind of information."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from certlut.report.regions import Region, Row, figure, write

ANGLE = np.linspace(0.0, np.pi, 5)


def row(kinds: int = 3) -> Row:
    regions = [Region(f"order {k}", ANGLE, np.full(5, 1.0 + 0.25 * k)) for k in range(kinds)]
    return Row("q = 0.8413", regions, slope=0.2, truth=[(np.array([-1.6, -1.6]), np.array([-9.0, 9.0]))])


def test_half_a_turn_is_mirrored_and_a_whole_one_is_not() -> None:
    radius = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    t, s = Region("half", ANGLE, radius).outline()
    assert t[0] == t[-1] == 1.0
    assert s.max() == pytest.approx(-s.min()) == pytest.approx(3.0)
    assert t.min() == pytest.approx(-5.0)
    t, s = Region("whole", np.linspace(0.0, 2.0 * np.pi, 5), radius).outline()
    assert s.max() == pytest.approx(2.0)
    assert s.min() == pytest.approx(-4.0)


def test_every_kind_of_information_has_a_panel_on_the_rows_scale() -> None:
    drawn = figure([row(3), row(2)])
    # The shorter row is filled up with an empty place.
    assert [axis.get_title() for axis in drawn.axes] == ["order 0", "order 1", "order 2", "order 0", "order 1", ""]
    assert [axis.axison for axis in drawn.axes] == [True] * 5 + [False]
    assert {axis.get_xlim() for axis in drawn.axes[:5]} == {(-2.0, 2.0)}
    # Filled: the first region everywhere, its own over it.
    assert [len(axis.patches) for axis in drawn.axes[:3]] == [1, 2, 2]
    # Outlines: the first, its own, the second dashed; and the truth, dotted.
    assert [len(axis.lines) for axis in drawn.axes[:3]] == [2, 3, 4]


def test_the_files_hold_the_picture_and_its_numbers(tmp_path: Path) -> None:
    svg, png, tsv = write([row(), row(2)], tmp_path / "new", "regions")
    text = svg.read_text(encoding="utf-8")
    assert "order 2" in text
    assert "q = 0.8413" in text
    assert matplotlib.image.imread(png).shape[2] == 4
    lines = [line.split("\t") for line in tsv.read_text(encoding="utf-8").splitlines()]
    assert lines[0] == ["# q = 0.8413: degrees", "order 0", "order 1", "order 2"]
    assert lines[2] == ["45", "1", "1.25", "1.5"]
    assert len(lines) == 12
    # The same picture every time.
    again = write([row(), row(2)], tmp_path / "again", "regions")[0]
    assert again.read_text(encoding="utf-8") == text
