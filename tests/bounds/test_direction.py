import itertools
import math
from collections.abc import Iterator

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from certlut.bounds.direction import dual_norm, joint, length, reach
from certlut.threats.projections import Projection, norm
from certlut.threats.sets import Ball

Array = npt.NDArray[np.float64]

DUALS = {1.0: math.inf, 1.5: 3.0, 2.0: 2.0, 3.0: 1.5, math.inf: 1.0}
seeds = st.integers(0, 2**32 - 1)


def part(rng: np.random.Generator, d: int, kind: str) -> Projection:
    if kind == "mask":
        mask = rng.random(d) < 0.6
        mask[rng.integers(d)] = True
        return Projection(mask=mask)
    if kind == "basis":
        return Projection(basis=np.linalg.qr(rng.standard_normal((d, int(rng.integers(1, d + 1)))))[0])
    return Projection()


def unit(x: Array) -> Array:
    return np.asarray(x / np.linalg.norm(x))


def kappa_of(by: Projection, d: int, p: float) -> float:
    return Ball("ball", p, by.mask, None if by.basis is None else by.basis.T.copy()).kappa(d)


def directions(rng: np.random.Generator, y: Array, by: Projection) -> Iterator[Array]:
    """What may be proposed: good, random, opposite, constant, sparse, across y, inside and outside the part."""
    d = len(y)
    yield unit(y + 0.2 * np.linalg.norm(y) * unit(rng.standard_normal(d)))
    yield unit(y)
    yield unit(rng.standard_normal(d))
    yield -unit(y)
    yield np.full(d, d**-0.5)
    yield np.eye(d)[int(rng.integers(d))]
    across = rng.standard_normal(d)
    yield unit(across - (across @ unit(y)) * unit(y) + 1e-9 * across)
    yield unit(by.embed(rng.standard_normal(d)) + 1e-12)
    outside = rng.standard_normal(d)
    yield unit(outside - by.embed(outside) + 1e-9 * outside)


# The dual norm


@settings(deadline=None, derandomize=True, max_examples=150)
@given(seeds, st.integers(1, 12), st.sampled_from(sorted(DUALS)), st.sampled_from(["all", "mask", "basis"]), st.floats(0.0, 1.0))
def test_the_dual_norm_is_never_above_its_bound(seed: int, d: int, p: float, kind: str, give: float) -> None:
    rng = np.random.default_rng(seed)
    by, spread = part(rng, d, kind), np.exp(rng.choice([0.0, 2.0]) * rng.standard_normal(d))
    y = rng.standard_normal(d) * spread * rng.choice([1.0, 0.02])
    truth = norm(by.embed(y), DUALS[p])
    for w in directions(rng, y, by):
        low, upper = float(w @ y) - give * rng.random() * 0.1, float(np.linalg.norm(y)) * (1.0 + give * rng.random() + 1e-15)
        bound = float(dual_norm(low, upper, reach(w, by, DUALS[p]), kappa_of(by, d, p)))
        assert truth <= bound
        assert bound <= kappa_of(by, d, p) * upper * (1.0 + 1e-14)


def farthest(w: Array, by: Projection, p: float) -> tuple[Array, float]:
    """The delta of the part with |delta|_p = 1 and |delta|_2 = kappa whose delta.w is largest, and that."""
    inside = by.embed(w)
    if p == 1.0:
        j = int(np.abs(inside).argmax())
        delta = np.sign(inside[j]) * np.eye(len(w))[j]
    elif p == 2.0:
        delta = unit(inside)
    else:
        delta = np.sign(inside)
    return delta, float(delta @ w)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(seeds, st.integers(2, 12), st.sampled_from([1.0, 2.0, math.inf]), st.booleans(), st.floats(0.0, 1.0))
