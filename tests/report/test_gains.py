import csv
import io
import math

import numpy as np
import pytest

from certlut.report.gains import HEADINGS, Row, cells, comma_separated, intervals, latex, markdown, pair
from certlut.threats.sets import LINF

ROWS = [
    Row(0.25, "l1", "paper", 50, (0.5, 0.4, 0.6), (0.6, 0.5, 0.7), (20.0, 15.0, 25.0)),
    Row(0.5, "my_part", "paper", 50, (0.01, 0.008, 0.012), (0.00995, 0.0079, 0.0119), (-0.5, -0.6, -0.4)),
    Row(1.0, "linf", "paper", 50, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (math.nan, math.nan, math.nan)),
]


def test_intervals_hold_the_means_and_have_the_known_width() -> None:
    rng = np.random.default_rng(100)
    cohen = rng.uniform(0.2, 1.0, 400)
    ours = 1.1 * cohen
    each = np.arange(400)
    c, o, g = intervals(ours, cohen, each, seed=0)
    assert c[0] == pytest.approx(cohen.mean())
    assert o[0] == pytest.approx(ours.mean())
    assert c[1] < c[0] < c[2]
    # Normal theory: 2 * 1.96 standard errors wide.
    assert c[2] - c[1] == pytest.approx(2 * 1.96 * cohen.std() / 20, rel=0.1)
    # Paired: a constant ratio has no spread.
    assert g == pytest.approx((10.0, 10.0, 10.0))
    assert intervals(ours, cohen, each, seed=0) == (c, o, g)


def test_inputs_of_one_region_are_drawn_together() -> None:
    rng = np.random.default_rng(101)
    cohen = np.repeat(rng.uniform(0.2, 1.0, 100), 4)
    regions = np.repeat(rng.permutation(100), 4)
    c, _, _ = intervals(cohen, cohen, regions, seed=0)
    assert c[0] == pytest.approx(cohen.mean())
    # Four copies of one radius say no more than one.
    assert c[2] - c[1] == pytest.approx(2 * 1.96 * cohen.std() / 10, rel=0.1)
    # Regions of different sizes weigh by their inputs, in the resamples as in the mean.
    uneven = np.concatenate([np.zeros(300, dtype=int), np.arange(1, 101)])
    c, _, _ = intervals(np.ones(400), np.ones(400), uneven, seed=0)
    assert c == (1.0, 1.0, 1.0)


def test_a_gain_over_nothing_is_not_a_number() -> None:
    _, _, gain = intervals(np.zeros(4), np.zeros(4), np.arange(4), 0)
    assert all(math.isnan(x) for x in gain)


def test_each_method_counts_its_own_right_inputs() -> None:
    columns = {
        "correct": np.array([1.0, 0.0, 0.0]),
        "correct_cohen": np.array([1.0, 1.0, 0.0]),
        "radius_linf": np.array([0.5, 0.0, 0.3]),
        "radius_cohen": np.array([0.8, 0.2, 0.6]),
    }
    ours, cohen = pair(columns, LINF, 4)
    assert ours.tolist() == [0.5, 0.0, 0.0]
    assert cohen.tolist() == [0.4, 0.1, 0.0]


def test_cells_show_losses_and_missing_radii() -> None:
    assert cells(ROWS[0]) == ("0.25", "l1", "paper", "+20.0 [+15.0, +25.0]", "0.5000 [0.4000, 0.6000]", "0.6000 [0.5000, 0.7000]")
    assert cells(ROWS[1])[3:5] == ("-0.50 [-0.60, -0.40]", "0.01000 [0.00800, 0.01200]")
    assert cells(ROWS[2])[3] == "no radius"


def test_markdown_latex_and_csv_hold_every_row() -> None:
    *lines, blank, last = markdown(ROWS, "n = 5 %.").splitlines()
    assert (blank, last) == ("", "n = 5 %.")
    assert len(lines) == 2 + len(ROWS)
    assert all(line.count("|") == len(HEADINGS) + 1 for line in lines)
    comment, text = latex(ROWS, "n = 5 %.").split("\n", 1)
    assert comment == "% n = 5 %."
    assert text.count(r" \\") == 1 + len(ROWS)
    assert r"gain \%" in text
    assert r"my\_part" in text
    assert text.startswith(r"\begin{tabular}{rllrrr}")
    read = list(csv.DictReader(io.StringIO(comma_separated(ROWS))))
    assert [float(row["ours"]) for row in read] == [0.6, 0.00995, 0.0]
    assert read[1]["gain_percent_low"] == "-0.6"
    assert read[0]["inputs"] == "50"
