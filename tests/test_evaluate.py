import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.special import ndtri

from certlut import Table, radii
from certlut.bounds import paper
from certlut.bounds.binomial import lower_probability
from certlut.bounds.budget import check_n
from certlut.bounds.paper import deviation
from certlut.evaluate import evaluate
from certlut.lookup.format import read_table
from certlut.sampling.card import Sampling
from certlut.sampling.sampler import Sampler
from certlut.statistics.summary import Moments, Statistics, summarise
from certlut.tablegen import radius as exact_radius
from certlut.threats.declare import Direction, Subspace
from certlut.threats.lines import Ray
from certlut.threats.sets import ALL, L1, L2, LINF, Ball, Quantity, Threat, containment
from reference.naive_statistics import Array, Known, half_space, slab
from reference.simulate import sampled, unit

D = 8
ALPHA = 0.001
MASK = np.arange(D) < 3
THREATS: tuple[Threat, ...] = (
    L1,
    L2,
    LINF,
    Subspace(MASK, 1, "red1"),
    Subspace(MASK, 2, "red2"),
    Subspace(MASK, math.inf, "redinf"),
    Subspace(np.arange(D) < 2, math.inf, "within"),
    Direction(np.arange(D) - 3.0, "along"),
    Direction(np.eye(D)[0], "axis"),
)


def _direction(d: int) -> Array:
    w = 1.0 + np.random.default_rng(d).random(d)
    return w / np.linalg.norm(w)


def _half_space_radius(w: Array, margin: float, threat: Threat) -> float:
    """margin / dual norm of w on the threat's coordinates: exact, sigma = 1."""
    if isinstance(threat, Ray):
        along = float(threat.v @ w)
        return margin / along if along > 0.0 else math.inf
    part = w if threat.mask is None else w[threat.mask]
    return margin / float(np.linalg.norm(part, {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}[threat.p]))


def _mixed(n: int = 4001) -> tuple[list[Moments], Statistics]:
    """Inputs of many margins around two classifiers, some hopeless, in one Statistics with sigma = 0.25."""
    rng = np.random.default_rng(5)
    w = _direction(D)
    known: list[Known] = [half_space(w, margin) for margin in (-1.0, -0.02, 0.0, 0.03, 0.2, 0.7, 1.5, 2.5, 5.0)]
    known += [slab(w, -low, high) for low, high in ((0.7, 0.7), (1.0, 0.8), (2.0, 1.0), (2.5, 2.4))]
    moments = [m for classifier in known for m in classifier.moments(rng, 3, n)]
    return moments, summarise(moments, THREATS, 0.25)


# Against the truth


