"""The command `certlut slice`: longitudinal slices of certified regions, by what is known of the vote."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from certlut.tablegen.framework import Constraint, Information

    from ..statistics.summary import Statistics
    from ..threats.sets import Threat

THRESHOLDS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5)


def _pair(option: str, text: str, between: str) -> tuple[float, float]:
    """Two numbers: "-2.5,-1" -> (-2.5, -1.0). ValueError that names the option."""
    try:
        first, second = (float(x) for x in text.split(between))
    except ValueError:
        raise ValueError(f"{option} {text!r}: expected two numbers with {between!r} between them") from None
    return first, second


def _orders(q: float, derivatives: Sequence[float | None]) -> dict[str, "Information"]:
    """By order, each with all the lower ones; an order that is not known ends the list."""
    from certlut.tablegen.framework import Information, hermite, slope_across, value

    constraints: list[Constraint] = [value(q)]
    out = {"order 0": Information(constraints)}
    for k, level in enumerate(derivatives, start=1):
        if level is None:
            break
        # The t axis is the gradient's: across it the vote is flat.
        constraints += [hermite(k, level), *([slope_across(0.0, "=")] if k == 1 else [])]
        out[f"order {k}"] = Information(constraints)
    return out


def _levels(q: float, derivatives: Sequence[float | None], tails: Sequence[str]) -> dict[str, "Information"]:
    """The orders known, and the vote with all tails."""
    from certlut.tablegen.framework import Information, tail, value

    kinds = _orders(q, derivatives)
    if tails:
        pairs = [_pair("--tail", text, ":") for text in tails]
        sides = [tail(abs(tau), p, side=1 if tau >= 0.0 else -1) for tau, p in pairs]
        kinds[f"{len(sides)} tails"] = Information([value(q), *sides])
    return kinds


def _against(intervals: Sequence[tuple[float, float]]) -> tuple[dict[str, "Information"], float, list[float]]:
    """(information of every kind, slope, the t at which the vote falls to 1/2) of f = 0 for t in the intervals, else 1."""
    import numpy as np
    from scipy.special import ndtr

    from certlut.tablegen.framework import Information, tail, value

    edges = [-math.inf, *(x for ends in sorted(intervals) for x in ends), math.inf]
    if any(not x <= y for x, y in itertools.pairwise(edges)):
        raise ValueError(f"--against: {edges[1:-1]} are not the ends of intervals apart from each other")
    left, right = edges[::2], edges[1::2]
    whole = _orders(0.0, (0.0, 0.0, 0.0))["order 3"].of(left, right)
    levels = [c.level for c in whole.constraints]
    kinds = _orders(levels[0], (levels[1], *levels[3:]))
    tails = [tail(tau, 0.0, side=side) for tau in THRESHOLDS for side in (1, -1)]
    kinds[f"{len(THRESHOLDS)} tails"] = Information([value(0.0), *tails]).of(left, right)
    t = np.linspace(-12.0, 12.0, 24001)
    vote = sum(ndtr(y - t) - ndtr(x - t) for x, y in zip(left, right, strict=True))
    return kinds, levels[1], t[:-1][(vote[:-1] >= 0.5) != (vote[1:] >= 0.5)].tolist()


def _stored(path: Path, row: int, name: str, alpha: float) -> tuple[dict[str, "Information"], str]:
    """(information by the bounds of one input of a statistics file, its title): t runs along a worst direction of the threat."""
    from certlut.tablegen.framework import Information, slope, slope_across, value

    from ..evaluate import evaluate
    from ..lookup.table import load
    from ..lookup.tails import load_tails
    from ..statistics.file import read_statistics

    if row < 0:
        raise ValueError(f"--row {row}: expected 0 or more")
    sampled = read_statistics(path, slice(row, row + 1))
    if not len(sampled.idx):
        raise ValueError(f"{path}: has no row {row}")
    found = {t.name: t for t in sampled.threats}
    if name not in found:
        raise ValueError(f"--threat {name!r}: expected one of those that {path} was sampled for, {', '.join(found)}")
    statistics, threat = sampled.statistics, found[name]
    result = evaluate(statistics, sampled.threats, alpha, "adaptive", load(), load_tails())
    q = float(result.q_lower[0])
    if not q > 0.5:
        raise ValueError(f"{path}: row {row} abstains, its probability is only known to be above {q:.4g}")
    m1, m2 = (float(m[0]) for m in threat.cut(result.bounds, statistics.d))
    # Toward the gradient m2 may be more than the gradient has across t (threats/lines.py).
    first = Information([value(q), slope(m1), slope_across(m2 if m1 <= 0.0 else 0.0)])
    kinds = {"order 0": Information([value(q)]), "order 1": first}
    if tails := _counted(statistics, threat, q, result.budget.tails):
        kinds[f"{len(tails)} tails"] = Information([value(q), *tails])
        kinds["order 1, tails"] = Information([*first.constraints, *tails])
    return kinds, f"input {sampled.idx[0]}, {name}: q >= {q:.4g}"


def _counted(statistics: "Statistics", threat: "Threat", q: float, levels: Mapping[str, float]) -> "list[Constraint]":
    """Tails along a direction of the threat's family; none where they were not counted, or its worst direction is not one of it."""
    import numpy as np
    from scipy.special import ndtr

    from certlut.tablegen.framework import tail

    from ..bounds.tails import tail_bounds

    by = threat.tails(statistics.d)
    if by is None or by.name not in levels or threat.kappa(statistics.d) > 1.0:
        return []
    counted, n = statistics.tails[by.name], statistics.n.sum(axis=1)
    p = tail_bounds(counted.largest, n, np.array([1.0 - q]), counted.thresholds, levels[by.name], counted.slack)[0]
    # What no classifier could exceed, or the threshold before has said, is left out.
    tells = p < np.minimum(np.append(1.0 - q, p[:-1]), ndtr(-counted.thresholds))
    # A family of one vector is a ray's: nothing was counted on its other side.
    sides = (1,) if by.family.vectors is not None and len(by.family.vectors) == 1 else (1, -1)
    pairs = zip(counted.thresholds[tells], p[tells], strict=True)
    return [tail(float(tau), float(x), side=side) for tau, x in pairs for side in sides]


