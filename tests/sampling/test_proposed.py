"""Directions that the model's gradient proposes, from the card to the statistics."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from certlut import Certifier, Subspace, Table
from certlut.runs.results import read_tsv
from certlut.runs.sample import sample_dataset
from certlut.sampling.card import Sampling
from certlut.sampling.sampler import Sampler
from certlut.sampling.scores import Model
from certlut.statistics.file import by_votes
from certlut.statistics.summary import Statistics
from certlut.threats.sets import ALL

D, SIGMA, N = 40, 0.5, 2000
W = np.random.default_rng(1).standard_normal(D)
W /= np.linalg.norm(W)
X = 0.45 * W + 0.1 * np.random.default_rng(2).standard_normal(D) / math.sqrt(D)
MASK = np.arange(D) < 10
GRADIENT = {"by": "gradient", "copies": 250, "temperature": 0.3}


class Linear(torch.nn.Module):
    """Class 1 where w.x > 0, in float64: votes do not hang on rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.from_numpy(W))
        self.drop = torch.nn.Dropout(0.5)
        self.with_gradient: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            self.with_gradient.append(len(x))
        score = (self.drop(x.to(torch.float64)) * self.w).sum(dim=1)
        return torch.stack((torch.zeros_like(score), score), dim=1)


def sampler(model: Model) -> Sampler:
    return Sampler(model, SIGMA, 2, ("l1", "linf", Subspace(MASK, 2, "few")))


def drawn(model: Model, proposal: str = "auto", **changed: Any) -> Statistics:
    return (
        sampler(model)
        .sample(X, Sampling(**{"n0": 50, "n": N, "seed": 3, "batch_size": 300, "proposal": proposal} | changed))
        .statistics
    )


def same_samples(a: Statistics, b: Statistics) -> bool:
    votes = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("count", "n", "class_count", "selection"))
    sums = all(np.array_equal(a.parts[part].inner, b.parts[part].inner) for part in a.parts)
    return votes and sums and all(np.array_equal(a.tails[name].largest, b.tails[name].largest) for name in a.tails)


# What is proposed, and what it leaves alone


def test_the_models_gradient_proposes_by_default_and_the_samples_stay_the_same() -> None:
    auto, insisted, votes = (drawn(Linear(), proposal) for proposal in ("auto", "gradient", "votes"))
    assert auto.proposal == insisted.proposal == GRADIENT
    assert votes.proposal == {"by": "votes"}
    assert (auto.proposed, votes.proposed) == (True, False)
    assert same_samples(auto, votes)
    assert np.array_equal(auto.parts[ALL].length, insisted.parts[ALL].length)
    # Of a linear model it is the direction itself, which votes only come to know.
    low = [s.parts[ALL].length[0, 0, 1] - 10.0 * s.parts[ALL].length[0, 1, 1] for s in (auto, votes)]
    assert low[0] > low[1] + 0.015 > 0.015
    # What it was bet along is known of every part.
    assert auto.parts[ALL].reach[0, :, 1] == pytest.approx([np.abs(W).max(), np.abs(W).sum(), 1.0], rel=0.2)
    assert auto.parts["few"].reach[0, 2, 1] == pytest.approx(np.linalg.norm(W[MASK]), rel=0.3)


def test_a_seed_fixes_what_is_proposed_whatever_the_batches_are() -> None:
    first = drawn(Linear())
    for changed in ({"batch_size": 64}, {"batch_size": 5000}):
        again = drawn(Linear(), **changed)
        assert np.allclose(again.parts[ALL].length, first.parts[ALL].length, rtol=1e-9, atol=0.0)
    assert not np.allclose(drawn(Linear(), seed=4).parts[ALL].length, first.parts[ALL].length, rtol=1e-3)


def test_a_model_stays_in_eval_mode_and_its_parameters_get_no_gradient() -> None:
    model = Linear().train()
    drawn(model)
    assert not model.training
    assert not model.drop.training
    assert model.w.grad is None
    assert model.w.requires_grad
    # One row to see whether there is a gradient; 250 copies in batches; no more.
    assert sum(model.with_gradient) == 251
    assert max(model.with_gradient) <= 256


