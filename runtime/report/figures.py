"""The report's pictures as SVG that can stand inline in one page: small panels, text as text, no fixed ids of groups."""

import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ..gains import Radii, pair
from ..kernels.arrays import Array
from ..threats.sets import Threat
from .gains import METHODS, NAME, OURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .growth import Curve
    from .samples import Spent
    from .slices import Slice
    from .study import Study

# Zeroth order green, first order blue, tails red; the line's style tells them apart without colour.
COLOUR = {"cohen": "#2e7d32", "paper": "#c2571a", "first order": "#1a56b0", "tails": "#a3201d"}
STYLE = {"cohen": (0, (4, 2)), "paper": (0, (6, 2, 1, 2)), "first order": (0, (1, 1)), "tails": "-"}
# l1, l2, linf, the subspace, a pixel, three pixels and brightness in the growth figure.
THREAT_COLOURS = ("#1a56b0", "#6b6b6b", "#c2571a", "#7b3fa0", "#a3201d", "#00838f", "#8a6d00")
RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "certlut",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555",
    "axes.labelcolor": "#222",
    "xtick.color": "#333",
    "ytick.color": "#333",
    "axes.grid": True,
    "grid.color": "#ddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.7,
}


@dataclass(frozen=True)
class Panel:
    """One picture, and what a reader who does not see it is told."""

    name: str
    alt: str
    width: float
    height: float
    drawing: str
    """What stands inside its <svg> element."""


def _panel(name: str, alt: str, draw: Callable[["Axes"], None], size: tuple[float, float] = (4.2, 2.9)) -> Panel:
    """Drawn in a rectangle of `size` inches, which are 72 units each."""
    file = io.StringIO()
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    _, _, text = file.getvalue().partition("<svg")
    _, _, text = text.partition(">")
    # Several pictures share a page: matplotlib numbers the ids of groups from 1 in each; those of clips and markers are hashes.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    width, height = (round(72.0 * inches, 2) for inches in size)
    return Panel(name, alt, width, height, text.rstrip().removesuffix("</svg>").strip())


def accuracy(radii: Sequence[Array]) -> tuple[Array, Array]:
    """(radii from 0 up, share of inputs certified at that radius or more): of several sets of radii the largest share.

    An uncertified input has radius 0, and does not count there either.
    """
    x = np.unique(np.concatenate([np.zeros(1), *radii]))
    shares = [np.array([np.mean((r > 0) & (r >= level)) for level in x]) for r in radii]
    return x, np.max(shares, axis=0)


def plot_curves(
    path: str | os.PathLike[str], results: Mapping[float, Mapping[str, Radii]], threats: Sequence[Threat], d: int
) -> None:
    """Certified accuracy against radius, sigma -> method -> radii: a panel per threat, a line per method, to PNG or SVG."""
    panels: dict[str, list[Line]] = {}
    for threat in threats:
        for number, (sigma, methods) in enumerate(results.items()):
            pairs = {method: pair(radii, threat, d) for method, radii in methods.items()}
            _, cohen = list(pairs.values())[-1]
            for method, radius in {"cohen": cohen, **{method: ours for method, (ours, _) in pairs.items()}}.items():
                line = Line(rf"$\sigma$={sigma:g}, {NAME[method]}", radius, STYLE[method], f"C{number}")
                panels.setdefault(threat.name, []).append(line)
    plot_lines(path, panels)


def plot_methods(path: str | os.PathLike[str], panels: Mapping[str, Sequence[tuple[str, Array]]]) -> None:
    """As `plot_lines`, of threat -> (name, radii); names that begin with Cohen are dashed, the others a colour each."""
    names = list(dict.fromkeys(name for lines in panels.values() for name, _ in lines))
    own = [name for name in names if not name.startswith("Cohen")]
    looks: dict[str, tuple[Any, str]] = {name: ("-", f"C{own.index(name)}") for name in own}
    looks |= {name: (STYLE["cohen"], f"{0.6 * k / len(names)}") for k, name in enumerate(name for name in names if name not in own)}
    plot_lines(path, {t: [Line(name, radius, *looks[name]) for name, radius in lines] for t, lines in panels.items()})


