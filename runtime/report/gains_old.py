"""From results to what a paper shows: certified accuracy against radius, average certified radius, and the gain over Cohen's."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from rich.table import Table as RichTable

from ..threats.sets import L2, Threat, containment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[np.float64]
Columns = Mapping[str, Array]


@dataclass(frozen=True)
class Gain:
    """Average certified radius (wrong or abstained inputs count 0) of one threat, ours and Cohen's, in input units."""

    threat: str
    ours: float
    cohen: float

    @property
    def percent(self) -> float:
        """By how much ours is above Cohen's."""
        return 100.0 * (self.ours / self.cohen - 1.0) if self.cohen > 0 else math.nan


def radius_pair(columns: Columns, threat: Threat, d: int) -> tuple[Array, Array]:
    """(our radius, the radius of this threat inside Cohen's l2 ball), 0 where the prediction is wrong or ours abstains."""
    cohen = columns["radius_cohen"] / containment(threat, L2, d)
    return columns["correct"] * columns[f"radius_{threat.name}"], columns["correct"] * cohen


def gains(columns: Columns, threats: Sequence[Threat], d: int) -> list[Gain]:
    """Average certified radii by threat."""
    pairs = {threat.name: radius_pair(columns, threat, d) for threat in threats}
    return [Gain(name, float(ours.mean()), float(cohen.mean())) for name, (ours, cohen) in pairs.items()]


def gain_table(results: Mapping[float, Columns], threats: Sequence[Threat], d: int) -> RichTable:
    """Average certified radii for every sigma, as a table for the terminal."""
    table = RichTable(title="average certified radius")
    for heading in ("sigma", "threat", "Cohen", "first order", "gain"):
        table.add_column(heading, justify="left" if heading == "threat" else "right")
    for sigma, columns in results.items():
        for gain in gains(columns, threats, d):
            table.add_row(f"{sigma:g}", gain.threat, f"{gain.cohen:.4f}", f"{gain.ours:.4f}", f"{gain.percent:+.1f} %")
        table.add_section()
    return table


def plot_curves(path: str | os.PathLike[str], results: Mapping[float, Columns], threats: Sequence[Threat], d: int) -> None:
    """Certified accuracy against radius: a column per threat, a line per sigma and method, to a PNG or SVG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(threats), 3.4), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, len(threats), sharey=True, squeeze=False)[0]
    for axis, threat in zip(axes, threats, strict=True):
        for number, (sigma, columns) in enumerate(results.items()):
            ours, cohen = radius_pair(columns, threat, d)
            for radius, style, label in ((cohen, "--", "Cohen"), (ours, "-", "first order")):
                x, y = accuracy_curve(radius)
                axis.plot(x, y, style, color=f"C{number}", label=rf"$\sigma$={sigma:g}, {label}", drawstyle="steps-pre")
        axis.set(title=threat.name, xlabel="radius", xlim=(0, None), ylim=(0, 1))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("certified accuracy")
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=120)


def accuracy_curve(radius: Array) -> tuple[Array, Array]:
    """(radii, share of inputs certified at that radius or more), radius 0 first; an uncertified input has radius 0."""
    x = np.concatenate(([0.0], np.sort(radius[radius > 0])))
    y = np.array([np.mean((radius > 0) & (radius >= level)) for level in x])
    return x, y