@pytest.mark.parametrize("sigma", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("margin", [0.3, 1.0, 2.5])
def test_exact_statistics_of_a_linear_classifier_give_its_l2_radius_and_no_radius_beyond_the_truth(
    margin: float, sigma: float, shipped: Table
) -> None:
    w = _direction(D)
    result = evaluate(summarise([half_space(w, margin).exact_moments(10**12)], THREATS, sigma), THREATS, ALPHA, "paper", shipped)
    truth = {threat.name: sigma * _half_space_radius(w, margin, threat) for threat in THREATS}
    assert set(result.radius) == {*truth, "cohen"}
    for name, radius in truth.items():
        assert result.radius[name][0] <= radius
    assert result.radius["l2"][0] == pytest.approx(sigma * margin, rel=2e-4)
    assert result.radius["cohen"][0] == pytest.approx(sigma * margin, rel=2e-4)
    # The gradient tells how much farther a perturbation across it may go; Cohen's radius knows only the length.
    for name, gain in (("l1", 1.25), ("red1", 1.25), ("red2", 1.15), ("axis", 1.25)):
        assert result.radius[name][0] > gain * result.radius["cohen"][0]
    # w is nearly as long as (1, ..., 1), so the linf radius is nearly Cohen's over sqrt(d), and the truth too.
    assert 1.0 < result.radius["linf"][0] * math.sqrt(D) / result.radius["l2"][0] < 1.05


@pytest.mark.parametrize("threat", [L1, L2, LINF], ids=lambda threat: threat.name)
def test_the_lower_bound_of_a_norm_in_place_of_the_upper_one_certifies_too_much(
    threat: Ball, shipped: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In one dimension all three are the same set with radius 0.8.
    known = half_space(np.ones(1), 0.8)
    statistics = summarise(known.moments(np.random.default_rng(6), 300, 20_000), (L1, L2, LINF), 1.0)

    def wrong() -> float:
        return float(np.mean(evaluate(statistics, (L1, L2, LINF), 0.01, "paper", shipped).radius[threat.name] > 0.8))

    assert wrong() <= 0.01
    if threat is L2:
        length: Callable[..., Array] = paper._length
        other = {"upper": "lower", "lower": "upper"}
        monkeypatch.setattr(paper, "_length", lambda part, n, alpha, side: length(part, n, alpha, other[side]))
    else:
        monkeypatch.setattr(paper, "deviation", lambda n, log_inverse: -deviation(n, log_inverse))
    assert wrong() > 0.5


# Never less than what is free


def test_no_radius_is_below_cohens_at_the_level_of_q_nor_below_what_a_larger_certified_set_gives(shipped: Table) -> None:
    moments, statistics = _mixed()
    result = evaluate(statistics, THREATS, ALPHA, "paper", shipped)
    assert np.array_equal(result.q_lower, lower_probability(statistics.count.sum(1), statistics.n.sum(1), result.budget.q))
    floor = 0.25 * np.maximum(ndtri(np.maximum(result.q_lower, 0.5)), 0.0)
    assert 10 < np.count_nonzero(floor) < len(moments)
    better = 0
    for inner in THREATS:
        radius = result.radius[inner.name]
        assert np.all(radius >= floor / containment(inner, L2, D) * (1.0 - 1e-12))
        better += np.count_nonzero(radius > floor / containment(inner, L2, D) * (1.0 + 1e-9))
        for outer in THREATS:
            assert np.all(radius >= result.radius[outer.name] / containment(inner, outer, D) * (1.0 - 1e-12))
    assert better > 10


def test_a_badly_measured_threat_has_the_radius_of_the_larger_set_that_was_measured_well(shipped: Table) -> None:
    # y lies outside the mask: perturbations inside it can go far. The part that only redinf uses is spoilt.
    known = half_space(np.eye(D)[7], 0.8)
    statistics = summarise([known.exact_moments(100_000)], THREATS, 0.25)
    clean = radii(statistics, THREATS, ALPHA, "paper", shipped)
    spoilt = dict(statistics.parts)
    for name in ("redinf", "within"):
        spoilt[name] = dataclasses.replace(spoilt[name], l1=np.array([5.0]))
    result = radii(dataclasses.replace(statistics, parts=spoilt), THREATS, ALPHA, "paper", shipped)
    for name in ("red1", "red2", "l2"):
        assert result[name][0] == clean[name][0]
    assert result["redinf"][0] < clean["redinf"][0]
    assert result["redinf"][0] == pytest.approx(clean["red2"][0] / math.sqrt(3.0), rel=1e-12)
    assert result["within"][0] == pytest.approx(clean["red2"][0] / math.sqrt(2.0), rel=1e-12)
    assert result["redinf"][0] > 1.1 * result["l2"][0] / math.sqrt(3.0)


def test_cohens_radius_is_at_the_full_alpha(shipped: Table) -> None:
    _, statistics = _mixed()
    q = lower_probability(statistics.count.sum(1), statistics.n.sum(1), ALPHA)
    cohen = evaluate(statistics, THREATS, ALPHA, "paper", shipped).radius["cohen"]
    assert np.allclose(cohen, np.where(q > 0.5, 0.25 * ndtri(q), 0.0), rtol=1e-12, atol=0)


# Abstention


def test_where_the_vote_is_not_sure_every_radius_is_0(shipped: Table) -> None:
    _, statistics = _mixed()
    result = evaluate(statistics, THREATS, ALPHA, "paper", shipped)
    unsure = result.q_lower <= 0.5
    assert 3 < np.count_nonzero(unsure) < len(statistics) - 10
    for threat in THREATS:
        assert np.array_equal(result.radius[threat.name] == 0.0, unsure)
        assert np.all(np.isfinite(result.radius[threat.name]))


def test_only_the_baseline_counts_a_vote_that_is_sure_at_the_full_alpha_alone(shipped: Table) -> None:
    n, level = 100_000, 0.9 * ALPHA
    count = next(k for k in range(n // 2, n) if lower_probability(k, n, ALPHA) > 0.5)
    assert lower_probability(count, n, level) <= 0.5
    halves = np.array([n // 2, n // 2])
    moments = Moments(halves, np.array([count - count // 2, count // 2]), np.zeros((2, D)), np.zeros((2, D)))
    radius = evaluate(summarise([moments], THREATS, 1.0), THREATS, ALPHA, "paper", shipped).radius
    assert 0.0 < radius.pop("cohen")[0] < 1e-3
    assert all(value[0] == 0.0 for value in radius.values())


@pytest.mark.parametrize("count", [0, 1, 500])
def test_votes_without_majority_abstain_whatever_the_gradient(count: int, shipped: Table) -> None:
    halves = np.array([500, 500])
    moments = Moments(halves, np.array([count // 2, count - count // 2]), np.full((2, D), 1e3), np.full((2, D), -1e3))
    radius = evaluate(summarise([moments], THREATS, 1.0), THREATS, ALPHA, "paper", shipped).radius
    assert all(value[0] == 0.0 for value in radius.values())


# Arrays, tables, arguments


def test_radii_of_many_inputs_are_those_of_each_alone(shipped: Table) -> None:
    moments, statistics = _mixed()
    together = radii(statistics, THREATS, ALPHA, "paper", shipped)
    assert all(values.shape == (len(moments),) and values.dtype == np.float64 for values in together.values())
    for i, m in enumerate(moments):
        alone = radii(summarise([m], THREATS, 0.25), THREATS, ALPHA, "paper", shipped)
        for name, values in together.items():
            assert alone[name].tolist() == pytest.approx([values[i]], rel=1e-13)


def test_radii_scale_with_sigma(shipped: Table) -> None:
    moments, statistics = _mixed()
    unit = radii(summarise(moments, THREATS, 1.0), THREATS, ALPHA, "paper", shipped)
    for name, values in radii(statistics, THREATS, ALPHA, "paper", shipped).items():
        assert np.allclose(values, 0.25 * unit[name], rtol=1e-13, atol=0)


def test_a_bound_table_serves_its_own_sigma_and_refuses_another(shipped: Table) -> None:
    moments, statistics = _mixed()
    assert shipped.path is not None
    bound = Table(dataclasses.replace(read_table(shipped.path), sigma=0.25), shipped.path)
    assert bound.sigma == 0.25
    free = radii(statistics, THREATS, ALPHA, "paper", shipped)
    for name, values in radii(statistics, THREATS, ALPHA, "paper", bound).items():
        assert np.allclose(values, free[name], rtol=1e-13, atol=0)
    with pytest.raises(ValueError, match=r"default\.h5: table bound to sigma = 0.25, the sampler has sigma = 0.5"):
        radii(summarise(moments, THREATS, 0.5), THREATS, ALPHA, "paper", bound)


def test_l1_l2_and_linf_are_the_default_and_l2_and_cohen_always_there(shipped: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certlut.evaluate.load", lambda _: shipped)
    _, statistics = _mixed()
    assert set(radii(statistics)) == {"l1", "l2", "linf", "cohen"}
    assert set(radii(statistics, ("l1",))) == {"l1", "l2", "cohen"}
    assert set(radii(statistics, ())) == {"l2", "cohen"}


def test_a_larger_alpha_never_gives_a_smaller_radius(shipped: Table) -> None:
    _, statistics = _mixed()
    previous: dict[str, Array] = {}
    for alpha in (1e-9, 1e-4, 0.01, 0.2):
        current = radii(statistics, THREATS, alpha, "paper", shipped)
        for name, values in previous.items():
            assert np.all(current[name] >= values * (1.0 - 1e-12))
        previous = current
    assert np.any(previous["l1"] > 0.0)


def test_an_n_that_cannot_reach_alpha_is_said_with_the_least_one_that_can() -> None:
    threats: Sequence[Threat] = (L1, L2, LINF)
    with pytest.raises(ValueError, match=r"n = 10: even a unanimous vote cannot reach alpha = 0.001 .*; n >= 11 can"):
        check_n(10, 0.001, threats)
    check_n(11, 0.001, threats)
    # Where tails are counted they have a share as well: 2^-11 is between the two levels of q.
    alpha = 2.0**-11 / 0.875
    check_n(11, alpha, threats)
    with pytest.raises(ValueError, match=r"n = 11: even a unanimous vote cannot reach .*; n >= 12 can"):
        check_n(11, alpha, threats, families={"axes": ("l1",)})
    with pytest.raises(ValueError, match=r"n = 11: even a unanimous vote cannot reach .*; n >= 12 can"):
        Sampler(lambda x: x, 0.5, 2, ("l1",)).sample(np.zeros(2), Sampling(10, 11, alpha))
    for n in (0, -5):
        with pytest.raises(ValueError, match=f"n = {n}"):
            check_n(n, 0.5, threats)


def test_a_table_may_be_given_by_its_path(shipped: Table) -> None:
    _, statistics = _mixed()
    assert shipped.path is not None
    opened = radii(statistics, ("l2",), ALPHA, table=shipped)
    for path in (shipped.path, str(shipped.path)):
        assert np.array_equal(radii(statistics, ("l2",), ALPHA, table=path)["l2"], opened["l2"])
    with pytest.raises(FileNotFoundError, match=r"nowhere\.h5"):
        radii(statistics, ("l2",), ALPHA, table="nowhere.h5")


def test_unknown_arguments_are_refused_by_name(shipped: Table) -> None:
    _, statistics = _mixed()
    with pytest.raises(ValueError, match=r"alpha = 1\.5"):
        radii(statistics, ("l1",), 1.5, "paper", shipped)
    with pytest.raises(ValueError, match="estimator 'none'"):
        radii(statistics, ("l1",), ALPHA, "none", shipped)
    with pytest.raises(ValueError, match="threat 'l7'"):
        radii(statistics, ("l7",), ALPHA, "paper", shipped)


def test_a_threat_whose_part_was_not_sampled_is_refused_by_name(shipped: Table) -> None:
    _, statistics = _mixed()
    with pytest.raises(ValueError, match="green"):
        radii(statistics, (Subspace(MASK, 2, "green"),), ALPHA, "paper", shipped)


@pytest.mark.parametrize("mask", [[True, False, False], [True, True, False]], ids=["same size", "another size"])
def test_a_mask_other_than_the_one_that_was_sampled_is_refused_by_name(mask: list[bool], shipped: Table) -> None:
    # The whole gradient is at the first coordinate: with the mask that was sampled, without it, a radius of 2.3 is certified.
    known = half_space(np.array([1.0, 0.0, 0.0]), 1.0)
    statistics = summarise([known.exact_moments(10**6)], (Subspace([False, True, False], 2, "red"),), 1.0)
    with pytest.raises(ValueError, match="red"):
        radii(statistics, (Subspace(mask, 2, "red"),), ALPHA, "paper", shipped)


def test_an_alpha_above_a_half_is_refused_where_inputs_stopped_at_different_n(shipped: Table) -> None:
    known, rng = half_space(_direction(D), 0.1), np.random.default_rng(6)
    equal = summarise(known.moments(rng, 2, 400), [L2], 1.0)
    mixed = summarise([*known.moments(rng, 1, 400), *known.moments(rng, 1, 300)], [L2], 1.0)
    assert set(radii(equal, ["l2"], 0.6, table=shipped)) == {"l2", "cohen"}
    radii(mixed, ["l2"], 0.5, table=shipped)
    with pytest.raises(ValueError, match=r"alpha = 0\.6: expected at most 1/2 where inputs have different numbers of samples"):
        radii(mixed, ["l2"], 0.6, table=shipped)


@pytest.mark.parametrize(("q", "n", "angle"), [(0.55, 4e7, 2.8), (0.6, 4e7, 45.0), (0.6, 1e9, 10.0), (0.75, 1e9, 45.0)])
def test_a_ray_toward_the_gradient_gets_what_less_information_would_certify(
    q: float, n: float, angle: float, shipped: Table
) -> None:
    z, turn = float(ndtri(q)), math.radians(angle)
    known = half_space(np.eye(4)[0], z)
    ray = Direction(np.array([-math.cos(turn), math.sin(turn), 0.0, 0.0]), "ray")
    result = evaluate(summarise([known.exact_moments(int(n))], (ray,), 1.0), (ray,), ALPHA, "adaptive", shipped)
    low, (m1, m2) = float(result.q_lower[0]), (float(m[0]) for m in ray.cut(result.bounds, 4))
    assert m1 > 0.0
    exact = exact_radius(low, m1, m2)
    # The table alone gives 0.06 to 0.55 of this.
    assert 0.7 * exact <= result.radius["ray"][0] <= exact * (1.0 + 2e-9)


@pytest.mark.parametrize(("kind", "sign"), [("length", 1.0), ("half_low", 1.0), ("along", 1.0), ("half_high", -1.0), ("top", -1.0)])
def test_bets_that_are_infinite_or_missing_certify_nothing_more(kind: str, sign: float, shipped: Table) -> None:
    ray = Direction(np.arange(4) - 1.0, "along")
    threats = (L1, L2, LINF, ray)
    statistics = sampled(half_space(unit(4, 0), 0.8), threats, 3, 3000, 5)
    name = "along" if kind == "along" else "all"
    part = statistics.parts[name]

    def edited(value: float) -> Statistics:
        bet = getattr(part, kind).copy()
        bet[0, 0] = value
        return dataclasses.replace(statistics, parts={**statistics.parts, name: dataclasses.replace(part, **{kind: bet})})

    plain = radii(statistics, threats, ALPHA, table=shipped)
    for value in (math.nan, -sign * math.inf):
        other = radii(edited(value), threats, ALPHA, table=shipped)
        for threat in plain:
            # Without bets other bounds are in use, at times better by a hair.
            assert (other[threat] <= 1.01 * plain[threat]).all(), (threat, value)
    with pytest.raises(ValueError, match=f"a bet '{kind}' of '{name}' is infinite on the wrong side"):
        radii(edited(sign * math.inf), threats, ALPHA, table=shipped)


def test_an_upper_bound_below_zero_is_zero(shipped: Table) -> None:
    statistics = sampled(half_space(unit(4, 0), 0.8), (L1, L2, LINF), 1, 3000, 5)
    part = statistics.parts["all"]
    top = part.top.copy()
    top[:, 0] = -5.0
    changed = dataclasses.replace(statistics, parts={"all": dataclasses.replace(part, top=top)})
    result = evaluate(changed, (L1, L2, LINF), ALPHA, "adaptive", shipped)
    assert result.bounds[Quantity(ALL, "linf", "upper")].tolist() == [0.0]
