import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr

from certlut import Subspace, Table, evaluate
from certlut.attacks import closed_forms as attack
from certlut.attacks.closed import corner, frame, half_space, slab
from certlut.attacks.closed_forms import (
    DualSet,
    Outcome,
    attack_closed_forms,
    exact_bounds,
    match_moments,
    search,
    summary,
    threats_for,
    worst_vertex,
)
from certlut.tablegen import solve
from certlut.threats.sets import L1, L2, LINF, Ball

HALF = np.array([True, False, True, True, False, False])
SMALL = (2, 3, 16)
Z = np.array([1.2, 1.3, 1.4])
THREATS = [L1, L2, LINF, Subspace(HALF, 1, "s1"), Subspace(HALF, 2, "s2"), Subspace(HALF, math.inf, "si")]


def exact(q: float, m1: float, m2: float) -> tuple[float, tuple[float, float, float]]:
    solution = solve(q, m1, m2)
    assert solution.converged
    return solution.radius, solution.multipliers


def norms(points: np.ndarray, threat: Ball) -> np.ndarray:
    return np.asarray(np.linalg.norm(points, ord=threat.p, axis=1))


@pytest.mark.parametrize("threat", THREATS, ids=lambda t: t.name)
def test_worst_vertex_is_in_the_ball_and_no_random_point_of_it_is_worse(threat: Ball) -> None:
    rng = np.random.default_rng(80)
    g = rng.standard_normal((5, 6))
    best = worst_vertex(threat, g)
    assert norms(best, threat) == pytest.approx(np.ones(5))
    if threat.mask is not None:
        assert not best[:, ~HALF].any()
    others = rng.standard_normal((2000, 6)) * (1.0 if threat.mask is None else HALF)
    others /= norms(others, threat)[:, None]
    assert ((best * g).sum(axis=1) <= (g @ others.T).min(axis=1) + 1e-12).all()


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_where_there_is_no_gradient_any_point_of_the_ball_will_do(p: float) -> None:
    threat = Subspace(~HALF, p, "s")
    # Nothing; nothing on the mask; next to nothing on it.
    best = worst_vertex(threat, np.stack([np.zeros(6), HALF * 1.0, -1e-150 * ~HALF]))
    assert norms(best, threat).max() <= 1.0 + 1e-12
    assert not best[:, HALF].any()


def test_the_duals_worst_classifier_keeps_its_vote_where_the_bound_on_a1_is_active(shipped: Table) -> None:
    tried = 0
    for seed in range(200):
        rng, outcome = np.random.default_rng(seed), Outcome()
        z, rho, theta = (np.random.default_rng(seed).uniform(size=3) * (3.45, 0.96, 0.96)) + (0.05, 0.02, 0.02)
        size = rho * math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
        a = exact(float(ndtr(z)), -size * math.cos(theta * math.pi / 2), size * math.sin(theta * math.pi / 2))[1]
        if a[1] == 0.0:
            attack._attack_dual(outcome, shipped, exact, rng)
            assert outcome.total.violations == 0
            tried += 1
    assert tried >= 4


@pytest.mark.parametrize("threat", THREATS, ids=lambda t: t.name)
def test_exact_bounds_give_the_true_moments_of_the_worst_direction(threat: Ball) -> None:
    q, y = slab(frame(1, 6, np.random.default_rng(81))[0], -1.0, 2.0).moments_at_0()
    m1, m2 = threat.cut(exact_bounds(threat, q, y), 6)
    v = worst_vertex(threat, y[None])[0]
    # In l1 and linf the worst vertex has the length kappa; m1 is the slope along it.
    assert float(m1[0]) == pytest.approx(float(v @ y) / threat.kappa(6), rel=1e-12)
    # For l2 m2 is 0 by choice; elsewhere it does not exceed what is there.
    assert float(m2[0]) <= math.sqrt(max(float(y @ y) - float(m1[0]) ** 2, 0.0)) + 1e-12


