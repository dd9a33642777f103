"""The dual of the worst vote: a concave function of one multiplier a constraint, maximised by a safeguarded Newton method.

For ANY multipliers a (a_i >= 0 where E[f psi_i] >= b_i, <= 0 where it is <=, free where it is =), with Lam = sum a_i psi_i and the
likelihood ratio L of the shift,

    E[f L] >= a.b - E[(Lam - L)_+] = 1 - E[(L - Lam)_+] - a.(E psi - b) =: D(a)

since f (L - Lam) >= -(Lam - L)_+. D's gradient is b - E[f_a psi], f_a = 1{L <= Lam}; its Hessian lives on the edge of f_a. With L
left out, D_0(a) = -E[(-Lam)_+] - a.(E psi - b) > 0 proves that no f has the information (Farkas).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from certlut.kernels.arrays import Array

from .quadrature import ROUNDING

# No multiplier is sought beyond this over its constraint's scale: information that leaves a single f would let them grow for ever.
LIMIT = 1e7


@dataclass(frozen=True)
class Hinge:
    """The integrals over h = 1 - f_a at some multipliers, for m constraints."""

    value: float
    """E[(L - Lam)_+]."""
    moments: Array
    """E[h psi], shape (m,)."""
    hessian: Array
    """Second derivative of the value in a, shape (m, m): positive semidefinite; a guide only."""
    error: float
    """Bounds what quadrature and rounding add to `value`, an estimate for a general psi."""


class Hinges(Protocol):
    """One problem's integrals. `kappa` is 1, or 0 to leave the likelihood ratio out."""

    mean: Array
    """E psi, shape (m,)."""
    size: Array
    """sqrt(E psi^2), shape (m,): the scale of each constraint."""
    rounds: int
    """How often dividing the cells is worth while."""

    def cells(self) -> tuple[Array, Array]:
        """(E[psi; cell], E[L; cell]), shapes (m, n) and (n,), of the cells of a grid for the linear program."""

    def divide(self, *points: Array) -> None:
        """Divide the cells, where the edges at these multipliers are above all."""

    def __call__(self, a: Array, kappa: float = 1.0) -> Hinge:
        """The integrals at the multipliers a, shape (m,)."""


@dataclass(frozen=True)
class Levels:
    """The constraints' right-hand sides, and the signs that their multipliers may take."""

    level: Array
    low: Array
    """0 where the constraint is a lower bound, else -LIMIT over its scale; shape (m,)."""
    high: Array
    """0 where it is an upper bound, else LIMIT over its scale; shape (m,)."""


@dataclass(frozen=True)
class Optimum:
    """Where the search ended."""

    a: Array
    value: float
    """D(a), a lower bound whatever a is, up to `error`."""
    gap: float
    """Estimate of what is left to gain within the multipliers' bounds: half the squared Newton decrement."""
    beyond: float
    """And of what a multiplier at the end of its range might gain over another such range."""
    error: float
    """Of the hinge."""


def dual(hinges: Hinges, levels: Levels, a: Array) -> tuple[float, Array, Hinge]:
    """(D(a), its gradient, the integrals)."""
    hinge = hinges(a)
    against = hinges.mean - levels.level
    return 1.0 - hinge.value - float(a @ against), hinge.moments - against, hinge


def _newton(hessian: Array, gradient: Array, reach: float, damping: float) -> tuple[Array, float, float]:
    """(step, the damping it took to keep it within reach, half the squared decrement without damping)."""
    values, vectors = np.linalg.eigh(hessian)
    along = vectors.T @ gradient
    largest = max(float(values[-1]), 1e-30)
    # Flat directions count as barely curved, so that what is left to gain along them shows.
    curved = np.maximum(values, 1e-13 * largest)
    step = vectors @ (along / (curved + damping * largest))
    while float(np.abs(step).max()) > reach:
        damping = max(1e-8, 10.0 * damping)
        step = vectors @ (along / (curved + damping * largest))
    return np.asarray(step), damping, float(0.5 * np.sum(along * along / curved))


def maximise(hinges: Hinges, levels: Levels, start: Array, goal: float = 1e-13, limit: int = 60) -> Optimum:
    """Levenberg-Marquardt on D from `start`, inside the multipliers' bounds. The best point found is returned, converged or not."""
    scale = hinges.size
    a = np.clip(start, levels.low, levels.high)
    value, gradient, hinge = dual(hinges, levels, a)
    damping, gap, beyond = 0.0, math.inf, 0.0
    for _ in range(limit):
        largest = float(np.abs(a * scale).max())
        # A multiplier at its bound that the gradient pushes outwards stays there.
        free = ~(((a <= levels.low) & (gradient < 0.0)) | ((a >= levels.high) & (gradient > 0.0)))
        # A rounded Lam moves the edges, and with them the gradient.
        small = ROUNDING * (np.abs(hinges.mean) + np.abs(levels.level) + scale + largest * np.diag(hinge.hessian) / scale)
        pull = np.sign(gradient) * np.maximum(np.abs(gradient) - small, 0.0)
        beyond = float(np.abs(pull[~free]) @ np.abs(a[~free]))
        inner = hinge.hessian[np.ix_(free, free)] / np.outer(scale[free], scale[free])
        if not free.any():
            return Optimum(a, value, 0.0, beyond, hinge.error)
        move, damping, gap = _newton(inner, pull[free] / scale[free], 3.0 + 3.0 * largest, damping)
        if gap <= goal:
            break
        trial = a.copy()
        trial[free] += move / scale[free]
        trial = np.clip(trial, levels.low, levels.high)
        d = trial - a
        expected = float(gradient @ d - 0.5 * d @ hinge.hessian @ d)
        found = dual(hinges, levels, trial)
        noise = ROUNDING * (1.0 + float(np.abs(a) @ (np.abs(hinges.mean - levels.level) + np.abs(hinge.moments))))
        if expected > 0.0 and (found[0] - value > 0.1 * expected or (expected <= 100.0 * noise and found[0] >= value - noise)):
            a, (value, gradient, hinge) = trial, found
            damping = 0.0 if damping <= 1e-8 else 0.1 * damping
            if expected <= 10.0 * noise:
                break
        else:
            damping = max(1e-8, 10.0 * damping)
            if damping > 1e10:
                break
    return Optimum(a, value, gap, beyond, hinge.error)