def slice_(
    out: Annotated[Path, typer.Option("--out", help="Folder to write slice.svg, slice.png and slice.tsv in.")],
    q: Annotated[float | None, typer.Option("--q", help="The vote (order 0).")] = None,
    slope: Annotated[float | None, typer.Option(help="sigma times its slope along t, the gradient's axis (order 1).")] = None,
    curvature: Annotated[float | None, typer.Option(help="sigma^2 times its second derivative along t (order 2).")] = None,
    third: Annotated[float | None, typer.Option(help="sigma^3 times the third (order 3).")] = None,
    tail: Annotated[list[str] | None, typer.Option(help="TAU:P, P(vote against, t >= TAU) <= P; -TAU for t <= -TAU.")] = None,
    against: Annotated[
        list[str] | None, typer.Option(help="Instead of levels LOW,HIGH: the noise along t that votes against; inf is allowed.")
    ] = None,
    statistics: Annotated[Path | None, typer.Option(help="Or the bounds of one input of a statistics file.")] = None,
    row: Annotated[int, typer.Option(help="Which input of it, from 0.")] = 0,
    threat: Annotated[str, typer.Option(help="Which threat's direction t runs along.")] = "l2",
    alpha: Annotated[float, typer.Option(help="Probability that a bound is wrong.")] = 0.001,
    angles: Annotated[int, typer.Option(help="Directions in half a turn.")] = 37,
) -> None:
    """Draw what each kind of information certifies, in the plane of the gradient's axis and one across it; sigma = 1.

    \b
    Examples:
      certlut slice --against=-2.5,-1.2 --out slices
      certlut slice --q 0.9 --slope 0.1 --curvature -0.1 \\
        --tail 1.5:0.01 --tail=-1.5:0.03 --out slices
      certlut slice --statistics stats.h5 --row 3 --threat l1 --out slices
    """
    import numpy as np
    from rich.progress import track

    from certlut.tablegen.framework import region

    from ..report.regions import Region, Row, write

    if sum(x is not None for x in (q, against, statistics)) != 1:
        raise ValueError("expected exactly one of --q, --against and --statistics: where the levels come from")
    if angles < 2:
        raise ValueError(f"--angles {angles}: expected 2 or more")
    size, turn = 0.0, math.pi
    falls: list[float] = []
    if against is not None:
        kinds, size, falls = _against([_pair("--against", x, ",") for x in against])
        title = "against: " + ", ".join(against)
    elif statistics is not None:
        kinds, title = _stored(statistics, row, threat, alpha)
        # Known across the axis on one side only.
        turn, angles = 2.0 * math.pi, 2 * angles - 1
    else:
        assert q is not None
        kinds, size, title = _levels(q, (slope, curvature, third), tail or ()), slope or 0.0, f"q = {q:g}"
    angle = np.linspace(0.0, turn, angles)
    first = kinds["order 0"]
    limit = 4.0 * float(region(first, [0.0])[0])
    if not limit > 0.0:
        raise ValueError("nothing is certified: the vote is not above 1/2")
    regions = [Region(name, angle, region(known, angle, limit)) for name, known in track(kinds.items(), "regions")]
    truth = [(np.array([t, t]), np.array([-99.0, 99.0])) for t in falls]
    for path in write([Row(title, regions, size, truth)], out):
        print(path)