@pytest.mark.parametrize("threat", THREATS, ids=lambda t: t.name)
def test_searched_points_stay_in_the_ball(threat: Ball) -> None:
    classifier = slab(frame(1, 6, np.random.default_rng(82))[0], -1.5, 2.0)
    points = search(classifier, threat, 0.7, np.random.default_rng(0))
    assert len(points) > 500
    assert norms(points, threat).max() <= 0.7 * (1 + 1e-12)
    assert np.count_nonzero(norms(points, threat) > 0.69) > len(points) / 2


def test_the_search_finds_the_least_vote_of_a_half_space_in_every_norm() -> None:
    w = frame(1, 6, np.random.default_rng(83))[0]
    classifier = half_space(w, 1.0)
    for threat, dual in ((L1, math.inf), (L2, 2), (LINF, 1)):
        # The vote is Phi(1 + w.delta): 1/2 where w.delta = -1.
        radius = 1.0 / float(np.linalg.norm(w, ord=dual))
        for factor, broken in ((1.0 - 1e-9, False), (1.0 + 1e-6, True)):
            values = classifier.value(search(classifier, threat, factor * radius, np.random.default_rng(1)))
            assert (values.min() < 0.5) is np.bool_(broken)


@pytest.mark.parametrize("seed", [1, 3, 5])
def test_no_certified_ball_holds_an_adversarial_point_and_the_dual_is_tight(seed: int, shipped: Table) -> None:
    outcome = attack_closed_forms(shipped, exact, 8, seed, dimensions=SMALL)
    total = outcome.total
    assert total.balls > 100
    assert total.points > 30_000
    assert total.violations == 0
    assert total.lowest < 0.501
    assert len(outcome.tightness) == 8
    assert max(outcome.tightness) < 1e-7
    assert {"worst of the dual, table", "sampled, adaptive estimator", "sampled, paper estimator"} <= {*outcome.tallies}


