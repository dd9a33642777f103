import math
from dataclasses import replace
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import pytest

from certlut.statistics.summary import BETS, SCALARS, Moments, Part, summarise
from certlut.threats.declare import Direction, Lp, Subspace
from certlut.threats.sets import ALL, L1, L2, complement
from reference.naive_statistics import slab
from reference.simulate import tallied, threats_of, unit


def test_summarise_by_hand() -> None:
    mask = np.array([[True, False], [False, True]])
    moments = Moments(
        np.array([2, 4]),
        np.array([1, 3]),
        np.array([[1.0, 2.0, 3.0, 4.0], [4.0, 0.0, -4.0, 8.0]]),
        np.array([[2.0, 0.0, 2.0, 0.0], [0.0, 8.0, 0.0, 8.0]]),
    )
    # X = (0, 2, 2, 4) / 2, Y = (4, -4, -4, 4) / 4.
    statistics = summarise([moments], (L2, Subspace(mask, 2, "red"), Direction([[0.0, 3.0], [0.0, 4.0]], "along")), 0.25)
    assert (len(statistics), statistics.sigma, statistics.d) == (1, 0.25, 4)
    assert statistics.count.tolist() == [[1, 3]]
    assert statistics.n.tolist() == [[2, 4]]
    pooled = np.array([4.0, -2.0, -2.0, 8.0]) / 6.0

    def fields(part: Part) -> list[float]:
        return [part.d, *(float(getattr(part, name)[0]) for name in ("inner", "x_l2_b", "l1", "linf"))]

    def norms(a: npt.NDArray[np.float64]) -> list[float]:
        return [np.abs(a).sum(), np.abs(a).max()]

    expected = {
        ALL: [4, 0.0, math.sqrt(6.0), *norms(pooled)],
        "red": [2, 2.0, 2.0, *norms(pooled[[0, 3]])],
        complement("red"): [2, -2.0, math.sqrt(2.0), *norms(pooled[[1, 2]])],
        "along": [1, 2.2 * 0.2, 2.2, *[abs(0.6 * pooled[1] + 0.8 * pooled[3])] * 2],
    }
    assert set(statistics.parts) == set(expected)
    for name, values in expected.items():
        assert fields(statistics.parts[name]) == pytest.approx(values, rel=1e-14, abs=1e-15)
    assert statistics.parts["along"].dot.tolist() == pytest.approx([0.6 * pooled[1] + 0.8 * pooled[3]], rel=1e-14)


def test_summarise_stacks_inputs_in_order() -> None:
    threats = threats_of(8)
    moments = tallied(slab(unit(8, 0), -0.8, 1.6), threats, 5, 80, 0)
    together = summarise(moments, threats, 1.0)
    assert len(together) == 5
    for i in (0, 3, 4):
        alone = summarise([moments[i]], threats, 1.0)
        assert alone.count.tolist() == together.count[i : i + 1].tolist()
        for name, part in alone.parts.items():
            for field in SCALARS:
                assert np.array_equal(getattr(part, field)[0], getattr(together.parts[name], field)[i], equal_nan=True)


def test_sums_at_the_chosen_b_and_bets_are_kept_beside_those_at_a_half() -> None:
    rng = np.random.default_rng(0)
    bets = {ALL: {kind: rng.random((2, BETS)) for kind in ("length", "half_low", "half_high", "top")}}
    sum_uf, sum_u = rng.standard_normal((2, 2, 3))
    moments = Moments(np.array([3, 5]), np.array([3, 4]), sum_uf, sum_u, 0.9, bets)
    part = summarise([moments], (L2, L1), 1.0).parts[ALL]
    x, y = ((sum_uf[i] - 0.9 * sum_u[i]) / moments.n[i] for i in range(2))
    pooled = (sum_uf - 0.9 * sum_u).sum(axis=0) / 8
    assert part.inner_b[0] == pytest.approx(x @ y, rel=1e-13)
    assert part.x_l2_b[0] == pytest.approx(np.linalg.norm(x), rel=1e-13)
    assert (part.l1_b[0], part.linf_b[0]) == pytest.approx((np.abs(pooled).sum(), np.abs(pooled).max()), rel=1e-13)
    assert part.inner[0] != part.inner_b[0]
    for kind, bet in bets[ALL].items():
        assert np.array_equal(getattr(part, kind), bet[None])
    assert part.along.shape == (1, 2, BETS)
    assert np.isnan(part.along).all()


@pytest.mark.parametrize("p", [1.5, 1.01, 1.001, 1.0 + 1e-9, 40.0])
def test_the_norm_of_any_exponent_is_right_where_powers_underflow(p: float) -> None:
    y = np.array([0.02, -0.01, 1e-5, 0.02])
    moments = Moments(np.ones(2, np.int64), np.ones(2, np.int64), np.stack([y, y]), np.zeros((2, 4)))
    part = summarise([moments], (L2, Lp(p, "power")), 1.0).parts["power"]
    dual = mpmath.mpf(p) / (mpmath.mpf(p) - 1)
    with mpmath.workdps(60):
        expected = mpmath.fsum(abs(mpmath.mpf(float(a))) ** dual for a in y) ** (1 / dual)
    assert part.norm_b[0] == pytest.approx(float(expected), rel=1e-12)
    assert part.norm_b[0] >= 0.02


@pytest.mark.parametrize("change", [{"key": "other"}, {"d": 3}, {"coordinates": 1}, {"dual": 1.5}, {"largest": 2}])
def test_a_part_that_is_not_the_threats_own_is_refused(change: dict[str, Any]) -> None:
    red = Subspace(np.array([True, True, False]), 2, "red")
    statistics = summarise(slab(unit(3, 1), -1.0, 2.0).moments(np.random.default_rng(2), 1, 50), [red], 1.0)
    statistics.check([red])
    edited = {**statistics.parts, "red": replace(statistics.parts["red"], **change)}
    with pytest.raises(ValueError, match="'red' was sampled with another mask"):
        replace(statistics, parts=edited).check([red])
