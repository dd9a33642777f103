import csv
import io
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from certlut.report.averages import HEADINGS, NONE, Interval, Row, cells, comma_separated, intervals, latex, markdown, terminal
from certlut.threats.sets import L1, L2


def row(sigma: float, threat: str, cohen: tuple[float, ...], ours: tuple[float, ...], gain: tuple[float, ...]) -> Row:
    return Row(
        sigma=sigma,
        threat=threat,
        method="paper",
        inputs=50,
        cohen=Interval(*cohen),
        ours=Interval(*ours),
        gain=Interval(*gain),
    )


ROWS = [
    row(0.25, "l1", (0.5, 0.4, 0.6), (0.6, 0.5, 0.7), (20.0, 15.0, 25.0)),
    row(0.5, "my_part", (0.01, 0.008, 0.012), (0.00995, 0.0079, 0.0119), (-0.5, -0.6, -0.4)),
    row(1.0, "linf", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), NONE),
]


def bounds(ours: np.ndarray, cohen: np.ndarray, regions: np.ndarray) -> tuple[Interval, Interval, Interval]:
    found = intervals(ours, cohen, regions, seed=0)
    assert list(found) == ["cohen", "ours", "gain"]
    return found["cohen"], found["ours"], found["gain"]


def test_intervals_hold_the_means_and_have_the_known_width() -> None:
    rng = np.random.default_rng(100)
    cohen = rng.uniform(0.2, 1.0, 400)
    ours = 1.1 * cohen
    each = np.arange(400)
    c, o, g = bounds(ours, cohen, each)
    assert c[0] == pytest.approx(cohen.mean())
    assert o[0] == pytest.approx(ours.mean())
    assert c[1] < c[0] < c[2]
    # Normal theory: 2 * 1.96 standard errors wide.
    assert c[2] - c[1] == pytest.approx(2 * 1.96 * cohen.std() / 20, rel=0.1)
    # Paired: a constant ratio has no spread.
    assert g == pytest.approx((10.0, 10.0, 10.0))
    assert bounds(ours, cohen, each) == (c, o, g)


def test_inputs_of_one_region_are_drawn_together() -> None:
    rng = np.random.default_rng(101)
    cohen = np.repeat(rng.uniform(0.2, 1.0, 100), 4)
    regions = np.repeat(rng.permutation(100), 4)
    c, _, _ = bounds(cohen, cohen, regions)
    assert c[0] == pytest.approx(cohen.mean())
    # Four copies of one radius say no more than one.
    assert c[2] - c[1] == pytest.approx(2 * 1.96 * cohen.std() / 10, rel=0.1)
    # Regions of different sizes weigh by their inputs, in the resamples as in the mean.
    uneven = np.concatenate([np.zeros(300, dtype=int), np.arange(1, 101)])
    c, _, _ = bounds(np.ones(400), np.ones(400), uneven)
    assert c == (1.0, 1.0, 1.0)


def test_a_gain_over_nothing_is_not_a_number() -> None:
    _, _, gain = bounds(np.zeros(4), np.zeros(4), np.arange(4))
    assert all(math.isnan(x) for x in gain)


def test_a_resample_without_cohens_radii_has_no_gain() -> None:
    # Of five inputs he certifies one: a third of the resamples miss it.
    cohen = np.array([0.5, 0.0, 0.0, 0.0, 0.0])
    c, o, gain = bounds(1.2 * cohen, cohen, np.arange(5))
    assert (c.low, o.low) == (0.0, 0.0)
    assert gain == pytest.approx((20.0, 20.0, 20.0))


def test_one_region_has_no_interval() -> None:
    found = bounds(np.array([1.2, 0.6]), np.array([1.0, 0.5]), np.zeros(2, dtype=int))
    for value, interval in zip((0.75, 0.9, 20.0), found, strict=True):
        assert interval == pytest.approx((value, math.nan, math.nan), nan_ok=True)
    only = replace(ROWS[0], gain=found[2], ours=found[1])
    assert cells(only)[3:] == ("+20.0", "0.5000 [0.4000, 0.6000]", "0.9000")


def test_intervals_are_the_resamples_percentiles_of_the_ratio_of_sums() -> None:
    rng = np.random.default_rng(102)
    regions = rng.integers(7, size=60)
    cohen, ours = rng.random(60), rng.random(60)
    drawn = np.random.default_rng([0, 11]).integers(7, size=(4000, 7))
    sums = [np.array([column[regions == i].sum() for i in range(7)]) for column in (cohen, ours, np.ones(60))]
    c, o, size = (column[drawn].sum(axis=1) for column in sums)
    for found, sample in zip(bounds(ours, cohen, regions), (c / size, o / size, 100 * (o / c - 1)), strict=True):
        assert found[1:] == pytest.approx(tuple(np.quantile(sample, [0.025, 0.975])), rel=1e-9)


def test_the_terminals_table_has_a_row_for_every_sigma_and_threat() -> None:
    radii = {"l1": np.array([1.2, 0.6, 0.0, 0.0]), "l2": np.array([0.9, 0.4, 0.0, 0.0]), "cohen": np.array([0.8, 0.4, 0.0, 0.0])}
    console = Console(width=100, record=True, file=io.StringIO())
    tails = {**radii, "l1": np.array([1.6, 0.8, 0.0, 0.0])}
    results = {sigma: {"first order": scaled(radii, sigma / 0.25), "tails": scaled(tails, sigma / 0.25)} for sigma in (0.25, 0.5)}
    console.print(terminal(results, (L1, L2), 4))
    text = console.export_text()
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line.startswith("│")]
    assert rows == [
        ["0.25", "l1", "0.3000", "0.4500", "0.6000", "+100.0 %"],
        ["0.25", "l2", "0.3000", "0.3250", "0.3250", "+8.3 %"],
        ["0.5", "l1", "0.6000", "0.9000", "1.2000", "+100.0 %"],
        ["0.5", "l2", "0.6000", "0.6500", "0.6500", "+8.3 %"],
    ]
    headings = next(line for line in text.splitlines() if "Cohen" in line)
    assert [cell.strip() for cell in headings.strip("┃").split("┃")] == [
        "sigma",
        "threat",
        "Cohen",
        "first order",
        "with tails",
        "gain",
    ]


def scaled(radii: dict[str, np.ndarray], factor: float) -> dict[str, np.ndarray]:
    return {name: factor * values for name, values in radii.items()}


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
