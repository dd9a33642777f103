"""Inputs whose class has fewer than half of the votes: models whose smoothed radius is known, from the sampler to the radii."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.special import ndtri

from certlut import ABSTAIN, Certifier, Direction, Subspace, Table
from certlut.bounds.binomial import lower_probability, upper_probability
from certlut.evaluate import Evaluation, evaluate
from certlut.runs.certify import certify_statistics
from certlut.runs.results import read_tsv
from certlut.runs.sample import sample_dataset
from certlut.sampling.card import Sampling
from certlut.sampling.sampler import Drawn, Sampler
from certlut.statistics.records import join
from certlut.threats.sets import Threat

Array = npt.NDArray[np.float64]

SIGMA = 0.5
# Corners of a triangle: reflection in the line between two of them swaps their classes, so that there, and only there, the smoothed
# scores of these two tie.
ANGLES = 2.0 * np.pi * np.arange(3) / 3.0
CORNERS = np.stack((np.cos(ANGLES), np.sin(ANGLES)), axis=1)
THREATS: tuple[str | Threat, ...] = ("l1", "linf", Subspace(np.array([True, False]), 2, "first"), Direction(np.ones(2), "along"))


def _model(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.float64).reshape(len(x), 2) @ torch.from_numpy(CORNERS.T.copy())


def _radius(x: Array) -> float:
    """Of the smoothed class at x, in l2."""
    sides = [(CORNERS[(x @ CORNERS.T).argmax()] - corner) @ x / math.sqrt(3.0) for corner in CORNERS]
    return float(sorted(sides)[1])


def _inputs(count: int) -> list[Array]:
    """Near the middle, where the votes are divided."""
    rng = np.random.default_rng(8)
    angle, length = rng.uniform(0.0, 2.0 * np.pi, count), rng.uniform(0.0, 0.7, count)
    return [np.array([r * math.cos(a), r * math.sin(a)]) for a, r in zip(angle, length, strict=True)]


def _drawn(inputs: Sequence[Array], n: int, **changed: object) -> list[Drawn]:
    sampler = Sampler(_model, SIGMA, 3, THREATS)
    card = Sampling(**{"n0": 100, "n": n, "seed": 1, "batch_size": 10 * n, "proposal": "votes"} | changed)  # type: ignore[arg-type]
    groups = [range(k, min(k + 10, len(inputs))) for k in range(0, len(inputs), 10)]
    return [one for group in groups for one in sampler.sample_group([(i, inputs[i]) for i in group], card)]


def _evaluated(drawn: Sequence[Drawn], alpha: float, table: Table) -> Evaluation:
    return evaluate(join([one.statistics for one in drawn]), Sampler(_model, SIGMA, 3, THREATS).threats, alpha, "adaptive", table)


def test_300_certificates_of_three_classes_are_never_beyond_the_truth(shipped: Table) -> None:
    inputs = _inputs(300)
    drawn = _drawn(inputs, 3000)
    found, minority = _evaluated(drawn, 1e-6, shipped), 0
    for i, (x, one) in enumerate(zip(inputs, drawn, strict=True)):
        right = one.predict == int((x @ CORNERS.T).argmax())
        true = _radius(x) if right else 0.0
        assert found.radius["l2"][i] <= true
        # An linf ball holds the l2 ball of its size.
        assert found.radius["linf"][i] <= true
        assert found.sure[i] == (found.radius["l2"][i] > 0.0)
        minority += bool(found.sure[i]) and found.q_lower[i] <= 0.5
    assert found.sure.sum() > 100
    assert minority > 30


def test_a_divided_vote_has_the_radius_of_its_two_leading_classes_for_every_threat(shipped: Table) -> None:
    drawn = _drawn([np.array([0.2, 0.02])], 20_000)[0]
    s, alpha = drawn.statistics, 0.001
    votes, others = int(s.class_count[0, 0]), int(s.class_count[0, 1:].max())
    assert 2 * votes < 20_000
    found = _evaluated([drawn], alpha, shipped)
    # Of all of alpha a quarter for the others, a tenth for the gradient.
    low, high = lower_probability(votes, 20_000, 0.65 * alpha), upper_probability(others, 20_000, 0.25 * alpha)
    expected = 0.5 * SIGMA * float(ndtri(low) - ndtri(high))
    assert found.radius["l2"][0] == pytest.approx(expected, rel=1e-6)
    assert found.radius["l1"][0] == found.radius["first"][0] == found.radius["along"][0] == found.radius["l2"][0] > 0.0
    assert found.radius["linf"][0] == pytest.approx(expected / math.sqrt(2.0), rel=1e-6)
    assert (found.radius["cohen"][0], found.sure[0]) == (0.0, True)


def test_inputs_that_are_not_divided_have_what_they_had_whatever_stands_beside_them(shipped: Table) -> None:
    inputs = [np.array([r, 0.0]) for r in (0.1, 0.9, 0.4, 0.0, 1.2)]
    drawn = _drawn(inputs, 3000)
    together = _evaluated(drawn, 0.01, shipped)
    divided = [bool(one.statistics.selection[0, 0] < 75) for one in drawn]
    assert divided == [True, False, True, True, False]
    for i, one in enumerate(drawn):
        alone = _evaluated([one], 0.01, shipped)
        assert all(alone.radius[name][0] == together.radius[name][i] for name in alone.radius)
        assert all(alone.bounds[name][0] == together.bounds[name][i] for name in alone.bounds)
        assert (alone.q_lower[0], alone.sure[0]) == (together.q_lower[i], together.sure[i])
        # Without its selection votes an input is one of two classes.
        unknown = dataclasses.replace(one.statistics, selection=np.zeros((1, 2), dtype=np.int64))
        binary = evaluate(unknown, Sampler(_model, SIGMA, 3, THREATS).threats, 0.01, "adaptive", shipped)
        if divided[i]:
            assert alone.radius["l2"][0] >= 0.9 * binary.radius["l2"][0]
            assert alone.q_lower[0] < binary.q_lower[0]
        else:
            assert all(alone.radius[name][0] == binary.radius[name][0] for name in alone.radius)


def test_the_share_of_divided_inputs_with_any_wrong_radius_is_at_most_alpha(shipped: Table) -> None:
    # The same input again and again: l2 radii beyond the truth, or another class.
    x, alpha, runs = np.array([0.12, 0.05]), 0.1, 600
    drawn = _drawn([x] * runs, 400)
    found = _evaluated(drawn, alpha, shipped)
    right = np.array([one.predict == 0 for one in drawn])
    wrong = found.sure & ((found.radius["l2"] > _radius(x)) | ~right)
    assert float(wrong.mean()) <= alpha + 4.0 * math.sqrt(alpha * (1.0 - alpha) / runs)
    assert found.sure.mean() > 0.02


def test_it_is_told_in_certificates_and_results_and_early_stopping_leaves_divided_inputs_alone(
    tmp_path: Path, shipped: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("certlut.runs.certify.load", lambda path: shipped)
    inputs = [np.array([0.2, 0.02]), np.array([0.0, 0.0]), np.array([-1.0, 0.05])]
    data, files = [(x, 0) for x in inputs], {}
    for early in (False, True):
        card = Sampling(n0=100, n=20_000, seed=1, batch_size=5000, early_stop=early)
        sample_dataset(Sampler(_model, SIGMA, 3, THREATS), data, tmp_path / "s.h5", card, progress=False)
        certify_statistics(tmp_path / "s.h5", tmp_path / "r.tsv", 0.001, "adaptive", None, progress=False)
        files[early] = read_tsv(tmp_path / "r.tsv")
        (tmp_path / "s.h5").unlink()
    columns = files[True]
    assert {name: values.tolist() for name, values in columns.items()} == {
        name: values.tolist() for name, values in files[False].items()
    }
    assert {"runner_up", "count_runner_up"} <= columns.keys()
    assert columns["n"].tolist() == [20_000] * 3
    assert columns["predict"].tolist()[:2] == [0, ABSTAIN]
    assert columns["radius"][0] > columns["radius"][1] == 0.0
    c = Certifier(_model, SIGMA, 3, shipped, THREATS, seed=1).certify(inputs[0], n=20_000)
    assert c.prediction == 0
    assert 2 * c.count < c.n
    assert c.radius["l2"] == pytest.approx(columns["radius"][0], abs=2e-6)
    assert (c.runner_up, c.count_runner_up) == (columns["runner_up"][0], columns["count_runner_up"][0])