@pytest.mark.parametrize("kind", ["scale", "level", "lower", "upper"])
def test_the_attack_on_sampled_balls_sees_errors_behind_the_table(
    shipped: Table, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def scaled(*arguments: object, **named: object) -> object:
        found = evaluate.evaluate(*arguments, **named)  # type: ignore[arg-type]
        return replace(found, radius={name: 1.02 * radius for name, radius in found.radius.items()})

    def doubled(*arguments: object, **named: object) -> object:
        bounds = gradient_bounds(*arguments, **named)  # type: ignore[arg-type]
        return {k: 2.0 * v if k.side == "lower" else v for k, v in bounds.items()}

    def halved(*arguments: object, **named: object) -> object:
        bounds = gradient_bounds(*arguments, **named)  # type: ignore[arg-type]
        return {k: 0.5 * v if k.side == "upper" else v for k, v in bounds.items()}

    gradient_bounds = evaluate.gradient_bounds
    match kind:
        case "scale":
            monkeypatch.setattr(attack, "evaluate", scaled)
        case "level":
            monkeypatch.setattr(evaluate, "lower_probability", lambda count, n, alpha: np.minimum(1.01 * count / n, 1 - 1e-12))
        case "lower":
            monkeypatch.setattr(evaluate, "gradient_bounds", doubled)
        case "upper":
            monkeypatch.setattr(evaluate, "gradient_bounds", halved)
    rng, outcome = np.random.default_rng(85), Outcome()
    for classifier in (half_space(frame(1, 3, rng)[0], 1.0), slab(frame(1, 3, rng)[0], -1.0, 1.6), corner(frame(3, 8, rng), Z)):
        attack._attack_sampled(outcome, classifier, threats_for(classifier.d, rng), shipped, rng)
    assert outcome.total.balls > 10
    assert outcome.total.violations > 0


def test_sampled_balls_of_sound_certificates_hold(shipped: Table) -> None:
    rng, outcome = np.random.default_rng(85), Outcome()
    for classifier in (half_space(frame(1, 3, rng)[0], 1.0), slab(frame(1, 3, rng)[0], -1.0, 1.6), corner(frame(3, 8, rng), Z)):
        attack._attack_sampled(outcome, classifier, threats_for(classifier.d, rng), shipped, rng)
    assert outcome.total.balls > 10
    assert outcome.total.violations == 0
    assert outcome.total.lowest < 0.51


class Inflated:
    """The table with radii that are too large by one part in a thousand."""

    def __init__(self, table: Table) -> None:
        self.table, self.sigma, self.normalised, self.check_sigma = table, table.sigma, table.normalised, table.check_sigma

    def radius(self, *node: np.ndarray) -> np.ndarray:
        return 1.001 * np.asarray(self.table.radius(*node))


def test_the_attack_catches_radii_that_are_a_little_too_large(shipped: Table) -> None:
    outcome = attack_closed_forms(Inflated(shipped), exact, 8, seed=3, dimensions=SMALL)  # type: ignore[arg-type]
    assert outcome.total.violations > 0


def test_the_attack_catches_multipliers_that_do_not_fit(shipped: Table) -> None:
    def wrong(q: float, m1: float, m2: float) -> tuple[float, tuple[float, float, float]]:
        radius, a = exact(q, m1, m2)
        return 1.001 * radius, a

    outcome = attack_closed_forms(shipped, wrong, 2, seed=3, dimensions=SMALL)
    assert max(outcome.tightness) > 1e-5


@pytest.mark.parametrize("node", [(0.9, -0.1, 0.05), (0.99, -0.001, 0.02), (0.7, -0.3, 0.05), (0.6, -0.02, 0.38)])
def test_the_duals_set_has_the_moments_it_was_made_for(node: tuple[float, float, float]) -> None:
    radius, a = exact(*node)
    worst = DualSet(radius, a)
    q, y = worst.moments_at_0()
    assert q == pytest.approx(node[0], abs=1e-6)
    better = match_moments(worst, *node)
    matched, slope = better.moments_at_0()
    assert (matched, slope[1]) == pytest.approx((node[0], node[2]), abs=1e-11)
    assert abs(float(better.value(np.array([[radius, 0.0]]))[0]) - 0.5) < 1e-8
    assert y[1] == pytest.approx(node[2], abs=1e-6)
    # Where the multiplier of m1 is 0 the set's own slope along v may be larger.
    assert y[0] >= node[1] - 1e-6
    if a[1] > 0:
        assert y[0] == pytest.approx(node[1], abs=1e-6)
    u = np.random.default_rng(84).standard_normal((400_000, 2))
    shift = np.array([[0.4, -0.3], [-0.5, 0.8]])
    for delta, value in zip(shift, worst.value(shift), strict=True):
        t, s = (u + delta).T
        inside = np.exp(radius * t - 0.5 * radius**2) <= a[0] + a[1] * t + a[2] * s
        assert abs(inside.mean() - value) < 5 * math.sqrt(0.25 / len(u))


def test_tallies_count_every_point_and_nan_is_a_violation() -> None:
    outcome = Outcome()
    outcome.add("b", np.array([0.6, 0.5, 0.7]))
    outcome.add("a", np.array([0.4999, 0.9]))
    assert (outcome.total.balls, outcome.total.points, outcome.total.violations, outcome.total.lowest) == (2, 5, 1, 0.4999)
    outcome.add("a", np.array([np.nan, 0.8]))
    assert outcome.tallies["a"].violations == 2
    assert [kind for kind, _ in summary(outcome)] == ["a", "b", "all"]


def test_threats_for_covers_all_norms_and_subspaces() -> None:
    threats = threats_for(6, np.random.default_rng(0))
    assert [t.p for t in threats] == [1.0, 2.0, math.inf, 1.0, 2.0, math.inf]
    assert all(t.mask is not None and t.mask.any() for t in threats[3:])