def test_inputs_that_share_batches_are_proposed_for_one_by_one() -> None:
    card = Sampling(n0=50, n=N, seed=3, batch_size=3 * N)
    together = list(sampler(Linear()).sample_group([(i, X * (1.0 + 0.2 * i)) for i in range(3)], card))
    for i, one in enumerate(together):
        alone = sampler(Linear()).sample(X * (1.0 + 0.2 * i), card, i).statistics
        assert np.allclose(alone.parts[ALL].length, one.statistics.parts[ALL].length, rtol=1e-9, atol=0.0)


# Models without a gradient


def _numpy(x: torch.Tensor) -> torch.Tensor:
    score = torch.from_numpy(np.asarray(x.numpy(), dtype=np.float64) @ W)
    return torch.stack((torch.zeros_like(score), score), dim=1)


def _no_grad(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return Linear().eval()(x)


def _in_place(x: torch.Tensor) -> torch.Tensor:
    score = torch.sigmoid((x.to(torch.float64) * torch.from_numpy(W)).sum(dim=1))
    score.mul_(2.0)
    return torch.stack((torch.ones_like(score), score), dim=1)


def _hard(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(Linear().eval()(x).argmax(dim=1), 2).double()


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (_numpy, "Can't call numpy"),
        (_no_grad, "its scores carry no gradient"),
        (_in_place, "modified by an inplace operation"),
        (_hard, "its scores carry no gradient"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_model_without_a_gradient_proposes_from_votes_or_says_why_not_in_a_line(model: Model, why: str) -> None:
    auto, votes = drawn(model), drawn(model, "votes")
    assert auto.proposal == {"by": "votes"}
    assert same_samples(auto, votes)
    assert np.array_equal(auto.parts[ALL].length, votes.parts[ALL].length)
    used = sampler(model)
    assert used.obstacle == ""
    used.sample(X, Sampling(n=N, seed=1))
    assert why in used.obstacle
    with pytest.raises(ValueError, match=why) as caught:
        drawn(model, "gradient")
    assert str(caught.value).startswith("proposal = 'gradient': the model gives none (")
    assert "\n" not in str(caught.value)


def test_half_precision_proposes_where_its_gradient_is_finite() -> None:
    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(D, 2, dtype=torch.float16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.layer(x)
            return scores

    torch.manual_seed(0)
    assert drawn(Half(), "gradient").proposal == GRADIENT


def test_levels_stay_the_gradients_where_one_input_has_none() -> None:
    # No deviation of margins far away: what is known before sampling is that there is a gradient.
    def saturated(x: torch.Tensor) -> torch.Tensor:
        score = torch.clamp((x.to(torch.float64) * torch.from_numpy(W)).sum(dim=1), -3.0, 3.0)
        return torch.stack((torch.zeros_like(score), score), dim=1)

    statistics = sampler(saturated).sample(X + 100.0 * W, Sampling(n=N, seed=1)).statistics
    assert statistics.proposal == GRADIENT
    assert statistics.by_votes.all()
    assert statistics.count.sum() == N
    with pytest.raises(ValueError, match=r"the model gives none \(its margins have deviation 0\)"):
        sampler(saturated).sample(X + 100.0 * W, Sampling(n=N, seed=1, proposal="gradient"))


@pytest.mark.filterwarnings("ignore:out of memory:RuntimeWarning")
def test_what_memory_once_refused_with_gradients_is_not_tried_again() -> None:
    class Cramped(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.is_grad_enabled() and len(x) > 30:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(x)

    model = Cramped()
    used = sampler(model)
    card = Sampling(n0=50, n=N, seed=3, batch_size=200)
    first = used.sample(X, card).statistics
    assert np.allclose(first.parts[ALL].length, drawn(Linear()).parts[ALL].length, rtol=1e-9, atol=0.0)
    model.with_gradient.clear()
    used.sample(X, card, 1)
    assert max(model.with_gradient) == 25


# Data sets


def _data() -> list[tuple[npt.NDArray[np.float64], int]]:
    return [(X * (0.5 + 0.25 * i), 1) for i in range(3)]


def test_files_tell_what_proposed(tmp_path: Path, shipped: Table) -> None:
    card = Sampling(n0=50, n=N, seed=3)
    sampled = sample_dataset(sampler(Linear()), _data(), tmp_path / "s.h5", card, progress=False)
    assert sampled.settings["proposal"] == sampled.statistics.proposal == GRADIENT
    with pytest.raises(ValueError, match=r"s\.h5: holds the statistics of other settings: proposal was {'by': 'gradient'"):
        sample_dataset(
            sampler(Linear()), _data(), tmp_path / "s.h5", Sampling(n0=50, n=N, seed=3, proposal="votes"), progress=False
        )
    certifier = Certifier(Linear(), SIGMA, 2, shipped, seed=3)
    certifier.certify_dataset(_data(), tmp_path / "r.tsv", n0=50, n=N, progress=False)
    assert json.loads((tmp_path / "r.tsv.json").read_text())["settings"]["proposal"] == GRADIENT
    assert certifier.certify(X, n0=50, n=N).proposal == "gradient"
    assert Certifier(_numpy, SIGMA, 2, shipped, seed=3).certify(X, n0=50, n=N).proposal == "votes"
    columns = read_tsv(tmp_path / "r.tsv")
    assert {"runner_up", "count_runner_up"} <= columns.keys()
    assert columns["runner_up"].tolist() == [0.0] * 3
    assert (columns["count_runner_up"] == columns["n"] - columns["count"]).all()


def test_an_input_without_a_gradient_is_marked_in_the_file_and_in_its_certificate(tmp_path: Path, shipped: Table) -> None:
    def saturated(x: torch.Tensor) -> torch.Tensor:
        score = torch.clamp((x.to(torch.float64) * torch.from_numpy(W)).sum(dim=1), -3.0, 3.0)
        return torch.stack((torch.zeros_like(score), score), dim=1)

    data, out = [*_data(), (X + 100.0 * W, 1)], tmp_path / "s.h5"
    sampled = sample_dataset(sampler(saturated), data, out, Sampling(n0=50, n=N, seed=3), progress=False)
    assert sampled.statistics.by_votes.tolist() == [False, False, False, True]
    assert by_votes(out) == "1 of 4 inputs: votes proposed (no gradient)"
    certifier = Certifier(saturated, SIGMA, 2, shipped, seed=3)
    assert [certifier.certify(x, n0=50, n=N).proposal for x in (X, X + 100.0 * W)] == ["gradient", "votes"]
    # Nothing to tell where all inputs have one, and where votes propose throughout.
    for name, card in (("g.h5", Sampling(n0=50, n=N, seed=3)), ("v.h5", Sampling(n0=50, n=N, seed=3, proposal="votes"))):
        kept = sample_dataset(sampler(saturated), data[:3], tmp_path / name, card, progress=False).statistics
        assert (by_votes(tmp_path / name), kept.by_votes.tolist()) == ("", [name == "v.h5"] * 3)


def test_a_gradient_that_is_not_the_votes_costs_radius_only(shipped: Table) -> None:
    # Straight through: the votes are the linear model's, the gradient is that of the first number.
    def lying(x: torch.Tensor) -> torch.Tensor:
        scores, said = Linear().eval()(x).detach(), x[:, :1].to(torch.float64)
        return scores + torch.cat((torch.zeros_like(said), said - said.detach()), dim=1)

    def opposed(x: torch.Tensor) -> torch.Tensor:
        scores = Linear().eval()(x)
        return 2.0 * scores.detach() - scores

    true = float(X @ W)
    found = {}
    for name, model in (("honest", Linear()), ("lying", lying), ("opposed", opposed)):
        certifier = Certifier(model, SIGMA, 2, shipped, ("l1", "l2"), seed=5)
        c = certifier.certify(X, n0=50, n=20_000, alpha=1e-4)
        assert c.proposal == "gradient"
        assert 0.0 < c.radius["l2"] <= true
        assert c.radius["l1"] <= true / np.abs(W).max()
        found[name] = c.radius["l1"]
    assert found["lying"] <= found["honest"]
    assert min(found.values()) > 0.85 * found["honest"]


def test_an_unknown_mode_is_refused_by_the_card_and_by_the_certifier(shipped: Table) -> None:
    with pytest.raises(ValueError, match="proposal = 'best': expected one of auto, gradient, votes"):
        Certifier(Linear(), SIGMA, 2, shipped, proposal="best")
