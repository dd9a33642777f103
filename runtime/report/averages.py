"""Average certified radii by threat, sigma and method, with confidence intervals: for the terminal, Markdown, LaTeX, CSV.

Intervals are 95 % bootstrap percentiles over the test inputs (their regions, where these are crops), the same resamples for every
column: they say how far another draw of test inputs might move the averages, the radii themselves hold at level alpha anyway.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.table import Table as RichTable
from scipy.stats import bootstrap

from ..gains import Radii, average, gain, pair
from ..kernels.arrays import Array
from ..threats.sets import Threat
from .gains import METHODS, NAME

if TYPE_CHECKING:
    from .study import Study

RESAMPLES = 4000
COVERAGE = 0.95


class Interval(NamedTuple):
    """A value and the interval around it; NaN where there is none."""

    value: float
    low: float
    high: float

    def text(self, digits: int, sign: str = "") -> str:
        """The value, and its interval in brackets where it has one."""
        value, low, high = (format(x, f"{sign}.{digits}f") for x in self)
        return value if np.isnan(self.low) else f"{value} [{low}, {high}]"


NONE = Interval(np.nan, np.nan, np.nan)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One threat at one sigma by one method, average certified radii in input units."""

    sigma: float
    threat: str
    method: str
    inputs: int
    cohen: Interval
    """Of the threat's ball inside Cohen's l2 ball."""
    ours: Interval
    gain: Interval
    """Of ours over Cohen's, in percent; NaN where Cohen certifies nothing."""


def averages(study: "Study") -> list[Row]:
    """Every (sigma, threat, method) of a study."""
    out = []
    for sigma in study.config.sigma:
        for threat in study.threats:
            for method in METHODS:
                radii = study.results[sigma, method]
                if threat.name in radii:
                    ours, cohen = pair(radii, threat, study.d)
                    around = intervals(ours, cohen, study.regions, study.config.seed)
                    out.append(Row(sigma=sigma, threat=threat.name, method=method, inputs=len(ours), **around))
    return out


def intervals(ours: Array, cohen: Array, regions: npt.NDArray[np.int64], seed: int) -> dict[str, Interval]:
    """Averages "cohen" and "ours", and "gain" in percent; intervals by a paired bootstrap of whole regions, of one region none."""
    _, place = np.unique(regions, return_inverse=True)
    sizes = np.bincount(place).astype(np.float64)
    sums = np.stack([np.bincount(place, weights=radii) for radii in (cohen, ours)])
    means = {"cohen": average(cohen), "ours": average(ours)}
    percent = float(gain(means["ours"], means["cohen"]))
    if len(sizes) < 2:
        return {name: NONE._replace(value=value) for name, value in (means | {"gain": percent}).items()}

    def statistic(*columns: Array, axis: int) -> Array:
        cohens, own, size = (column.sum(axis=axis) for column in columns)
        return np.stack([cohens / size, own / size])

    rng = np.random.default_rng([seed, 11])
    drawn = bootstrap(
        (*sums, sizes), statistic, paired=True, n_resamples=RESAMPLES, confidence_level=COVERAGE, method="percentile", rng=rng
    )
    ends = zip(*drawn.confidence_interval, strict=True)
    out = {name: Interval(value, float(low), float(high)) for (name, value), (low, high) in zip(means.items(), ends, strict=True)}
    if np.isnan(percent):
        return out | {"gain": NONE}
    # A resample in which he certifies nothing has no gain.
    cohens, own = drawn.bootstrap_distribution
    low, high = np.nanquantile(gain(own, cohens), [(1.0 - COVERAGE) / 2.0, (1.0 + COVERAGE) / 2.0])
    return out | {"gain": Interval(percent, float(low), float(high))}


def resampled(inputs: int, regions: int) -> str:
    """What the intervals are over, in words."""
    return "the test inputs" if regions == inputs else f"the {regions} regions that the test inputs are cut from"


def terminal(results: Mapping[float, Mapping[str, Radii]], threats: Sequence[Threat], d: int) -> RichTable:
    """Averages by every method, and the last one's gain, for every sigma: sigma -> method -> radii. Without intervals."""
    table = RichTable(title="average certified radius")
    for heading in ("sigma", "threat", *(NAME[method] for method in ("cohen", *next(iter(results.values())))), "gain"):
        table.add_column(heading, justify="left" if heading == "threat" else "right")
    for sigma, methods in results.items():
        for threat in threats:
            pairs = [pair(radii, threat, d) for radii in methods.values()]
            cohen, *ours = map(average, (pairs[-1][1], *(own for own, _ in pairs)))
            table.add_row(
                f"{sigma:g}", threat.name, *(f"{x:.4f}" for x in (cohen, *ours)), f"{float(gain(ours[-1], cohen)):+.1f} %"
            )
        table.add_section()
    return table


HEADINGS = ("sigma", "threat", "method", "gain %", "Cohen ACR", "ACR")


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, the interval behind each number."""
    # Four digits are few for linf in thousands of dimensions.
    digits = 4 if row.cohen.value >= 0.05 else 5
    percent = "no radius" if np.isnan(row.gain.value) else row.gain.text(2 if abs(row.gain.value) < 1 else 1, "+")
    return (f"{row.sigma:g}", row.threat, row.method, percent, row.cohen.text(digits), row.ours.text(digits))


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
    writer.writerow(["sigma", "threat", "method", "inputs", *triples])
    for row in table:
        writer.writerow([row.sigma, row.threat, row.method, row.inputs, *row.cohen, *row.ours, *row.gain])
    return file.getvalue()
