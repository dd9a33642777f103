"""Average certified radii by threat, sigma and estimator, with confidence intervals over the test inputs; Markdown, LaTeX, CSV.

An input that is wrong or abstains counts 0. Intervals are 95 % bootstrap percentiles over the inputs (their regions, where these
are crops), the same resamples for every column: they say how far another draw of test inputs might move the averages, the radii
themselves hold at level alpha anyway.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..threats.sets import L2, Ball, containment
from .gains_old import Columns
from .study import COMPARED, Study

Array = npt.NDArray[np.float64]

RESAMPLES = 4000
COVERAGE = 0.95


@dataclass(frozen=True)
class Row:
    """One threat at one sigma by one estimator, in input units."""

    sigma: float
    threat: str
    estimator: str
    inputs: int
    cohen: tuple[float, float, float]
    """(ACR, lower, upper) of the threat's ball inside Cohen's l2 ball."""
    ours: tuple[float, float, float]
    gain: tuple[float, float, float]
    """Of ours over Cohen's, in percent; NaN where Cohen certifies nothing."""


def pair(columns: Columns, threat: Ball, d: int) -> tuple[Array, Array]:
    """(our radius, Cohen's for this threat), 0 where wrong or abstained, each at its own level."""
    cohen = columns["correct_cohen"] * columns["radius_cohen"] / containment(threat, L2, d)
    return columns["correct"] * columns[f"radius_{threat.name}"], cohen


def rows(study: Study) -> list[Row]:
    """Every (sigma, threat, estimator) of a study."""
    out = []
    for sigma in study.config.sigma:
        for threat in study.threats:
            for estimator in COMPARED:
                columns = study.results[sigma, estimator]
                ours, cohen = pair(columns, threat, study.d)
                around = intervals(ours, cohen, study.regions, study.config.seed)
                out.append(Row(sigma, threat.name, estimator, len(ours), *around))
    return out


def intervals(ours: Array, cohen: Array, regions: npt.NDArray[np.int64], seed: int) -> tuple[tuple[float, float, float], ...]:
    """(mean, lower, upper) of Cohen's radii, of ours, and of the gain in percent; paired bootstrap over whole regions."""
    rng = np.random.default_rng([seed, 11])
    _, place = np.unique(regions, return_inverse=True)
    size, cohens, own = (np.bincount(place, weights) for weights in (np.ones(len(ours)), cohen, ours))
    chosen = rng.integers(len(size), size=(RESAMPLES, len(size)))
    c, o = (sums[chosen].sum(axis=1) / size[chosen].sum(axis=1) for sums in (cohens, own))
    tails = [(1.0 - COVERAGE) / 2.0, (1.0 + COVERAGE) / 2.0]

    def around(value: float, sample: Array) -> tuple[float, float, float]:
        low, high = np.quantile(sample, tails)
        return value, float(low), float(high)

    mean = float(cohen.mean())
    if mean <= 0.0:
        gain = (float("nan"),) * 3
    else:
        kept = c > 0
        gain = around(100.0 * (float(ours.mean()) / mean - 1.0), 100.0 * (o[kept] / c[kept] - 1.0))
    return around(mean, c), around(float(ours.mean()), o), gain


def resampled(inputs: int, regions: int) -> str:
    """What the intervals are over, in words."""
    return "the test inputs" if regions == inputs else f"the {regions} regions that the test inputs are cut from"


HEADINGS = ("sigma", "threat", "estimator", "gain %", "Cohen ACR", "first-order ACR")


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, the interval behind each number."""

    def interval(values: tuple[float, float, float], digits: int, sign: str = "") -> str:
        value, low, high = (format(x, f"{sign}.{digits}f") for x in values)
        return f"{value} [{low}, {high}]"

    # Four digits are few for linf in thousands of dimensions.
    digits = 4 if row.cohen[0] >= 0.05 else 5
    gain = "no radius" if np.isnan(row.gain[0]) else interval(row.gain, 2 if abs(row.gain[0]) < 1 else 1, "+")
    return (f"{row.sigma:g}", row.threat, row.estimator, gain, interval(row.cohen, digits), interval(row.ours, digits))


def markdown(table: Sequence[Row], origin: str) -> str:
    """A pipe table, and below it where its numbers come from."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---|---|---|---|---|---|"]
    return "\n".join([*lines, *("| " + " | ".join(cells(row)) + " |" for row in table), "", origin]) + "\n"


def latex(table: Sequence[Row], origin: str) -> str:
    """A tabular of the booktabs package; where its numbers come from is a comment."""
    head = " & ".join(HEADINGS).replace("%", r"\%").replace("sigma", r"$\sigma$")
    body = [" & ".join(cells(row)).replace("%", r"\%").replace("_", r"\_") + r" \\" for row in table]
    opening = [f"% {origin}", r"\begin{tabular}{rllrrr}", r"\toprule", head + r" \\", r"\midrule"]
    return "\n".join([*opening, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def comma_separated(table: Sequence[Row]) -> str:
    """Every number in a column of its own, at full precision."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    triples = [f"{name}{end}" for name in ("cohen", "ours", "gain_percent") for end in ("", "_low", "_high")]
    writer.writerow(["sigma", "threat", "estimator", "inputs", *triples])
    for row in table:
        writer.writerow([row.sigma, row.threat, row.estimator, row.inputs, *row.cohen, *row.ours, *row.gain])
    return file.getvalue()
