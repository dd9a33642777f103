import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from certlut import Certifier, Table
from certlut.bounds import paper
from certlut.bounds.adaptive import BET_EVENTS, MEAN_EVENTS, PROPOSED_EVENTS
from certlut.bounds.budget import SHARES, split
from certlut.bounds.estimators import ESTIMATORS
from certlut.runs.certify import certify_statistics
from certlut.runs.sample import sample_dataset
from certlut.sampling.card import Sampling
from certlut.sampling.sampler import Sampler
from certlut.threats.declare import Direction, Line, Lp, Sparse, Subspace
from certlut.threats.sets import ALL, L1, L2, LENGTH, LINF, Quantity, Threat, complement

MASK = np.array([True, False, True])
RED = Subspace(MASK, 2, "red")
BLUE = Subspace(MASK, np.inf, "blue")
ALONG = Direction(np.ones(3), "along")
PLANE = Subspace(basis=np.eye(3)[:2], p=1, name="plane")
CUBE = Lp(3)
LINE = Line(np.ones(3), "line")


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    st.floats(1e-200, 1.0, exclude_max=True),
    st.lists(st.sampled_from([L1, LINF, RED, BLUE, ALONG, PLANE, LINE, Sparse(1)]), unique_by=lambda threat: threat.name),
    st.sampled_from(sorted(ESTIMATORS)),
)
def test_levels_add_up_to_alpha_and_never_beyond_it(alpha: float, threats: Sequence[Threat], estimator: str) -> None:
    budget = split(alpha, [L2, *threats], estimator)
    exact = Fraction(budget.q) + sum(Fraction(level) for level in budget.norms.values())
    assert exact <= Fraction(alpha)
    assert float(exact) == pytest.approx(alpha, rel=1e-9)
    assert budget.total == pytest.approx(alpha, rel=1e-9)
    assert budget.total <= alpha
    assert all(level > 0.0 for level in budget.norms.values())
    # The events are all that is spent.
    assert math.fsum(event.level for event in budget.events) == pytest.approx(budget.total, rel=1e-12, abs=1e-320)


@pytest.mark.parametrize(
    "known", [BET_EVENTS, PROPOSED_EVENTS, MEAN_EVENTS, paper.EVENTS], ids=["bets", "proposed", "means", "paper"]
)
def test_the_events_behind_a_bound_share_its_level_and_no_more(known: dict[tuple[str, str], dict[str, float]]) -> None:
    for quantity, shares in known.items():
        assert sum(Fraction(share) for share in shares.values()) == 1, quantity
        assert all(share > 0.0 for share in shares.values())


@pytest.mark.parametrize("noise", [0.0, 1e-17, 3e-6, 1e-4])
def test_what_the_noise_costs_is_charged_once_and_the_rest_is_divided(noise: float) -> None:
    threats, alpha = [L1, L2, LINF, ALONG], 0.001
    plain, budget = split(alpha, threats), split(alpha, threats, noise=noise)
    levels = [budget.q, *budget.norms.values(), budget.noise]
    assert sum(map(Fraction, levels)) <= Fraction(alpha)
    assert budget.total == pytest.approx(alpha, rel=1e-9)
    assert math.fsum(event.level for event in budget.events) == pytest.approx(budget.total, rel=1e-12)
    for level, other in zip(levels, [plain.q, *plain.norms.values()], strict=False):
        assert level == pytest.approx(other * (1.0 - noise / alpha), rel=1e-9)
    charged = [event for event in budget.events if event.bound == "noise"]
    assert [event.level for event in charged] == ([noise] if noise else [])
    assert all(event.users == budget.events[0].users for event in charged)
    assert ("noise: draws that are not those of Gaussian noise" in str(budget)) == (noise > 0.0)


def test_noise_that_costs_more_than_a_tenth_of_alpha_is_refused() -> None:
    with pytest.raises(ValueError, match=r"noise: its law costs 0\.0002 of alpha = 0\.001: expected at most a tenth"):
        split(0.001, [L2], noise=2e-4)


def test_q_gets_nine_tenths_and_the_norms_share_the_rest_equally() -> None:
    budget = split(0.001, [L1, L2, LINF])
    assert SHARES["gradient"] == pytest.approx(0.1, rel=1e-15)
    assert budget.q == pytest.approx(0.0009, rel=1e-15)
    assert list(budget.norms.values()) == pytest.approx([0.0001 / 4] * 4, rel=1e-9)


def test_tails_take_their_share_from_the_vote_and_only_where_a_threat_uses_them() -> None:
    threats = [L1, L2, LINF]
    without, budget = split(0.001, threats), split(0.001, threats, families={"all": ("l1",), "ray": ("ray",)})
    assert without.tails == {}
    assert budget.tails == {name: pytest.approx(0.05 * 0.001 / 2, rel=1e-9) for name in ("all", "ray")}
    assert budget.q == pytest.approx(0.00085, rel=1e-12)
    assert budget.norms == without.norms
    assert budget.total <= 0.001
    assert sum(event.level for event in budget.events) == pytest.approx(budget.total, rel=1e-12)
    assert "tails along all: the largest counts beyond the thresholds (l1)" in str(budget)


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


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, 9e-201, 5e-324, float("nan"), float("inf")])
def test_an_alpha_outside_0_1_is_refused_by_name(alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"alpha = {alpha}: expected 0 < alpha < 1"):
        split(alpha, [L2])


