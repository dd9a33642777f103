"""Ball-arithmetic proof of a table's cuts (python-flint); knows the file format and nothing of the solver.

The look-up is sound if every node's stored c is an upper bound of H = E(L_r(u1) - a0 - a1 u1 - a2 u2)_+ for the stored
binary values: that, and nothing else about a node, is what is proven here. With s(t) = (L_r(t) - a0 - a1 t) / a2,
G(s) = s Phi(s) + phi(s),

    H = a2 int phi(t) G(s(t)) dt   (a2 > 0),

an integral of an entire function, enclosed by `acb.integral` over [-T, r + T]. Beyond, (L - a.(1, u))_+ <= L + a1 t_- + a2 (u2)_-,
so the tails are at most Q(T) + a2 phi(0) Q(r + T) on the right and Q(T + r) + a1 phi(T) + a2 phi(0) Q(T) on the left, Q = 1 - Phi.
"""

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from runtime.format import read_table, write_table
from runtime.progress import progress_bar

PRECISION = 80  # bits
TAIL = 10.5
METHOD = f"python-flint acb.integral at {PRECISION} bits, tails beyond {TAIL}"
BATCH = 500


@dataclass(frozen=True)
class Proof:
    """Outcome of a proof: how many nodes were tried, and the flat indices of those whose bound failed."""

    nodes: int
    failed: tuple[int, ...]
    whole: bool
    """Every node of the table was tried."""


def hinge_upper(r: float, a0: float, a1: float, a2: float) -> Any:
    """An upper bound of H as an exact arb ball of radius 0; the arguments are taken at their exact binary values."""
    from flint import acb, arb, ctx

    ctx.prec = PRECISION
    root2 = arb(2).sqrt()
    peak = 1 / (2 * arb.pi()).sqrt()

    def tail(x: Any) -> Any:
        return (x / root2).erfc() / 2

    def density(x: Any) -> Any:
        return peak * (-x * x / 2).exp()

    br, b0, b1, b2 = arb(r), arb(a0), arb(a1), arb(a2)
    if a2 == 0.0:
        return _line(br, b0, b1, tail, density).upper()
    cr, slope, level = acb(br), acb(b1 / b2), acb(b0 / b2)
    scale, complex_peak, complex_root2 = acb((-br * br / 2).exp() / b2), acb(peak), acb(root2)

    def integrand(t: Any, _analytic: bool) -> Any:
        s = scale * (cr * t).exp() - level - slope * t
        return (-t * t / 2).exp() * (s * (-s / complex_root2).erfc() / 2 + complex_peak * (-s * s / 2).exp())

    low, high = -arb(TAIL), br + arb(TAIL)
    body = acb.integral(integrand, acb(low), acb(high), rel_tol=2.0**-48, abs_tol=2.0**-60 / max(1.0, a2)).real * peak * b2
    right = tail(arb(TAIL)) + b2 * peak * tail(high)
    left = tail(br + TAIL) + b1 * density(arb(TAIL)) + b2 * peak * tail(arb(TAIL))
    return (body + left + right).upper()


def _line(r: Any, a0: Any, a1: Any, tail: Any, density: Any) -> Any:
    """H for a2 = 0: L_r > a0 + a1 t outside [w2, w1] only (L_r is convex); both edges are enclosed by bisection."""
    from flint import arb

    def gap(t: Any) -> Any:
        return (r * t - r * r / 2).exp() - a0 - a1 * t

    def edge(inside: Any, outside: Any) -> Any:
        for _ in range(PRECISION):
            middle = ((inside + outside) / 2).mid()
            value = gap(middle)
            if value > 0:
                outside = middle
            elif value < 0:
                inside = middle
            else:
                break
        return inside.union(outside)

    if not gap(arb(0)) < 0:
        raise ArithmeticError("a cut with a0 <= L_r(0): the origin must lie inside the slab")
    right = arb(1)
    while not gap(right) > 0:
        right = right * 2
    w1 = edge(arb(0), right)
    total = tail(w1 - r) - a0 * tail(w1) - a1 * density(w1)
    if a1 > 0:
        left = arb(-1)
        while not gap(left) > 0:
            left = left * 2
        w2 = edge(arb(0), left)
        total += tail(r - w2) - a0 * tail(-w2) + a1 * density(w2)
    return total


def _check(nodes: Sequence[tuple[int, float, float, float, float, float]]) -> list[int]:
    """Indices of the nodes (index, r, a0, a1, a2, c) whose c is not proven."""
    from flint import arb

    return [index for index, r, a0, a1, a2, c in nodes if not hinge_upper(r, a0, a1, a2) <= arb(c)]


def prove(path: str | os.PathLike[str], nodes: int | None = None, jobs: int = -1, seed: int | None = None) -> Proof:
    """Prove the table at `path`: all nodes, or a random sample of `nodes` (then the file is only read).

    A whole proof without failures is recorded in the file: data_version 1 and the attribute `proof`.

    Raises:
        FileNotFoundError, TableError: from reading the table.
        ValueError: nodes < 1.
        ImportError: python-flint is missing; install certlut[prove].
    """
    if nodes is not None and nodes < 1:
        raise ValueError(f"nodes = {nodes}: expected 1 or more")
    try:
        import flint
    except ImportError:
        raise ImportError("proving needs python-flint: pip install 'certlut[prove]'") from None
    path = Path(path)
    data = read_table(path)
    columns = [data.datasets[name].ravel().astype(np.float64).tolist() for name in ("radius", "a0", "a1", "a2", "c")]
    size = len(columns[0])
    whole = nodes is None or nodes >= size
    chosen = np.arange(size) if nodes is None or whole else np.random.default_rng(seed).choice(size, nodes, replace=False)
    tasks = [[(int(i), *(column[i] for column in columns)) for i in part] for part in _batches(chosen)]
    failed: list[int] = []
    with progress_bar("proving") as progress:
        results = joblib.Parallel(n_jobs=jobs, return_as="generator")(joblib.delayed(_check)(task) for task in tasks)
        for part in progress.track(results, total=len(tasks)):
            failed += part
    proof = Proof(len(chosen), tuple(failed), whole)
    if nodes is None and not failed:
        record = {
            "method": f"{METHOD}, python-flint {flint.__version__}",
            "nodes": size,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }
        write_table(path, replace(data, data_version=max(1, data.data_version), proof=record))
    return proof


def _batches(indices: np.ndarray[Any, np.dtype[np.int64]]) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    return np.array_split(indices, max(1, -(-len(indices) // BATCH)))
