"""E[m h] of the half-space's prediction by brute sums over cells."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.special import ndtr

from certlut.kernels.normal import density
from certlut.sampling.cells import TOTAL, Law, law
from certlut.sampling.prediction import RHO_MAX, mean_along, mean_error, most_rho


def _exact(grid: Law, v: tuple[float, ...], z: float, rho: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """E[m h] over all cells of as many coordinates as v has."""
    r, m, p = float(grid.ratio), grid.mean, grid.weights / TOTAL
    k = grid.codes.astype(np.float64)
    axes = np.ix_(*[np.arange(len(k))] * len(v))
    s = sum(v[i] * k[axes[i]] / r for i in range(len(v)))
    h = ndtr((z + rho * s) / math.sqrt(1.0 - rho * rho))
    for axis in axes:
        h = h * p[axis]
    return np.array([(h * m[axes[i]]).sum() for i in range(len(v))])


@pytest.mark.parametrize("v", [(1.0,), (0.6, -0.8), (0.1, math.sqrt(0.99)), (math.sqrt(0.5), math.sqrt(0.5))])
@pytest.mark.parametrize("z", [-0.5, 0.3, 1.28, 3.0])
@pytest.mark.parametrize("ratio", [Fraction(13, 10), Fraction(2), Fraction(4), Fraction(8)])
def test_the_mean_is_within_its_error_and_the_correction_is_needed(v: tuple[float, ...], z: float, ratio: Fraction) -> None:
    grid, r = law(ratio), float(ratio)
    for rho in (most_rho(r), 0.5 * most_rho(r)):
        gap = _exact(grid, v, z, rho) - mean_along(r, z, rho, density(z)) * np.array(v)
        # Along every unit w.
        assert np.linalg.norm(gap) <= mean_error(r, len(v)) + 1e-15
        plain = _exact(grid, v, z, rho) - rho * density(z) * np.array(v)
        expected = rho**3 * density(z) * abs(z * z - 1.0) / (24.0 * r * r)
        assert np.linalg.norm(plain) == pytest.approx(expected, rel=0.3, abs=mean_error(r, len(v)) + 1e-15)


def test_the_error_is_not_needlessly_large() -> None:
    """At z = 0, where phi'''' is largest, the remainder comes near its bound (for v spread over coordinates it comes nearer)."""
    grid = law(Fraction(4))
    rho = most_rho(4.0)
    gap = abs(_exact(grid, (math.sqrt(0.5),) * 2, 0.0, rho) - mean_along(4.0, 0.0, rho, density(0.0)) * math.sqrt(0.5))
    assert np.linalg.norm(gap) > 0.5 * mean_error(4.0, 2)


def test_fine_grids_cost_nothing_and_coarse_ones_allow_no_slope() -> None:
    assert most_rho(1.0) == 0.0
    assert mean_error(1.0, 10**6) == 0.0
    assert most_rho(4.0) == most_rho(63.75) == RHO_MAX
    assert mean_error(63.75, 150_528) < 1e-10
    assert mean_error(4.0, 150_528) < 4e-6
