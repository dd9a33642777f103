"""The command `certlut slice`."""

import math
from pathlib import Path

import numpy as np
import pytest
import typer
from scipy.special import ndtri
from scipy.stats import beta
from typer.testing import CliRunner

from certlut.certify import ABSTAIN
from certlut.cli.slices import slice_
from certlut.statistics.file import Sampled, read_statistics, write_statistics
from certlut.statistics.summary import Moments, summarise
from certlut.statistics.votes import Tail
from certlut.tablegen import radius
from certlut.tablegen.framework import Information, tail, value
from certlut.tablegen.framework import radius as radius_along
from certlut.threats.declare import Direction
from certlut.threats.families import families
from certlut.threats.sets import L1

DATA = Path(__file__).resolve().parents[1] / "data"
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(slice_)


def run(folder: Path, *arguments: str) -> tuple[list[str], np.ndarray]:
    """(the kinds of information, degrees and radii): from the written table."""
    result = CliRunner().invoke(app, [*arguments, "--out", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert (folder / "slice.svg").is_file()
    assert (folder / "slice.png").is_file()
    head, *lines = (folder / "slice.tsv").read_text(encoding="utf-8").splitlines()
    return head.split("\t")[1:], np.array([[float(x) for x in line.split("\t")] for line in lines])


def test_levels_give_a_region_for_every_order_and_for_tails(tmp_path: Path) -> None:
    levels = ["--q", "0.9", "--slope", "0.1", "--curvature=-0.1", "--third=0.05", "--tail", "1.5:0.01", "--tail=-1.5:0.03"]
    kinds, table = run(tmp_path, *levels, "--angles", "3")
    assert kinds == ["order 0", "order 1", "order 2", "order 3", "2 tails"]
    assert table[:, 0].tolist() == [0.0, 90.0, 180.0]
    assert table[:, 1] == pytest.approx(float(ndtri(0.9)), rel=1e-8)
    # More orders certify more; the t axis runs along the gradient, against which the region ends first.
    assert (np.diff(table[:, 1:5], axis=1) >= -1e-8).all()
    assert table[2, 2] == pytest.approx(float(radius(0.9, -0.1, 0.0)), rel=1e-7)
    assert table[1, 2] == pytest.approx(float(radius(0.9, 0.0, 0.1)), rel=1e-7)
    assert (table[:, 5] >= table[:, 1] * (1.0 - 1e-9)).all()


def test_votes_against_in_an_interval_give_their_own_levels(tmp_path: Path) -> None:
    kinds, table = run(tmp_path, "--against=-inf,-1.5", "--angles", "2")
    assert kinds[-1] == "6 tails"
    # A half-space: every kind of information is as good as the vote alone, and the truth.
    assert table[1, 1:] == pytest.approx(1.5, rel=1e-6)


def test_a_statistics_file_gives_its_bounds(tmp_path: Path) -> None:
    path = DATA / "statistics_2.h5"
    sampled = read_statistics(path)
    row = int(np.argmax(sampled.statistics.count.sum(axis=1)))
    assert sampled.predict[row] != ABSTAIN
    kinds, table = run(tmp_path, "--statistics", str(path), "--row", str(row), "--threat", "l1", "--angles", "2")
    assert kinds == ["order 0", "order 1"]
    assert table[:, 0].tolist() == [0.0, 180.0, 360.0]
    assert (table[:, 2] >= table[:, 1] * (1.0 - 1e-9)).all()
    assert table[0, 2] == pytest.approx(table[2, 2])


def test_a_statistics_files_tails_count_on_the_sides_they_were_counted_on(tmp_path: Path) -> None:
    # Votes against: the last coordinate beyond 2.1, where the first is beyond .5.
    n, axis = 20_000, np.eye(4)[3]
    thresholds = np.array([1.0, 2.0, 2.5, 2.8])
    u = np.random.default_rng(0).standard_normal((2, n // 2, 4))
    f = (u[..., 3] < 2.1) | (u[..., 0] < 0.5)
    threats = (L1, Direction(axis, "ray"))
    largest = (~f[..., None] & (u[..., 3:] > thresholds)).sum(axis=(0, 1))[None]
    counted = {name: Tail(family.key, thresholds, largest) for name, family in families(threats, 4).items()}
    moments = Moments(np.full(2, n // 2), f.sum(axis=1), (u * f[..., None]).sum(axis=1), u.sum(axis=1), tails=counted)
    column = np.zeros(1, dtype=np.int64)
    path = tmp_path / "statistics.h5"
    write_statistics(path, Sampled(summarise([moments], threats, 0.5), column, column, column, column * 0.0, {}, threats))
    kinds, both = run(tmp_path, "--statistics", str(path), "--threat", "l1", "--angles", "2", "--alpha", "0.01")
    # Beyond 1 and 2 there are as many as in all: nothing is told.
    assert kinds == ["order 0", "order 1", "4 tails", "order 1, tails"]
    assert both[:, 3] == pytest.approx(np.full(3, both[0, 3]), rel=1e-7)
    assert 1.05 * both[0, 1] < both[0, 3] <= both[0, 4] * (1.0 + 1e-9)
    kinds, one = run(tmp_path, "--statistics", str(path), "--threat", "ray", "--angles", "2", "--alpha", "0.01")
    assert kinds[2] == "2 tails"
    # Counted where t grows; on the other side only the vote is known.
    assert one[1, 3] == pytest.approx(one[1, 1], rel=1e-7)
    assert one[0, 3] > 1.05 * one[0, 1]
    # Tails take 5 % of alpha, the gradient 10: shared by two families, and by four thresholds.
    levels = [0.01 * 0.85, *([0.01 * 0.05 / 2 / 4] * 2)]
    eps, *p = beta.ppf(1.0 - np.array(levels), (counts := np.array([(~f).sum(), *largest[0, 2:]])) + 1, n - counts)
    expected = Information([value(1.0 - eps), *(tail(*pair) for pair in zip(thresholds[2:].tolist(), p, strict=True))])
    assert one[0, 3] == pytest.approx(radius_along(expected), rel=1e-7)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "exactly one of --q, --against and --statistics"),
        (["--q", "0.9", "--against", "1,2"], "exactly one of --q, --against and --statistics"),
        (["--q", "0.4"], "not above 1/2"),
        (["--q", "0.9", "--angles", "1"], "--angles 1"),
        (["--q", "0.9", "--tail", "1.5"], "--tail '1.5': expected two numbers with ':'"),
        (["--against", "2,1"], "not the ends of intervals apart"),
        (["--q", "0.9", "--slope", "0.9"], "no classifier has the information"),
        (["--statistics", str(DATA / "statistics_2.h5"), "--row", "99999"], "has no row 99999"),
        (["--statistics", str(DATA / "statistics_2.h5"), "--threat", "l7"], "--threat 'l7'"),
    ],
)
def test_what_cannot_be_drawn_is_an_error_that_says_why(arguments: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)], catch_exceptions=False)


def test_the_truth_is_where_the_vote_falls() -> None:
    from certlut.cli.slices import _against

    kinds, slope, falls = _against([(-math.inf, -1.0), (2.0, math.inf)])
    assert falls == pytest.approx([-1.0, 2.0], abs=0.06)
    assert slope > 0.0
    assert [c.name for c in kinds["order 1"].constraints] == ["value", "slope", "slope_across"]