def test_it_prints_every_event_with_its_level_and_users_and_the_sum() -> None:
    lines = str(split(0.01, [L1, L2], "adaptive")).splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        ["0.009", "lower bound of q: the number of votes (l1, l2)"],
        ["0.000333", "upper linf of all: bets on the coordinates (l1)"],
        ["0.000167", "lower l2 of all: bets on the length (l1)"],
        ["8.33e-05", "lower l2 of all: the gradient along X (l1)"],
        ["8.33e-05", "lower l2 of all: X along the gradient (l1)"],
        ["0.000167", "upper l2 of all: the gradient along X (l2)"],
        ["0.000167", "upper l2 of all: X along the gradient (l2)"],
        ["0.01", "in all"],
    ]
    paper = str(split(0.01, [L1, L2], "paper")).splitlines()
    assert paper[1].split(maxsplit=1) == ["0.000333", "upper linf of all: all signed coordinate axes (l1)"]
    assert len(paper) == 1 + 1 + 2 + 2 + 1


def test_where_gradients_are_proposed_bets_on_the_length_get_seven_eighths_of_its_bound() -> None:
    votes, gradient = (split(0.01, [L1, L2, RED], proposed=proposed) for proposed in (False, True))
    # The levels of the bounds are the same.
    assert (gradient.q, gradient.norms) == (votes.q, votes.norms)
    assert gradient.total <= 0.01
    for bound in (str(LENGTH), str(Quantity(complement("red"), "l2", "lower"))):
        level = gradient.norms[LENGTH]
        found = {event.what: event.level / level for event in gradient.events if event.bound == bound}
        expected = {"bets on the length": 0.875, "the gradient along X": 0.0625, "X along the gradient": 0.0625}
        assert found == pytest.approx(expected, rel=1e-9)
    l1 = split(0.01, [LINF, L2], proposed=True)
    found = {event.what: event.level / l1.norms[LENGTH] for event in l1.events if event.bound == "upper l1 of all"}
    expected = {"the means along the vector that the norm is attained at": 0.75, "bets along the larger coordinates": 0.25}
    assert found == pytest.approx(expected, rel=1e-9)
    # Nothing else moves, nor anything of the paper's.
    others = [[event for event in one.events if not event.bound.startswith("lower l2")] for one in (votes, gradient)]
    assert others[0] == others[1]
    assert split(0.01, [L1, L2], "paper", proposed=True) == split(0.01, [L1, L2], "paper")


def test_divided_votes_pay_for_the_other_classes_from_the_share_of_q() -> None:
    threats, families = [L1, L2], {"all": ("l1",)}
    plain, divided = (split(0.01, threats, families=families, divided=divided) for divided in (False, True))
    assert (plain.others, divided.others) == (0.0, pytest.approx(0.0025, rel=1e-9))
    assert divided.q == pytest.approx(plain.q - 0.0025, rel=1e-9)
    assert (divided.norms, divided.tails) == (plain.norms, plain.tails)
    assert divided.total <= 0.01
    assert divided.total == pytest.approx(0.01, rel=1e-9)
    assert "upper bound of every other class: the votes of the runner-up (l1, l2)" in str(divided)
    lines = str(replace(plain, divided=divided)).splitlines()
    assert lines[len(str(plain).splitlines())] == "inputs whose selection votes are divided:"
    assert lines[-1].split() == ["0.01", "in", "all"]


def test_no_bets_on_coordinates_are_named_where_a_part_has_a_basis() -> None:
    budget = split(0.01, [L2, PLANE], "adaptive")
    whats = [event.what for event in budget.events if event.bound == "upper linf of plane"]
    assert len(whats) == 1
    assert "means" in whats[0]


def test_a_norm_without_a_bound_and_an_unknown_estimator_are_refused_by_name() -> None:
    assert Quantity("l3", "lp", "upper") in split(0.01, [L2, CUBE], "adaptive").norms
    with pytest.raises(ValueError, match=r"threat 'l3' \(p = 3\): estimator 'paper' has no bound of the upper lp of l3"):
        split(0.01, [L2, CUBE], "paper")
    with pytest.raises(ValueError, match="estimator 'none': expected one of adaptive, paper"):
        split(0.01, [L2], "none")


def _never(x: torch.Tensor) -> torch.Tensor:
    raise AssertionError("the model must not be asked")


def _first(x: torch.Tensor) -> torch.Tensor:
    first = x.reshape(len(x), -1)[:, 0]
    return torch.stack((torch.zeros_like(first), first), dim=1)


def test_a_certifier_refuses_a_threat_that_its_estimator_has_no_bound_for_before_sampling(shipped: Table) -> None:
    with pytest.raises(ValueError, match="threat 'l3'"):
        Certifier(_never, 0.5, 2, shipped, ("l1", CUBE), estimator="paper")
    assert Certifier(_never, 0.5, 2, shipped, ("l1", CUBE)).estimator == "adaptive"


def test_stored_statistics_are_refused_in_one_line_and_nothing_is_written(
    tmp_path: Path, shipped: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("certlut.runs.certify.load", lambda path: shipped)
    stats, out = tmp_path / "stats.h5", tmp_path / "results.tsv"
    sample_dataset(Sampler(_first, 0.5, 2, (CUBE,)), [(np.ones(3), 1)], stats, Sampling(10, 200, 0.01, 100, 0))
    with pytest.raises(ValueError, match="threat 'l3'") as error:
        certify_statistics(stats, out, 0.01, "paper", None, progress=False)
    assert "\n" not in str(error.value)
    assert not out.exists()
    budget, rows = certify_statistics(stats, out, 0.01, "adaptive", None, progress=False)
    assert rows == 1
    assert budget.users[Quantity("l3", "lp", "upper")] == ("l3",)