def test_some_gradient_attains_the_bound(seed: int, d: int, p: float, masked: bool, share: float) -> None:
    rng = np.random.default_rng(seed)
    by, w, upper = part(rng, d, "mask" if masked else "all"), unit(rng.standard_normal(d)), float(rng.uniform(0.01, 0.4))
    low, kappa = share * upper, kappa_of(by, d, p)
    delta, beta = farthest(w, by, p)
    assert beta == pytest.approx(norm(by(w), DUALS[p]), rel=1e-12)
    assert np.linalg.norm(delta) == pytest.approx(kappa, rel=1e-12)
    y = upper * unit(delta)
    if w @ y < low:
        across = delta - beta * w
        y = low * w + math.sqrt(upper**2 - low**2) * across / max(float(np.linalg.norm(across)), 1e-300)
    assert np.linalg.norm(y) <= upper * (1.0 + 1e-12)
    assert w @ y >= low * (1.0 - 1e-12)
    bound = float(dual_norm(low, upper, reach(w, by, DUALS[p]), kappa))
    # A root of 2e-12 is the price of |w|_2 = 1 to 1e-12: a share of kappa * upper, however small the bound.
    assert bound - 3e-6 * kappa * upper <= delta @ y <= bound * (1.0 + 1e-12)
    assert delta @ y == pytest.approx(norm(by(y), DUALS[p]), rel=1e-5, abs=3e-6 * kappa * upper)


def highest(delta: Array, w: Array, low: float, upper: float) -> float:
    """The largest delta.y over w.y >= low, |y|_2 <= upper: the least of upper |delta + t w| - t low over t >= 0 (Lagrange)."""

    def value(s: float) -> float:
        t = math.tan(s)
        return upper * float(np.linalg.norm(delta + t * w)) - t * low

    found = minimize_scalar(value, bounds=(0.0, math.pi / 2 - 1e-6), method="bounded", options={"xatol": 1e-12})
    return min(float(found.fun), value(0.0))


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("kind", ["all", "mask"])
def test_the_bound_is_what_a_search_over_all_gradients_finds(p: float, kind: str) -> None:
    rng = np.random.default_rng([3, kind == "mask", round(min(p, 9.0))])
    for _ in range(5 if p == 2.0 else 25):
        d = int(rng.integers(2, 6))
        by, w, upper = part(rng, d, kind), unit(rng.standard_normal(d)), 0.3
        low = float(rng.uniform(0.0, 0.999)) * upper
        if p == 2.0:
            if by.rank(d) == 1:
                continue
            # delta matters through delta.w only: half a circle through w's part has them all.
            inside, other = unit(by.embed(w)), by.embed(rng.standard_normal(d))
            other = unit(other - (other @ inside) * inside)
            deltas = [math.cos(s) * inside + math.sin(s) * other for s in np.linspace(0.0, math.pi, 361)]
        elif p == 1.0:
            deltas = [sign * e for e in by.embed(np.eye(d)) if e.any() for sign in (-1.0, 1.0)]
        else:
            deltas = [by.embed(np.array(signs)) for signs in itertools.product((-1.0, 1.0), repeat=d)]
        found = max(highest(delta, w, low, upper) for delta in deltas)
        bound = float(dual_norm(low, upper, reach(w, by, DUALS[p]), kappa_of(by, d, p)))
        assert found <= bound * (1.0 + 1e-9)
        assert found >= bound * (1.0 - (5e-5 if p == 2.0 else 3e-6))


def test_closed_forms() -> None:
    rng = np.random.default_rng(4)
    y = rng.standard_normal(50)
    size, w = float(np.linalg.norm(y)), unit(y)
    for p, dual in DUALS.items():
        # The direction itself, and its length: the norm.
        assert float(dual_norm(size, size, reach(w, Projection(), dual), kappa_of(Projection(), 50, p))) == pytest.approx(
            norm(y, dual), rel=1e-5
        )
    # Of a part that w does not see, what w leaves of the length.
    assert float(dual_norm(0.3, 0.5, 0.0, 7.0)) == pytest.approx(7.0 * 0.4, rel=1e-11)
    # One coordinate: nothing is known of it but |y|_2.
    assert float(dual_norm(0.4, 0.5, 1.0, 1.0)) == pytest.approx(0.5, rel=1e-11)
    # A wrong direction says nothing.
    for low in (-1.0, -math.inf, math.nan):
        assert float(dual_norm(low, 0.5, 0.2, 3.0)) == float(dual_norm(0.0, 0.5, 0.2, 3.0))
        assert float(dual_norm(low, 0.5, 0.0, 3.0)) == pytest.approx(1.5, rel=1e-14)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(*[st.floats(0.0, 1.0)] * 4, st.integers(0, 3))
