"""The exact radius r(q, m1, m2) with its multipliers. Pure functions, no files, no tables."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from certlut.kernels.arrays import real, reals
from certlut.kernels.normal import density, upper_quantile

from .node import SLAB, TOLERANCE, Status, solve_node


@dataclass(frozen=True)
class Solution:
    """An exact radius (sigma = 1) with the multipliers (a0, a1, a2) of its cut.

    Examples:
        >>> from certlut.tablegen import solve
        >>> solution = solve(0.9, -0.1, 0.05)
        >>> solution.converged, solution.error < 1e-9, min(solution.multipliers) >= 0.0
        (True, True, True)
    """

    radius: float
    multipliers: tuple[float, float, float]
    status: Status
    error: float
    """Estimated relative error of `radius`."""
    iterations: int

    @property
    def converged(self) -> bool:
        """Whether `radius` may be used."""
        return self.status != Status.FAILED


def _check(q: float, m1: float, m2: float) -> tuple[float, float]:
    """(1 - q, Phi^-1(q)) of a valid node; ValueError that says which input is outside the domain, and why."""
    for name, x in (("q", q), ("m1", m1), ("m2", m2)):
        if not math.isfinite(x):
            raise ValueError(f"{name} = {x}: expected a finite number")
    if not 0.5 < q < 1.0:
        raise ValueError(f"q = {q!r}: expected 1/2 < q < 1 (at 1/2 or below there is no majority to certify)")
    if m2 < 0.0:
        raise ValueError(f"m2 = {m2!r}: expected m2 >= 0, it is a norm")
    eps = 1.0 - q
    z = upper_quantile(eps)
    length, rim = math.hypot(m1, m2), density(z)
    # Up to a few roundings of phi(z) the half-space itself is a valid node.
    if length >= rim and not (m2 <= SLAB * rim and 0.0 < -m1 <= rim * (1.0 + 1e-14)):
        raise ValueError(
            f"(m1, m2) = ({m1!r}, {m2!r}) has length {length:.17g}: no classifier with q = {q!r} has a gradient of length "
            f"phi(Phi^-1(q)) = {rim:.17g} or more"
        )
    return eps, z


def solve(q: float, m1: float, m2: float) -> Solution:
    """The exact first-order radius (docs/theory.md, sections 1 to 3) at one point, in units of sigma.

    Args:
        q: lower bound of the class's smoothed probability, 1/2 < q < 1.
        m1: lower bound of the gradient `sigma * grad g` along the direction of the perturbation (negative: away).
        m2: lower bound of its length across that direction, >= 0; `hypot(m1, m2) < phi(Phi^-1(q))`.

    Returns:
        A Solution whose status says how it was reached; FAILED where the search did not converge (its radius is then NaN).

    Raises:
        ValueError: an input outside the domain, named.

    Examples:
        >>> from certlut.tablegen import solve
        >>> round(solve(0.9, -0.1, 0.05).radius, 6)
        1.432488
    """
    q, m1, m2 = (real(name, x) for name, x in (("q", q), ("m1", m1), ("m2", m2)))
    eps, z = _check(q, m1, m2)
    if math.hypot(m1, m2) >= density(z):
        return Solution(z, (math.exp(0.5 * z * z), 0.0, 0.0), Status.HALF_SPACE, 1e-15, 0)
    a = np.empty(3)
    root = solve_node(eps, m1, m2, z, a)
    if not root.error <= TOLERANCE:
        return Solution(math.nan, (math.nan, math.nan, math.nan), Status.FAILED, math.inf, root.steps)
    return Solution(root.r, (float(a[0]), float(a[1]), float(a[2])), Status(root.status), root.error, root.steps)


def radius(q: npt.ArrayLike, m1: npt.ArrayLike, m2: npt.ArrayLike) -> float | npt.NDArray[np.float64]:
    """The exact first-order radius r(q, m1, m2), sigma = 1, to 1e-9 relative; arguments broadcast, scalars give a float.

    It converges from next to q = 1/2 up to Phi^-1(q) = 7.5, for gradients to within 1e-5 of the rim; closer to it, toward the
    gradient, the rounding of (q, m1, m2) itself may move the radius by more than that.

    Raises:
        ValueError: an input outside the domain (see `solve`).
        ArithmeticError: a point at which the solver did not converge; never a silent wrong number.

    Examples:
        >>> from certlut.tablegen import radius
        >>> radius([0.9, 0.99], -0.02, 0.0).round(4).tolist()
        [1.5874, 2.3728]
    """
    arrays = np.broadcast_arrays(*(reals(name, x) for name, x in (("q", q), ("m1", m1), ("m2", m2))))
    out = np.empty(arrays[0].shape)
    for index in np.ndindex(out.shape):
        node = [float(x[index]) for x in arrays]
        solution = solve(*node)
        if not solution.converged:
            raise ArithmeticError(f"no convergence at q = {node[0]!r}, m1 = {node[1]!r}, m2 = {node[2]!r}")
        out[index] = solution.radius
    return float(out[()]) if out.ndim == 0 else out
