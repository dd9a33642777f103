"""Longitudinal slices of certified regions as in the paper's Figure 1: one panel for each kind of information, side by side."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..jobs.atomic import replacing
from ..kernels.arrays import Array
from .figures import COLOUR, RC

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Region:
    """A certified region in the plane of the axis t and one direction across it; sigma = 1."""

    name: str
    """The information: "order 2", say."""
    angle: Array
    """To the t axis, increasing, in [0, 2 pi]; shape (N,). Up to pi only: the other half is its mirror image."""
    radius: Array
    """Certified in that direction, shape (N,)."""

    def outline(self) -> tuple[Array, Array]:
        """(t, s) around the region, closed."""
        angle, radius = self.angle, self.radius
        if angle[-1] <= np.pi * (1.0 + 1e-9):
            angle, radius = np.append(angle, 2.0 * np.pi - angle[::-1]), np.append(radius, radius[::-1])
        angle, radius = np.append(angle, angle[0]), np.append(radius, radius[0])
        return radius * np.cos(angle), radius * np.sin(angle)


@dataclass(frozen=True)
class Row:
    """The panels of one classifier."""

    title: str
    regions: Sequence[Region]
    """The first is drawn in every panel, filled; the second as a dashed outline in those after it."""
    slope: float = 0.0
    """Of the smoothed vote along t: an arrow shows its sign."""
    truth: Sequence[tuple[Array, Array]] = ()
    """Lines (t, s) on which the vote itself is 1/2, where they are known: dotted."""


def _panel(axis: "Axes", row: Row, place: int, view: float) -> None:
    base = row.regions[0]
    if place:
        axis.fill(*row.regions[place].outline(), color=COLOUR["first order"], alpha=0.18, lw=0)
        axis.plot(*row.regions[place].outline(), color=COLOUR["first order"])
    if place > 1:
        axis.plot(*row.regions[1].outline(), color=COLOUR["first order"], ls=(0, (3, 2)), lw=1.0)
    axis.fill(*base.outline(), color=COLOUR["cohen"], alpha=0.25, lw=0)
    axis.plot(*base.outline(), color=COLOUR["cohen"])
    for line in row.truth:
        axis.plot(*line, color="#333", ls=":", lw=1.1)
    if row.slope:
        end = 0.45 * view * np.sign(row.slope)
        axis.annotate("", (end, 0.0), (0.0, 0.0), arrowprops={"arrowstyle": "->", "color": "#333", "lw": 1.1})
    axis.set(xlim=(-view, view), ylim=(-view, view), aspect="equal", xlabel="t")
    axis.set_title(row.regions[place].name, fontsize=9.5)


def figure(rows: Sequence[Row]) -> "Figure":
    """A row of panels a classifier, a panel a kind of information; all of one row on one scale, twice its largest disc.

    The zeroth-order region is green, those of more information blue; dashed, for comparison, the second region of the row.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(RC):
        most = max(len(row.regions) for row in rows)
        drawn = Figure(figsize=(2.3 * most, 2.55 * len(rows)), layout="constrained")
        axes = drawn.subplots(len(rows), most, squeeze=False)
        for row, line in zip(rows, axes, strict=True):
            view = 2.0 * float(row.regions[0].radius.max())
            for place, axis in enumerate(line):
                if place < len(row.regions):
                    _panel(axis, row, place, view)
                else:
                    axis.set_axis_off()
            line[0].set_ylabel(f"{row.title}\ns")
        return drawn


def write(rows: Sequence[Row], out: str | os.PathLike[str], stem: str = "slice") -> list[Path]:
    """Write `stem`.svg, .png and .tsv (a line a direction, a column a region) to the folder `out`; returns the paths."""
    import matplotlib

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}.{ending}" for ending in ("svg", "png", "tsv")]
    with matplotlib.rc_context(RC):
        drawn = figure(rows)
        for path in paths[:2]:
            with replacing(path) as file:
                drawn.savefig(file, format=path.suffix[1:], dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    lines = []
    for row in rows:
        lines.append("\t".join([f"# {row.title}: degrees", *(region.name for region in row.regions)]))
        for place, angle in enumerate(row.regions[0].angle):
            lines.append("\t".join([f"{np.degrees(angle):.6g}", *(f"{region.radius[place]:.9g}" for region in row.regions)]))
    with replacing(paths[2]) as file:
        file.write(("\n".join(lines) + "\n").encode())
    return paths
