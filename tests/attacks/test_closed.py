import math

import numpy as np
import pytest
from scipy.special import ndtr

from certlut.attacks.closed import Round, Sheets, Smoothed, corner, frame, half_space, random_classifier, slab, union

RNG = np.random.default_rng(70)
W = frame(3, 5, RNG)
CASES: list[Smoothed] = [
    half_space(W[0], 0.7),
    slab(W[0], -1.2, 0.9),
    corner(W, np.array([0.5, 1.5, 2.0])),
    union(W, np.array([-0.5, 0.2, 0.1])),
    Round(np.array([0.3, -1.0, 0.2, 0.0, 0.5]), 2.5),
    Round(np.array([2.0, -1.0, 1.0, 0.0, 0.5]), 1.5, outside=True),
]


def holds(classifier: Smoothed, u: np.ndarray) -> np.ndarray:
    if isinstance(classifier, Round):
        inside = ((u - classifier.centre) ** 2).sum(axis=1) <= classifier.radius**2
        return inside != classifier.outside
    assert isinstance(classifier, Sheets)
    s = u @ classifier.w.T
    within = (s > classifier.low) & (s < classifier.high)
    return within.all(axis=1) if classifier.every else within.any(axis=1)


@pytest.mark.parametrize("classifier", CASES, ids=lambda c: c.kind)
def test_value_and_gradient_are_what_sampling_finds(classifier: Smoothed) -> None:
    rng = np.random.default_rng(71)
    n = 200_000
    delta = 0.6 * rng.standard_normal((2, 5))
    u = rng.standard_normal((n, 5))
    for shift, value, gradient in zip(delta, classifier.value(delta), classifier.gradient(delta), strict=True):
        f = holds(classifier, u + shift)
        assert abs(f.mean() - value) < 5 * math.sqrt(0.25 / n)
        assert np.abs(u[f].sum(axis=0) / n - gradient).max() < 5 / math.sqrt(n)


@pytest.mark.parametrize("classifier", CASES, ids=lambda c: c.kind)
def test_the_gradient_is_the_slope_of_the_value(classifier: Smoothed) -> None:
    delta = 0.5 * np.random.default_rng(72).standard_normal((1, 5))
    step = 1e-5 * np.eye(5)
    slope = (classifier.value(delta + step) - classifier.value(delta - step)) / 2e-5
    assert classifier.gradient(delta)[0] == pytest.approx(slope, abs=1e-8)


def test_a_half_space_has_the_known_vote_and_the_largest_gradient() -> None:
    q, y = half_space(W[1], 1.3).moments_at_0()
    assert q == pytest.approx(float(ndtr(1.3)), abs=1e-15)
    assert np.linalg.norm(y) == pytest.approx(math.exp(-0.5 * 1.3**2) / math.sqrt(2 * math.pi), rel=1e-13)


def test_drawn_moments_have_the_law_of_sampled_ones() -> None:
    made = corner(W, np.array([0.5, 1.0, 2.0]))
    rng = np.random.default_rng(73)
    n, draws = 401, 4000
    drawn = [made.moments(n, rng) for _ in range(draws)]
    assert drawn[0].n.tolist() == [200, 201]
    q, y = made.moments_at_0()
    scaled = np.array([(m.sum_uf.sum(axis=0) - n * y) / math.sqrt(n) for m in drawn])
    covariance = scaled.T @ scaled / draws
    u = rng.standard_normal((400_000, 5))
    sampled = u * holds(made, u)[:, None] - y
    assert np.abs(scaled.mean(axis=0)).max() < 5 / math.sqrt(draws)
    assert np.abs(covariance - sampled.T @ sampled / len(u)).max() < 0.12
    assert abs(np.mean([m.count.sum() for m in drawn]) / n - q) < 0.01
    # sum u covers both votes: standard normal whatever the classifier.
    total = np.array([m.sum_u[0] / math.sqrt(200) for m in drawn])
    assert np.abs(total.T @ total / draws - np.eye(5)).max() < 0.12


@pytest.mark.parametrize("d", [1, 2, 7, 300])
def test_random_classifiers_have_a_majority_and_every_kind_comes(d: int) -> None:
    rng = np.random.default_rng(74)
    made = [random_classifier(d, rng) for _ in range(40)]
    for classifier in made:
        q, y = classifier.moments_at_0()
        assert 0.505 < q < 1.0
        assert y.shape == (d,)
    if d == 7:
        assert len({classifier.kind for classifier in made}) == 6


@pytest.mark.parametrize("sparse", [False, True])
def test_frames_are_orthonormal(sparse: bool) -> None:
    w = frame(4, 9, np.random.default_rng(75), sparse)
    assert w @ w.T == pytest.approx(np.eye(4), abs=1e-14)
