"""The command `certlut slice`: longitudinal slices of certified regions, by what is known of the vote."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from certlut.tablegen.framework import Constraint, Information

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


def _stored(path: Path, row: int, threat: str, alpha: float) -> tuple[dict[str, "Information"], str]:
    """(order 0 and 1 by the bounds of one input of a statistics file, its title): t runs along the threat's worst direction."""
    from certlut.tablegen.framework import Information, slope, slope_across, value

    from ..evaluate import evaluate
    from ..lookup.table import load
    from ..statistics.file import read_statistics

    if row < 0:
        raise ValueError(f"--row {row}: expected 0 or more")
    sampled = read_statistics(path, slice(row, row + 1))
    if not len(sampled.idx):
        raise ValueError(f"{path}: has no row {row}")
    found = {t.name: t for t in sampled.threats}
    if threat not in found:
        raise ValueError(f"--threat {threat!r}: expected one of those that {path} was sampled for, {', '.join(found)}")
    result = evaluate(sampled.statistics, sampled.threats, alpha, "adaptive", load())
    q = float(result.q_lower[0])
    if not q > 0.5:
        raise ValueError(f"{path}: row {row} abstains, its probability is only known to be above {q:.4g}")
    m1, m2 = (float(m[0]) for m in found[threat].cut(result.bounds, sampled.statistics.d))
    first = Information([value(q), slope(m1), slope_across(m2)])
    return {"order 0": Information([value(q)]), "order 1": first}, f"input {sampled.idx[0]}, {threat}: q >= {q:.4g}"


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

    from certlut.tablegen.framework import Information, region, value
    from certlut.tablegen.framework import tail as tail_of

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
        kinds, size, title = _orders(q, (slope, curvature, third)), slope or 0.0, f"q = {q:g}"
        known = [_pair("--tail", x, ":") for x in tail or ()]
        if known:
            tails = [tail_of(abs(tau), p, side=1 if tau >= 0 else -1) for tau, p in known]
            kinds[f"{len(known)} tails"] = Information([value(q), *tails])
    angle = np.linspace(0.0, turn, angles)
    first = kinds["order 0"]
    limit = 4.0 * float(region(first, [0.0])[0])
    if not limit > 0.0:
        raise ValueError("nothing is certified: the vote is not above 1/2")
    regions = [Region(name, angle, region(known, angle, limit)) for name, known in track(kinds.items(), "regions")]
    truth = [(np.array([t, t]), np.array([-99.0, 99.0])) for t in falls]
    for path in write([Row(title, regions, size, truth)], out):
        print(path)
