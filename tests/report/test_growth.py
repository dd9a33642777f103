import numpy as np
import pytest
from scipy.special import betaincinv, ndtri

from certlut import Table
from certlut.attacks.closed import corner, frame
from certlut.evaluate import evaluate
from certlut.report.growth import DIMENSIONS, QS, constructed_curves, network_curve
from certlut.statistics.summary import summarise
from certlut.threats.sets import L1, L2, LINF


def test_constructed_curves_grow_with_n_towards_the_exact_gain(shipped: Table) -> None:
    curves = constructed_curves(shipped, 0.001, ("paper",), seed=1, sizes=(3000, 100_000))
    assert [c.label for c in curves] == [f"corner, q = {q:g}, d = {d}" for d in DIMENSIONS for q in QS]
    for curve in curves:
        assert set(curve.gain) == set(curve.limit) == {"l1", "l2", "linf"}
        for threat, by in curve.gain.items():
            assert by["paper"][0] <= by["paper"][1] + 0.1
            assert by["paper"][1] < curve.limit[threat]
    large = curves[DIMENSIONS.index(3072) * len(QS)]
    assert large.gain["l1"]["paper"][1] > 20.0
    assert large.limit["l1"] > 45.0


def test_one_seed_gives_one_curve(shipped: Table) -> None:
    a, b = (constructed_curves(shipped, 0.01, ("paper",), seed, (2000,)) for seed in (1, 1))
    assert a == b
    assert a != constructed_curves(shipped, 0.01, ("paper",), 2, (2000,))


def test_a_curve_is_the_gain_in_average_radius_over_the_ball_inside_cohens(shipped: Table) -> None:
    rng = np.random.default_rng(120)
    classifiers = [corner(frame(2, 12, rng), np.array([z, z + 0.3])) for z in (1.0, 1.5, 0.8)]
    threats = (L1, L2, LINF)
    by_size = {n: summarise([c.moments(n, rng) for c in classifiers], threats, 0.5) for n in (2000, 50_000)}
    curve = network_curve(by_size, threats, 0.01, ("paper", "first order"), shipped)
    assert curve.label == "network, d = 12, first 3 inputs"
    assert (curve.n, curve.limit) == ((2000, 50_000), {})
    for place, (n, statistics) in enumerate(by_size.items()):
        votes = statistics.count.sum(axis=1)
        cohen = float((0.5 * ndtri(betaincinv(votes, n - votes + 1, 0.01))).mean())
        for method, estimator in (("paper", "paper"), ("first order", "adaptive")):
            radius = evaluate(statistics, threats, 0.01, estimator, shipped).radius
            for threat, factor in (("l1", 1.0), ("l2", 1.0), ("linf", 12**0.5)):
                expected = 100.0 * (float(radius[threat].mean()) * factor / cohen - 1.0)
                assert curve.gain[threat][method][place] == pytest.approx(expected, abs=1e-6)
