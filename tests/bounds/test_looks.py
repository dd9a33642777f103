"""The schedule, and when an input is given up; how looks, bounds and stopping work together is in tests/test_looks.py."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from certlut.bounds.binomial import least_n, lower_probability
from certlut.bounds.budget import check_looks, split
from certlut.bounds.looks import COUNT, FIRST, GIVING_UP, LAST, GivingUp, Goal, Looks, Verdict, hopeless
from certlut.threats.sets import L1, L2, LINF

ALPHAS = [0.5, 0.1, 0.01, 0.001, 1e-6]


@pytest.mark.parametrize("n", [501, 502, 1000, 9999, 100_000, 10**7])
@pytest.mark.parametrize("count", [2, 3, 8, 20])
def test_looks_grow_geometrically_from_500_to_n_and_spend_no_more_than_alpha(n: int, count: int) -> None:
    looks = Looks.geometric(n, count)
    assert (looks.sizes[0], looks.sizes[-1], looks.n) == (FIRST, n, n)
    assert len(looks) == len(looks.shares) <= count
    if n >= 10_000:
        assert len(looks) == count
        ratios = np.array(looks.sizes[1:]) / np.array(looks.sizes[:-1])
        assert ratios == pytest.approx((n / FIRST) ** (1 / (count - 1)), rel=0.01)
    # Exactly, not up to rounding.
    assert sum(map(Fraction, looks.shares)) <= 1
    assert looks.shares[-1] == pytest.approx(LAST)
    assert sum(looks.shares) == pytest.approx(1.0)
    assert len(set(looks.shares[:-1])) == 1


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_budgets_of_all_looks_together_spend_alpha_and_no_more(alpha: float) -> None:
    for looks in (Looks.geometric(100_000), Looks.geometric(600, 5), Looks.giving_up(1000)):
        paying = [k for k in range(1, len(looks) + 1) if looks.shares[k - 1] > 0.0]
        spent = [split(looks.level(k, alpha), (L1, L2, LINF), families={"axes": ("l1",)}).total for k in paying]
        assert math.fsum(spent) <= alpha * (1.0 + 1e-15)
        assert math.fsum(spent) == pytest.approx(alpha, rel=1e-10)


@pytest.mark.parametrize("n", [2, 3, 100, 500])
def test_few_samples_have_one_look_with_all_of_alpha(n: int) -> None:
    assert Looks.geometric(n) == Looks((n,), (1.0,))


@pytest.mark.parametrize("n", [2, 3, 40, 1000, 99_999])
def test_looks_that_only_give_up_spend_nothing_but_the_last(n: int) -> None:
    looks = Looks.giving_up(n)
    assert looks.sizes[-1] == n
    assert looks.shares == (*[0.0] * (len(looks) - 1), 1.0)
    assert len(looks) == min(GIVING_UP, n - 1) or n < 2 * GIVING_UP


@pytest.mark.parametrize("votes", [0.6, 0.8, 0.95, 0.999, 1.0])
@pytest.mark.parametrize("n", [1000, 10_000, 100_000, 10**6])
def test_the_last_look_costs_less_than_one_percent_of_the_zeroth_order_radius(n: int, votes: float) -> None:
    count, looks = round(votes * n), Looks.geometric(n)
    plain, last = (
        -ndtri(1.0 - lower_probability(count, n, split(a, (L1, L2, LINF)).q)) for a in (0.001, looks.level(len(looks), 0.001))
    )
    assert 0.99 * plain < last < plain or votes < 0.7


def test_a_schedule_survives_a_file_and_nonsense_is_refused() -> None:
    looks = Looks.geometric(12_345, 5)
    assert Looks.of(looks.describe()) == looks
    assert Looks.of({}) is None
    assert len(looks.table(0.01).splitlines()) == 5
    assert looks.table(0.01).splitlines()[-1] == "0.008     look 5, at 12345 samples"
    for sizes, shares in (((5, 5), (0.1, 0.9)), ((1, 5), (0.1, 0.9)), ((2, 5), (0.5,)), ((), ())):
        with pytest.raises(ValueError, match="expected"):
            Looks(sizes, shares)
    for shares in ((0.2, 0.9), (-0.1, 0.9), (1.0, 0.0)):
        with pytest.raises(ValueError, match="at most 1 in all"):
            Looks((2, 5), shares)


def test_statistics_must_have_the_samples_of_their_look() -> None:
    looks = Looks.geometric(4000, 4)
    looks.check(np.array([1, 4, 2]), np.array([500, 4000, looks.sizes[1]]))
    for k, n in ((1, 501), (0, 500), (5, 4000), (2, 4000)):
        with pytest.raises(ValueError, match="expected 1 to 4 looks"):
            looks.check(np.array([k]), np.array([n]))


def test_an_alpha_below_what_the_first_look_allows_is_refused_and_named() -> None:
    looks, threats = Looks.geometric(100_000), (L1, L2, LINF)
    check_looks(looks, 1e-100, threats)
    with pytest.raises(ValueError, match=r"alpha = 1e-160: look 1 of 8 has 500 samples.*alpha >= (\S+) can") as refused:
        check_looks(looks, 1e-160, threats)
    least = float(str(refused.value).split(">= ")[1].split()[0])
    check_looks(looks, 1.01 * least, threats)
    with pytest.raises(ValueError, match="cannot reach"):
        check_looks(looks, 0.99 * least, threats)
    # Looks that spend nothing have nothing to reach.
    check_looks(Looks.giving_up(1000), 1e-160, threats)


@pytest.mark.parametrize(
    ("targets", "precision", "message"),
    [
        ({"l2": 0.0}, None, "positive"),
        ({"l2": math.inf}, None, "positive"),
        ({"l2": math.nan}, None, "positive"),
        ({}, 1.0, "below 1"),
    ],
)
def test_a_goal_out_of_range_is_refused(targets: dict[str, float], precision: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Goal(targets, precision)


def test_a_goal_names_a_threat() -> None:
    assert not Goal()
    assert Goal(precision=0.02)
    Goal({"l1": 0.5}).check(["l1", "l2"])
    with pytest.raises(ValueError, match="target linf: expected one of the threats, l1, l2"):
        Goal({"linf": 0.5}).check(["l1", "l2"])


# Giving up


def _tolerance(looks: Looks, alpha: float) -> int:
    """The most votes against with which the last look can still certify, one by one."""
    return next(k for k in range(looks.n, -2, -1) if k < 0 or lower_probability(looks.n - k, looks.n, alpha) > 0.5)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n", [2, 5, 21, 100, 999])
def test_an_input_is_given_up_exactly_where_votes_for_alone_could_not_save_it(n: int, alpha: float) -> None:
    looks = Looks.giving_up(n)
    allowed = _tolerance(looks, alpha)
    assert (allowed < 0) == (n < least_n(alpha))
    for k, size in enumerate(looks.sizes, 1):
        for against in range(size + 1):
            assert hopeless(looks, size - against, k, alpha) == (against > allowed)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    n=st.integers(502, 3000),
    share=st.floats(0.0, 1.0),
    look=st.integers(1, COUNT),
    alpha=st.floats(1e-9, 0.5),
    later=st.floats(0.0, 1.0),
)
def test_what_is_given_up_abstains_however_it_goes_on(n: int, share: float, look: int, alpha: float, later: float) -> None:
    looks = Looks.geometric(n)
    look = min(look, len(looks))
    size = looks.sizes[look - 1]
    count = round(share * size)
    if not hopeless(looks, count, look, alpha):
        return
    for k in range(look, len(looks) + 1):
        more = looks.sizes[k - 1] - size
        for extra in (more, round(later * more)):
            assert lower_probability(count + extra, looks.sizes[k - 1], looks.level(k, alpha)) <= 0.5


def test_votes_that_are_divided_are_not_given_up() -> None:
    rule = GivingUp(Looks.giving_up(1000), 0.001)
    assert rule.by_votes(0, 31, divided=False) is Verdict.FUTILE
    assert rule.by_votes(0, 31, divided=True) is Verdict.GO_ON
    assert rule.by_votes(600, 31, divided=False) is Verdict.GO_ON