class Line(NamedTuple):
    """A curve of certified accuracy."""

    label: str
    radius: Array
    """0 where the input is not certified or wrong."""
    style: Any
    colour: str


def plot_lines(path: str | os.PathLike[str], panels: Mapping[str, Sequence[Line]]) -> None:
    """Certified accuracy against radius, a panel for each threat, at most four beside each other, to PNG, SVG or PDF."""
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.4 * rows), layout="constrained")
    axes: Sequence[Axes] = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axis, (threat, lines) in zip(axes, panels.items(), strict=False):
        for line in lines:
            x, y = accuracy([line.radius])
            # Down to 0 behind the largest radius.
            x, y = np.append(x, x[-1]), np.append(y, 0.0)
            axis.plot(x, y, ls=line.style, color=line.colour, label=line.label, drawstyle="steps-pre")
        axis.set(title=threat, xlabel="radius", xlim=(0, None), ylim=(0, 1))
        axis.grid(alpha=0.3)
    for empty in axes[len(panels) :]:
        empty.set_visible(False)
    axes[0].set_ylabel("certified accuracy")
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=120)


def accuracy_panels(study: "Study") -> list[Panel]:
    """Certified accuracy against radius, the upper envelope over sigma, a panel for each threat."""
    panels = []
    for threat in study.threats:
        radii: dict[str, list[Array]] = {"cohen": []}
        for sigma in study.config.sigma:
            for method in METHODS:
                result = study.results[sigma, method]
                if threat.name in result:
                    radii.setdefault(method, []).append(result[threat.name])
            radii["cohen"].append(pair(study.results[sigma, OURS], threat, study.d)[1])
        title = threat_title(threat.name)

        def draw(axis: "Axes", radii: Mapping[str, list[Array]] = radii, title: str = title) -> None:
            for method, sets in radii.items():
                x, y = accuracy(sets)
                # Down to 0 behind the largest radius.
                x, y = np.append(x, x[-1]), np.append(y, 0.0)
                axis.plot(x, y, ls=STYLE[method], color=COLOUR[method], drawstyle="steps-pre")
            axis.set(title=title, xlabel="radius", ylabel="certified accuracy", xlim=(0, None), ylim=(0, 1.02))

        ends = ", ".join(f"{NAME[m]} up to {max(float(r.max()) for r in sets):.3g}" for m, sets in radii.items())
        panels.append(_panel(f"accuracy_{threat.name}", f"Certified accuracy against {title} radius: {ends}.", draw))
    return panels


def threat_title(name: str) -> str:
    """A threat's name as a heading."""
    titles = {"left": "l2, left half", "red": "l2, red channel", "sparse1": "one pixel", "sparse3": "three pixels"}
    return titles.get(name, name)


def growth_panels(curves: Sequence["Curve"]) -> list[Panel]:
    """Gain against n, a panel for each curve: a colour for each threat, a line style for each method."""
    panels = []
    for number, curve in enumerate(curves):

        def draw(axis: "Axes", curve: "Curve" = curve) -> None:
            for colour, (threat, gains) in zip(THREAT_COLOURS, curve.gain.items(), strict=False):
                for method, values in gains.items():
                    axis.plot(curve.n, values, color=colour, ls=STYLE[method], marker="o" if method == OURS else ".", ms=3.5)
                if threat in curve.limit:
                    axis.axhline(curve.limit[threat], color=colour, lw=0.8, ls=(0, (6, 3)))
            axis.axhline(0.0, color="#555555", lw=0.8)
            axis.set(title=curve.label, xlabel="n", ylabel="gain over Cohen, %", xscale="log")
            axis.set_xticks(curve.n, [_short(n) for n in curve.n])
            axis.set_xticks([], minor=True)

        last = {threat: list(gains.values())[-1] for threat, gains in curve.gain.items()}
        said = "; ".join(f"{threat_title(threat)} {values[0]:+.1f} % to {values[-1]:+.1f} %" for threat, values in last.items())
        alt = f"Gain against n for {curve.label}, n = {curve.n[0]:,} to {curve.n[-1]:,}: {said}."
        panels.append(_panel(f"growth_{number}", alt, draw))
    return panels


