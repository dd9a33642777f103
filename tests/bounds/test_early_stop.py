import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certlut.bounds.binomial import least_n, lower_probability
from certlut.bounds.early_stop import LOOKS, must_abstain, next_look, tolerance

ALPHAS = [0.5, 0.1, 0.01, 0.001, 1e-6]


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n", [1, 2, 5, 21, 100, 999, 10_000, 1_000_000])
def test_tolerance_is_the_last_count_that_will_do(n: int, alpha: float) -> None:
    allowed = tolerance(n, alpha)
    if n < least_n(alpha):
        assert allowed == -1
        return
    assert lower_probability(n - allowed, n, alpha) > 0.5
    assert lower_probability(n - allowed - 1, n, alpha) <= 0.5


@settings(deadline=None, derandomize=True, max_examples=300)
@given(n=st.integers(2, 3000), share=st.floats(0.0, 1.0), done=st.floats(0.0, 1.0), alpha=st.floats(1e-9, 0.5))
def test_an_input_that_must_abstain_does_however_it_goes_on(n: int, share: float, done: float, alpha: float) -> None:
    drawn = max(1, round(done * n))
    count = round(share * drawn)
    if not must_abstain(count, drawn, tolerance(n, alpha)):
        return
    for smaller in (alpha, 0.9 * alpha, 1e-3 * alpha):
        assert lower_probability(count + n - drawn, n, smaller) <= 0.5
        assert lower_probability(count, drawn, smaller) <= 0.5
    for any_alpha in (*ALPHAS, 0.5):
        assert lower_probability(count, drawn, any_alpha) < 0.5


@pytest.mark.parametrize("alpha", ALPHAS)
def test_an_input_is_not_given_up_while_the_rest_could_save_it(alpha: float) -> None:
    n = 1000
    allowed = tolerance(n, alpha)
    saved = 0
    for drawn in range(1, n + 1, 7):
        # The fewest votes that can still do.
        count = n - allowed - (n - drawn)
        if 0 <= count <= drawn:
            assert lower_probability(count + n - drawn, n, alpha) > 0.5
            assert not must_abstain(count, drawn, allowed)
            saved += 1
            if 2 * (count - 1) <= drawn and count > 0:
                assert must_abstain(count - 1, drawn, allowed)
    assert saved > 50


@pytest.mark.parametrize("q", [0.0, 0.2, 0.45, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("n", [2, 30, 1000, 100_000])
def test_looks_are_few_and_never_before_they_can_tell(n: int, q: float) -> None:
    allowed, drawn, count, looks = tolerance(n, 0.001), 0, 0, 0
    while drawn < n and not (drawn and must_abstain(count, drawn, allowed)):
        look = next_look(n, allowed, count, drawn)
        assert drawn < look <= n
        assert look == n or look - drawn >= max(allowed + 1 - (drawn - count), n / LOOKS)
        drawn = look
        count = int(q * drawn)
        looks += 1
    assert looks <= LOOKS
    if n == 100_000:
        assert drawn <= min(n, 0.5 * n / (1.0 - q) + n / LOOKS + 1) if q <= 0.5 else drawn == n
    assert np.isfinite(drawn)
