from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.budget import SHARE_OF_Q, split
from runtime.threats import ALL, L1, L2, LENGTH, LINF, Direction, Quantity, Subspace, Threat, complement

MASK = np.array([True, False, True])
RED = Subspace(MASK, 2, "red")
BLUE = Subspace(MASK, np.inf, "blue")
ALONG = Direction(np.ones(3), "along")


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    st.floats(1e-300, 1.0, exclude_max=True),
    st.lists(st.sampled_from([L1, LINF, RED, BLUE, ALONG]), unique_by=lambda threat: threat.name),
)
def test_levels_add_up_to_alpha_and_never_beyond_it(alpha: float, threats: Sequence[Threat]) -> None:
    budget = split(alpha, [L2, *threats])
    exact = Fraction(budget.q) + sum(Fraction(level) for level in budget.norms.values())
    assert exact <= Fraction(alpha)
    assert float(exact) == pytest.approx(alpha, rel=1e-9)
    assert budget.total == pytest.approx(alpha, rel=1e-9)
    assert budget.total <= alpha
    assert all(level > 0.0 for level in budget.norms.values())


def test_q_gets_nine_tenths_and_the_norms_share_the_rest_equally() -> None:
    budget = split(0.001, [L1, L2, LINF])
    assert SHARE_OF_Q == 0.9
    assert budget.q == pytest.approx(0.0009, rel=1e-15)
    assert list(budget.norms.values()) == pytest.approx([0.0001 / 4] * 4, rel=1e-9)


def test_a_bound_that_several_threats_use_is_paid_for_once() -> None:
    budget = split(0.01, [L1, L2, LINF, RED, BLUE, ALONG])
    assert budget.users == {
        Quantity(ALL, "linf", "upper"): ("l1",),
        LENGTH: ("l1", "linf", "red", "blue", "along"),
        Quantity(ALL, "l2", "upper"): ("l2",),
        Quantity(ALL, "l1", "upper"): ("linf",),
        Quantity("red", "l2", "upper"): ("red",),
        Quantity(complement("red"), "l2", "lower"): ("red",),
        Quantity("blue", "l1", "upper"): ("blue",),
        Quantity(complement("blue"), "l2", "lower"): ("blue",),
        Quantity("along", "dot", "lower"): ("along",),
    }
    assert set(budget.norms) == set(budget.users)
    assert len(set(budget.norms.values())) == 1


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, float("nan"), float("inf")])
def test_an_alpha_outside_0_1_is_refused_by_name(alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"alpha = {alpha}: expected 0 < alpha < 1"):
        split(alpha, [L2])


def test_the_printed_budget_says_who_spends_what() -> None:
    lines = str(split(0.01, [L1, L2])).splitlines()
    assert lines == [
        "0.009  lower bound of q (every radius)",
        "0.000333  upper linf of all (l1)",
        "0.000333  lower l2 of all (l1)",
        "0.000333  upper l2 of all (l2)",
        "0.01  in all",
    ]