def samples_panel(spent: "Spent") -> Panel:
    """Certified accuracy at one radius against the samples that it takes."""

    def draw(axis: "Axes") -> None:
        for points, label, colour in ((spent.decided, "with targets", COLOUR[OURS]), (spent.fixed, "n fixed", COLOUR["cohen"])):
            axis.plot(*zip(*points, strict=True), color=colour, marker="o", ms=3.5, label=label)
        axis.set(title=spent.title, xlabel="samples of an input, mean", ylabel="certified accuracy", xscale="log", ylim=(0, 1.02))
        axis.set_xticks([n for n, _ in spent.fixed], [_short(round(n)) for n, _ in spent.fixed])
        axis.set_xticks([], minor=True)
        axis.legend(fontsize="small", frameon=False)

    ends = [f"{share:.3f} with {n:,.0f} samples an input" for n, share in (spent.fixed[-1], spent.decided[-1])]
    alt = f"Certified accuracy at {spent.title} against samples: n fixed {ends[0]}; with targets {ends[1]}."
    return _panel("samples", alt, draw)


def _short(n: int) -> str:
    """30000 -> 30k, 1000000 -> 1M."""
    for unit, letter in ((10**6, "M"), (1000, "k")):
        if n % unit == 0:
            return f"{n // unit}{letter}"
    return str(n)


def slice_panels(slices: Sequence["Slice"]) -> list[Panel]:
    """Certified regions in the plane of the gradient (which points right), sigma = 1."""
    panels = []
    for number, piece in enumerate(slices):

        def draw(axis: "Axes", piece: "Slice" = piece) -> None:
            z = piece.z
            view = 1.9 * z
            x, y = -piece.radius * np.cos(piece.theta), piece.radius * np.sin(piece.theta)
            x, y = np.concatenate([x, x[::-1]]), np.concatenate([y, -y[::-1]])
            axis.fill(x, y, color=COLOUR["first order"], alpha=0.18, lw=0)
            axis.plot(x, y, color=COLOUR["first order"])
            turn = np.linspace(0.0, 2.0 * np.pi, 181)
            axis.fill(z * np.cos(turn), z * np.sin(turn), color=COLOUR["cohen"], alpha=0.25, lw=0)
            axis.plot(z * np.cos(turn), z * np.sin(turn), color=COLOUR["cohen"])
            axis.axvline(-z, color="#333333", ls="--", lw=1.1)
            axis.annotate("", (0.9 * z, 0.0), (0.0, 0.0), arrowprops={"arrowstyle": "->", "color": "#333333", "lw": 1.1})
            axis.set(xlim=(-view, view), ylim=(-view, view), aspect="equal", xticks=[-z, 0, z], yticks=[-z, 0, z])
            axis.set_xticklabels([f"{-z:.2f}", "0", f"{z:.2f}"])
            axis.set_yticklabels([f"{-z:.2f}", "0", f"{z:.2f}"])
            axis.set_title(f"q = {piece.q:g}, gradient {100 * piece.size:.0f} %", fontsize=9.5)

        across = float(np.interp(np.pi / 2, piece.theta, piece.radius))
        alt = (
            f"q = {piece.q:g}, gradient {100 * piece.size:.0f} % of the largest: zeroth-order disc of radius {piece.z:.3f}; "
            f"first-order region up to {piece.radius[0]:.3f} against the gradient, {across:.3f} across it, "
            f"{piece.radius[-1]:.3f} along it."
        )
        panels.append(_panel(f"slice_{number}", alt, draw, size=(2.7, 2.7)))
    return panels
