"""What results files say over all their inputs: average certified radii, gains, certified accuracy; as table and CSV.

A wrong or abstaining input counts as 0 in averages and as uncertified at every radius. `average` and `gain` are those of gains.py.
A file holds Cohen's radius as 0 where ours abstains, and that is how it is counted here.
"""

import csv
import io
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from ..gains import average, gain
from ..kernels.arrays import Array, Mask
from .results import ABSTAIN, read_columns

LEVELS = 6


@dataclass(frozen=True)
class Results:
    """A results file, every radius of shape (N,); wrong and abstaining inputs keep theirs."""

    label: str
    right: Mask
    """Whether the certified class is the label."""
    abstained: int
    radius: dict[str, Array]
    """Threat -> ours."""
    cohen: dict[str, Array]
    """Threat -> Cohen's, of the threats for which the file tells."""

    def counted(self, radius: Array) -> Array:
        """0 where the input is not right."""
        return np.where(self.right, radius, 0.0)

    def accuracy(self, radius: Array, level: float) -> float:
        """Share of inputs that are right and certified at that radius or more."""
        return float(np.mean(self.right & (radius >= level)))


@dataclass(frozen=True)
class Row:
    """One threat of one file."""

    of: Results
    threat: str
    ours: float
    """Average certified radius."""
    cohen: float
    """Of his largest ball of the threat; NaN where the file does not tell."""
    gain: float
    """In percent."""


def read_results(path: str | os.PathLike[str], label: str | None = None) -> Results:
    """Read a results TSV: ours, Cohen et al.'s (idx label predict radius correct time), or any with `radius` and `correct`.

    Args:
        path: the file; columns that are none of ours are not looked at.
        label: what it is called; by default the file's name without its end.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such columns, no rows, or what is no number.
    """
    path = Path(path)
    columns = read_columns(path, lambda name: name in ("radius", "correct", "predict") or name.startswith(("radius_", "cohen_")))
    if missing := [name for name in ("radius", "correct") if name not in columns]:
        raise ValueError(f"{path}: no column {', '.join(missing)}; expected a TSV with idx, label, predict, radius, correct, time")
    if not len(columns["correct"]):
        raise ValueError(f"{path}: holds no inputs")
    radius = {name.removeprefix("radius_"): values for name, values in columns.items() if name.startswith("radius_")}
    baseline = radius.pop("cohen", None)
    if "l2" not in radius:
        radius = {"l2": columns["radius"]} | radius
    cohen = {}
    for name in radius:
        own = columns.get(f"cohen_{name}", None if name == "linf" else baseline)
        if own is not None:
            cohen[name] = own
    abstained = int(np.sum(columns["predict"] == ABSTAIN)) if "predict" in columns else 0
    return Results(label or path.stem, columns["correct"] == 1.0, abstained, radius, cohen)


def averages(results: Sequence[Results]) -> Iterator[Row]:
    """Every threat of every file: by threat, in the order of the files."""
    for threat in _threats(results):
        for one in results:
            if threat in one.radius:
                ours = average(one.counted(one.radius[threat]))
                cohen = average(one.counted(one.cohen[threat])) if threat in one.cohen else math.nan
                yield Row(one, threat, ours, cohen, float(gain(ours, cohen)))


def _threats(results: Sequence[Results]) -> list[str]:
    return list(dict.fromkeys(name for one in results for name in one.radius))


def levels(results: Sequence[Results], threat: str) -> list[float]:
    """Round radii from 0 to the largest that any of the files certifies, at most LEVELS + 1."""
    top = max((float(one.counted(one.radius[threat]).max()) for one in results if threat in one.radius), default=0.0)
    if not 0.0 < top < math.inf:
        return [0.0]
    unit = 10.0 ** math.floor(math.log10(top / LEVELS))
    step = next(m for m in (1.0, 2.0, 2.5, 5.0, 10.0, 20.0) if top <= (LEVELS + 0.5) * m * unit) * unit
    return [float(f"{k * step:.12g}") for k in range(1 + math.floor(top / step))]


def table(results: Sequence[Results], at: Sequence[float] = ()) -> Group:
    """For the terminal; `at`: the radii of certified accuracy, by default round ones for each threat."""
    many = len(results) > 1
    heads = [
        f"{one.label}: {len(one.right)} inputs, {one.right.sum()} certified right, "
        f"{len(one.right) - one.right.sum() - one.abstained} wrong, {one.abstained} abstain"
        for one in results
    ]
    means = RichTable(title="average certified radius", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("threat", *(["file"] if many else []), "Cohen", "ours", "gain"):
        means.add_column(heading, justify="left" if heading in ("threat", "file") else "right", no_wrap=True)
    for row in averages(results):
        digits = 4 if row.ours >= 0.05 else 5
        cohen = "" if math.isnan(row.cohen) else f"{row.cohen:.{digits}f}"
        percent = "" if math.isnan(row.gain) else f"{row.gain:+.1f} %"
        means.add_row(row.threat, *([row.of.label] if many else []), cohen, f"{row.ours:.{digits}f}", percent)
    shares = RichTable(title="certified accuracy at a radius", title_justify="left", box=SIMPLE_HEAD, show_header=False)
    for threat in _threats(results):
        radii = at or levels(results, threat)
        shares.add_row(threat, *(f"{level:g}" for level in radii), style="bold")
        for name, one, radius in _methods(results, threat):
            shares.add_row(f"  {name}", *(f"{one.accuracy(radius, level):.3f}" for level in radii))
    for column in shares.columns[1:]:
        column.justify = "right"
    return Group(*(Text(head, no_wrap=True) for head in heads), means, shares)


def _methods(results: Sequence[Results], threat: str) -> Iterator[tuple[str, Results, Array]]:
    """(name, its file, radii) of Cohen and of every file that certifies the threat; Cohen's only once where files share them."""
    seen: list[Array] = []
    for one in results:
        own = one.cohen.get(threat)
        if own is not None and not any(np.array_equal(own, other) for other in seen):
            seen.append(own)
            yield ("Cohen" if len(results) == 1 or not seen[1:] else f"Cohen, {one.label}"), one, own
        if threat in one.radius:
            yield one.label if len(results) > 1 else "ours", one, one.radius[threat]


def curves(results: Sequence[Results]) -> dict[str, list[tuple[str, Array]]]:
    """Threat -> (name, radii with 0 where wrong) of every line of a plot."""
    return {t: [(name, one.counted(radius)) for name, one, radius in _methods(results, t)] for t in _threats(results)}


def comma_separated(results: Sequence[Results], at: Sequence[float] = ()) -> str:
    """A line for each file, threat, method and radius: averages at full precision, certified accuracy at that radius."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["file", "threat", "method", "inputs", "average", "gain_percent", "radius", "certified_accuracy"])
    for row in averages(results):
        one, percent = row.of, "" if math.isnan(row.gain) else row.gain
        methods = [("ours", row.ours, percent, one.radius[row.threat])]
        if row.threat in one.cohen:
            methods.append(("cohen", row.cohen, "", one.cohen[row.threat]))
        for method, mean, above, radius in methods:
            for level in at or levels(results, row.threat):
                line = [one.label, row.threat, method, len(one.right), mean, above, level, one.accuracy(radius, level)]
                writer.writerow(line)
    return file.getvalue()
