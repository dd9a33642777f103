"""certlut.kernels.normal against 50-digit arithmetic."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certlut.kernels.normal import densities, density, upper, upper_quantile
from reference import naive

EXACT = settings(deadline=None, derandomize=True, max_examples=150)


@EXACT
@given(st.floats(-37.0, 37.0))
def test_density_is_exact_up_to_the_rounding_of_its_exponent(x: float) -> None:
    assert abs(density(x) / naive.mp_density(x) - 1) <= 2e-16 * (2.0 + x * x)


def test_densities_are_those_of_the_kernel_in_any_shape() -> None:
    x = np.random.default_rng(4).uniform(-37.0, 37.0, (7, 30))
    out = densities(x)
    assert out.shape == x.shape
    assert np.allclose(out, np.vectorize(density)(x), rtol=1e-15, atol=0.0)
    assert densities(1).dtype == np.float64
    assert densities([0.0, 0.0])[1] == density(0.0)


@EXACT
@given(st.floats(-9.0, 37.0))
def test_upper_is_relatively_exact_in_the_right_tail(x: float) -> None:
    assert abs(upper(x) / naive.mp_upper(x) - 1) <= 2e-16 * (2.0 + x * x)


def test_the_two_tails_add_up_to_one() -> None:
    for x in np.random.default_rng(5).uniform(0.0, 9.0, 200):
        assert abs(upper(x) + upper(-x) - 1.0) <= 3e-16


@EXACT
@given(st.floats(-300.0, math.log10(0.4)))
def test_upper_quantile_is_relatively_exact_down_to_1e_300(log10_p: float) -> None:
    p = 10.0**log10_p
    assert abs(upper_quantile(p) / naive.mp_upper_quantile(p) - 1) <= 1e-14


@EXACT
@given(st.floats(-16.2, -1.0))
def test_upper_quantile_is_relatively_exact_next_to_one_half(log10_gap: float) -> None:
    p = 0.5 - 10.0**log10_gap
    if p < 0.5:
        assert abs(upper_quantile(p) / naive.mp_upper_quantile(p) - 1) <= 1e-14


def test_upper_quantile_at_one_half_is_zero() -> None:
    assert abs(upper_quantile(0.5)) <= 1e-17


@pytest.mark.parametrize("p", [0.25, 0.1, 1e-3, 1e-9, 1e-50, 1e-250])
def test_upper_inverts_upper_quantile(p: float) -> None:
    x = upper_quantile(p)
    assert upper(x) == pytest.approx(p, rel=4e-16 * (2.0 + x * x))


def test_upper_quantile_decreases() -> None:
    p = np.sort(10.0 ** np.random.default_rng(6).uniform(-300.0, -0.302, 2000))
    x = np.array([upper_quantile(v) for v in p])
    assert (np.diff(x) <= 0.0).all()