def test_the_bound_moves_one_way_in_every_argument(low: float, upper: float, share: float, more: float, which: int) -> None:
    kappa = 3.0
    before = [low, upper, share * kappa, kappa]
    after = list(before)
    after[which] += more * (1.0 if which != 2 else kappa - before[2])
    a, b = float(dual_norm(*before)), float(dual_norm(*after))
    assert a * (1.0 - 1e-14) <= b if which else b <= a * (1.0 + 1e-14)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.floats(-16.0, 0.0), st.floats(-16.0, 0.0), st.booleans(), st.booleans(), st.floats(-12.0, 0.0), st.floats(0.0, 3.0))
def test_the_bound_is_rounded_up(a: float, b: float, near: bool, far: bool, scale: float, log_kappa: float) -> None:
    upper, kappa = 10.0**scale, 10.0**log_kappa
    low = upper * (1.0 - 10.0**a if near else 10.0**a)
    beta = kappa * (1.0 - 10.0**b if far else 10.0**b)
    with mpmath.workdps(50):
        m, u, c, k = (mpmath.mpf(x) for x in (min(low, upper), upper, min(beta, kappa), kappa))
        exact = c * m + mpmath.sqrt(k**2 - c**2) * mpmath.sqrt(u**2 - m**2) if c * u <= k * m else k * u
        bound = mpmath.mpf(float(dual_norm(low, upper, beta, kappa)))
        assert exact <= bound <= exact * (1 + mpmath.mpf("1e-9")) + 2e-6 * mpmath.sqrt(k**2 - c**2) * u


def test_arrays_broadcast() -> None:
    low, beta = np.array([0.1, 0.2, -0.1]), np.array([[0.5], [2.0]])
    both = dual_norm(low, 0.3, beta, 4.0)
    assert both.shape == (2, 3)
    assert both[1, 0] == dual_norm(0.1, 0.3, 2.0, 4.0)


# Lengths


@settings(deadline=None, derandomize=True, max_examples=100)
@given(seeds, st.integers(1, 40), st.sampled_from(["all", "mask", "basis"]))
def test_no_direction_makes_the_gradient_longer(seed: int, d: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    y = rng.standard_normal(d) * 10.0 ** rng.uniform(-6.0, 0.0)
    by = part(rng, d, kind)
    inside, outside = by.embed(y), y - by.embed(y)
    for w in directions(rng, y, by):
        assert 0.0 <= length(w @ y, w @ y) <= np.linalg.norm(y)
        bounds = []
        for piece, of in ((by.embed(w), inside), (w - by.embed(w), outside)):
            if np.linalg.norm(piece) > 1e-6:
                mu = unit(piece) @ y
                bounds.append(float(length(mu, mu)))
                # Roundings across the part: |P y - y| is as good as |y| is.
                assert bounds[-1] <= np.linalg.norm(of) + 1e-9 * np.linalg.norm(y)
        if len(bounds) == 2:
            assert joint(*bounds) <= np.linalg.norm(y) * (1.0 + 1e-9)
    assert joint(np.linalg.norm(inside), np.linalg.norm(outside)) == pytest.approx(np.linalg.norm(y), rel=1e-12)


def test_the_length_is_that_of_the_better_side() -> None:
    low, high = [0.3, -0.5, -0.1, math.nan, -math.inf], [0.4, -0.2, 0.2, math.nan, math.inf]
    assert length(low, high) == pytest.approx([0.3, 0.2, 0.0, 0.0, 0.0])
    assert length(0.25) == pytest.approx(0.25, rel=1e-11)
    assert length(0.25) < 0.25
    assert length(math.nan, -0.2) == pytest.approx(0.2)
    assert joint(3.0, 4.0) == pytest.approx(5.0)
    assert joint(3.0, 4.0) < 5.0


def test_reach_is_the_dual_norm_of_what_the_part_sees() -> None:
    w = unit(np.array([1.0, -2.0, 2.0, 4.0]))
    by = Projection(mask=np.array([True, True, False, False]))
    assert reach(w, by, 1.0) == pytest.approx(0.6)
    assert reach(w, by, math.inf) == pytest.approx(0.4)
    assert reach(w, Projection(basis=np.eye(4)[:, 1:3]), 2.0) == pytest.approx(math.sqrt(8.0) / 5.0)
    assert reach(w, by, 1.0) > 0.6
