"""Grid noise from the card to statistics: what is refused, what is found from data, what does not change the draws."""

import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from certlut import Certifier, Direction, Table, read_statistics
from certlut.bounds.budget import split
from certlut.evaluate import evaluate, find_tails
from certlut.runs.certify import certify_statistics
from certlut.runs.merge import merge
from certlut.runs.sample import sample_dataset
from certlut.sampling.card import Sampling
from certlut.sampling.cells import law
from certlut.sampling.engine import Choice, Engine, Input
from certlut.sampling.grid import draw
from certlut.sampling.sampler import Sampler
from certlut.sampling.streams import FIRST, SECOND, SELECTION, Stream
from certlut.statistics.summary import GAUSSIAN, Moments
from certlut.threats.families import Family

SHAPE, SIGMA, STEP, TAUS = (2, 3, 4), 0.5, Fraction(1, 16), (0.5, 1.0, 2.0)
RATIO = Fraction(SIGMA) / STEP


class Scores(torch.nn.Module):
    """Three scores by two fixed planes, in float64 so that votes do not hang on rounding."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.w = torch.randn(d, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(d))
        self.asked: set[torch.dtype] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked.add(x.dtype)
        return (x.reshape(len(x), -1).to(torch.float64)[:, :, None] * self.w).sum(dim=1)


def _x(seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 17, SHAPE) / 16).to(torch.float32)


def _card(**changes: Any) -> Sampling:
    return Sampling(
        **{"n0": 200, "n": 2001, "alpha": 0.01, "batch_size": 300, "seed": 7, "thresholds": TAUS, "noise": "grid"} | changes
    )


def _codes(stage: int, n: int, idx: int) -> np.ndarray:
    codes = np.empty((n, math.prod(SHAPE)), dtype=np.int16)
    draw(law(RATIO, TAUS), Stream(7, idx, stage), 0, codes)
    return codes


def test_votes_moments_and_tails_are_those_of_a_plain_loop_over_the_codes() -> None:
    model, x, n, d = Scores(24), _x(), 2001, 24
    card, idx = _card(grid_step="1/16"), 4
    v = np.full((1, d), 1.0 / math.sqrt(d))
    kinds = {"all": Family(), "ray": Family(vectors=v)}
    (m,) = Engine(model, SIGMA, 3).moments([Input(idx, x)], [Choice(1)], card, families=kinds)
    grid, levels = law(RATIO, TAUS), np.rint(x.numpy().ravel() * 16).astype(np.int64)
    against = []
    for half, stage in enumerate((FIRST, SECOND)):
        codes = _codes(stage, (n // 2, n - n // 2)[half], idx)
        noisy = ((levels + (codes >> grid.bits)) / 16).astype(np.float32)
        f = (noisy.astype(np.float64) @ model.w.numpy()).argmax(axis=1) == 1
        means = grid.mean[codes.astype(np.int64) - grid.low]
        assert m.count[half] == f.sum()
        assert np.allclose(m.sum_uf[half], means[f].sum(axis=0), rtol=0, atol=1e-9)
        assert np.allclose(m.sum_u[half], means.sum(axis=0), rtol=0, atol=1e-9)
        against.append(codes[~f])
    place = np.concatenate(against).astype(np.int64) - grid.low
    beyond = np.stack([[(sign * grid.rank[place] > k).sum(axis=0) for k in range(3)] for sign in (1, -1)])
    assert m.tails["all"].largest[0].tolist() == beyond.max(axis=(0, 2)).tolist()
    assert (m.tails["all"].slack, m.tails["ray"].slack) == (0.0, 1e-7)
    along = grid.mean[place] @ v[0]
    assert m.tails["ray"].largest[0].tolist() == [int((along >= tau - 1.64 / float(RATIO)).sum()) for tau in TAUS]
    votes = Engine(model, SIGMA, 3).votes([Input(idx, x)], card)[0]
    codes = _codes(SELECTION, 200, idx)
    noisy = ((levels + (codes >> grid.bits)) / 16).astype(np.float32)
    assert votes.tolist() == np.bincount((noisy.astype(np.float64) @ model.w.numpy()).argmax(axis=1), minlength=3).tolist()
    assert model.asked == {torch.float32}


def _same(one: Moments, other: Moments) -> None:
    assert (one.n.tolist(), one.count.tolist()) == (other.n.tolist(), other.count.tolist())
    assert np.allclose(one.sum_uf, other.sum_uf, rtol=0, atol=1e-9)
    for name, tail in one.tails.items():
        assert tail.largest.tolist() == other.tails[name].largest.tolist()
    for name, kinds in one.bets.items():
        for kind, values in kinds.items():
            assert np.allclose(values, other.bets[name][kind], rtol=1e-8, atol=1e-9), (name, kind)


def test_neither_batches_nor_company_nor_an_early_stop_change_the_draws() -> None:
    inputs = [Input(10 + 3 * i, _x(i)) for i in range(3)]
    card = _card(grid_step="1/16", n=501)
    kinds = {"all": Family()}
    together = Engine(Scores(24), SIGMA, 3).moments(inputs, [Choice(1)] * 3, card, families=kinds)
    for one, whole in zip(inputs, together, strict=True):
        for batch_size in (7, 501, 5000):
            alone = Engine(Scores(24), SIGMA, 3).moments(
                [one], [Choice(1)], _card(grid_step="1/16", n=501, batch_size=batch_size), families=kinds
            )
            _same(alone[0], whole)
    long = _card(grid_step="1/16", n=30_000, early_stop=True)
    full = Engine(Scores(24), SIGMA, 3).moments(inputs, [Choice(0)] * 3, long)
    for one, stopped in zip(inputs, full, strict=True):
        n = [int(k) for k in stopped.n]
        f = []
        levels = np.rint(one.x.numpy().ravel() * 16).astype(np.int64)
        for stage, rows in zip((FIRST, SECOND), n, strict=True):
            codes = _codes(stage, rows, one.idx)
            noisy = ((levels + (codes >> law(RATIO, TAUS).bits)) / 16).astype(np.float32)
            f.append(int(((noisy.astype(np.float64) @ Scores(24).w.numpy()).argmax(axis=1) == 0).sum()))
        assert stopped.count.tolist() == f


class Greedy(Scores):
    """Fails above some rows, after it has changed its input in place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.add_(0.25)
        if len(x) > 130:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(x)


def test_out_of_memory_halves_the_batch_and_counts_every_sample_once() -> None:
    class Shifted(Scores):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x + 0.25)

    card = _card(grid_step="1/16")
    with pytest.warns(RuntimeWarning, match="out of memory: batches of"):
        (one,) = Engine(Greedy(24), SIGMA, 3).moments([Input(0, _x())], [Choice(1)], card)
    (other,) = Engine(Shifted(24), SIGMA, 3).moments([Input(0, _x())], [Choice(1)], card)
    _same(one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_is_asked_in_its_own_type(dtype: torch.dtype) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(24, 3, dtype=dtype))
    drawn = Sampler(model, SIGMA, 3).sample(_x(), _card(grid_step="1/16"))
    assert drawn.votes.sum() == 200


@pytest.mark.parametrize("x", [torch.randint(0, 256, SHAPE, dtype=torch.uint8), torch.randint(-9, 9, SHAPE)])
def test_whole_numbers_lie_on_a_grid_of_step_1(x: torch.Tensor) -> None:
    sampler = Sampler(Scores(24), 5.0, 3)
    assert sampler.sample(x, _card(grid_step=1)).statistics.noise["step"] == "1"


# What is refused


def _refused(ask: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        ask()
    assert "\n" not in str(error.value)


def test_an_input_off_the_grid_is_refused_with_its_first_value_before_anything_is_drawn() -> None:
    def never(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the model must not be asked")

    x = _x()
    x[1, 2, 0] += 0.01
    message = r"input 3\[1, 2, 0\] = .*: not on the grid of step 1/16 \(nearest: .* steps = .*\); give images as they are stored"
    card = _card(grid_step="1/16", batch_size=1)
    _refused(lambda: next(Sampler(never, SIGMA, 3).sample_group([(3, x)], card)), message)
    _refused(lambda: Engine(never, SIGMA, 3).votes([Input(3, x)], card), message)
    data = [(_x(i), 0) for i in range(3)] + [(x, 0)]
    _refused(lambda: Sampler(Scores(24), SIGMA, 3).settings(data, _card(grid_step="1/16")), message)


def test_a_step_that_no_data_tell_and_one_that_is_too_coarse_are_refused() -> None:
    sampler = Sampler(Scores(24), SIGMA, 3)
    _refused(
        lambda: sampler.sample(_x(), _card()), "grid_step = auto: expected a fraction such as 1/255 where no data set tells it"
    )
    _refused(
        lambda: Sampler(Scores(24), 0.01, 3).sample(_x(), _card(grid_step="1/16")), r"sigma / grid_step = 0\.16: expected 1 to"
    )


def test_the_step_of_the_data_is_found_and_data_on_none_are_refused() -> None:
    sampler = Sampler(Scores(24), SIGMA, 3)
    assert sampler.fit([(_x(i), 0) for i in range(4)], _card()).grid_step == STEP
    byte = [(torch.arange(24).reshape(SHAPE) / 255, 0)]
    assert sampler.fit(byte, _card()).grid_step == Fraction(1, 255)
    assert sampler.fit(byte, _card(grid_step="1/510")).grid_step == Fraction(1, 510)
    assert sampler.fit(byte, Sampling()) == Sampling()
    _refused(lambda: sampler.fit([(torch.randn(24), 0)], _card()), "inputs: 24 values, .* are on no grid")


def test_a_law_that_costs_too_much_of_alpha_is_refused_before_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certlut.sampling.grid_noise.Grid.charge", lambda self, n, d: 0.002)
    _refused(
        lambda: Sampler(Scores(24), SIGMA, 3).sample(_x(), _card(grid_step="1/16")), "noise: its law costs 0.002 of alpha = 0.01"
    )


# Where it is said


def test_the_noise_is_in_settings_statistics_results_and_the_budget(tmp_path: Path, shipped: Table) -> None:
    data = [(_x(i), i % 3) for i in range(5)]
    sampler, stats = Sampler(Scores(24), SIGMA, 3, ("l1", Direction(np.ones(SHAPE), "ray"))), tmp_path / "stats.h5"
    sampled = sample_dataset(sampler, data, stats, _card(n=4000), progress=False)
    assert {name: sampled.settings[name] for name in ("noise", "grid_step")} == {"noise": "grid", "grid_step": "1/16"}
    noise = read_statistics(stats).statistics.noise
    variation = law(RATIO, TAUS).variation
    assert noise == {"kind": "grid", "step": "1/16", "variation": variation, "charge": pytest.approx(4000 * 24 * variation)}
    budget, _ = certify_statistics(stats, tmp_path / "results.tsv", 0.01, "adaptive", None, progress=False)
    assert budget.noise == noise["charge"]
    assert "noise: draws that are not those of Gaussian noise" in str(budget)
    assert read_statistics(stats).statistics.tails["ray"].slack == 1e-7
    results = tmp_path / "at_once.tsv"
    certifier = Certifier(Scores(24), SIGMA, 3, shipped, seed=7, noise="grid")
    certifier.certify_dataset(data, results, 200, 4000, 0.01, progress=False)
    assert json.loads(Path(f"{results}.json").read_text())["settings"]["grid_step"] == "1/16"


def test_shards_are_the_parts_of_a_whole(tmp_path: Path) -> None:
    from certlut.jobs.shards import Shard

    data = [(_x(i), i % 3) for i in range(5)]
    card = _card(n=400)
    whole = sample_dataset(Sampler(Scores(24), SIGMA, 3), data, tmp_path / "whole.h5", card, progress=False)
    for k in range(2):
        sample_dataset(Sampler(Scores(24), SIGMA, 3), data, tmp_path / "part.h5", card, shard=Shard(k, 2), progress=False)
    merged = merge([tmp_path / f"part.{k}-of-2.h5" for k in range(2)], tmp_path / "merged.h5")
    assert np.array_equal(merged.statistics.count, whole.statistics.count)
    assert np.array_equal(merged.statistics.tails["all"].largest, whole.statistics.tails["all"].largest)
    assert merged.statistics.parts["all"].l1.tolist() == whole.statistics.parts["all"].l1.tolist()
    assert merged.statistics.noise == whole.statistics.noise


def test_statistics_of_gaussian_noise_charge_nothing_and_unknown_noise_is_refused() -> None:
    from dataclasses import replace

    statistics = Sampler(Scores(24), SIGMA, 3).sample(_x(), Sampling(100, 1000, 0.01, seed=1)).statistics
    assert statistics.noise == GAUSSIAN
    assert statistics.charge == 0.0
    for wrong in ({"kind": "laplace"}, {"kind": "grid", "charge": 2.0}, {}):
        with pytest.raises(ValueError, match="expected gaussian or grid"):
            replace(statistics, noise=wrong).check(Sampler(Scores(24), SIGMA, 3).threats)


# What it comes to


class Spy(torch.nn.Module):
    """Tells inputs 0 and 128/255 apart by the low bits of small sums, as noise of float32's own grid betrays x."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        small = (x.abs() < 2.0**-6) & (x != 0.0)
        coarse = (x.to(torch.float64) * 2.0**25).frac() == 0.0
        share = (small & coarse).sum(dim=1) / small.sum(dim=1).clamp(min=1)
        return torch.stack((share, torch.full_like(share, 0.5)), dim=1)


@pytest.mark.parametrize("noise", ["gaussian", "grid"])
def test_a_model_that_spies_on_low_bits_learns_nothing_of_x(noise: str) -> None:
    d, sigma = 2000, 0.5
    card = Sampling(n0=500, seed=1, noise=noise, grid_step="1/255" if noise == "grid" else None)
    rates = []
    for value in (0.0, 128 / 255):
        votes = Engine(Spy(), sigma, 2).votes([Input(0, torch.full((d,), value))], card)[0]
        rates.append(votes[0] / votes.sum())
    assert abs(rates[0] - rates[1]) < 0.05
    # It does learn from float32 noise.
    generator = torch.Generator().manual_seed(2)
    floats = [value + sigma * torch.randn(500, d, generator=generator) for value in (0.0, 128 / 255)]
    seen = [float((Spy()(x).argmax(dim=1) == 0).to(torch.float64).mean()) for x in floats]
    assert abs(seen[0] - seen[1]) > 0.9


def test_radii_are_those_of_gaussian_noise_within_two_hundredths_of_chance(shipped: Table) -> None:
    """Of a half-space of some coordinates, on average over inputs: l1, l2, linf and along a direction."""
    w = torch.randn(24, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    w[8:] *= 0.2

    def model(x: torch.Tensor) -> torch.Tensor:
        score = (x.reshape(len(x), -1).to(torch.float64) - 0.5) @ w + 1.2
        return torch.stack((torch.zeros_like(score), score), dim=1)

    ray = Direction(-w.numpy().reshape(SHAPE), "ray")
    sums: dict[str, dict[str, float]] = {}
    for noise, step in (("gaussian", None), ("grid", "1/255")):
        sampler = Sampler(model, SIGMA, 2, ("l1", "l2", "linf", ray))
        total: dict[str, float] = {}
        for i in range(6):
            x = torch.from_numpy(np.random.default_rng(i).integers(0, 256, SHAPE) / 255)
            drawn = sampler.sample(x, Sampling(100, 60_000, 0.001, 5000, 3, noise=noise, grid_step=step), i)
            result = evaluate(drawn.statistics, sampler.threats, 0.001, "adaptive", shipped, find_tails("tails"))
            assert result.budget.noise == drawn.statistics.charge
            for name, radius in result.radius.items():
                total[name] = total.get(name, 0.0) + float(radius[0])
        sums[noise] = total
    for name, total_ in sums["gaussian"].items():
        assert total_ > 0.0
        assert sums["grid"][name] == pytest.approx(total_, rel=0.02), name


def test_the_charge_lowers_no_level_by_more_than_itself() -> None:
    sampler = Sampler(Scores(24), SIGMA, 3)
    statistics = sampler.sample(_x(), _card(grid_step="1/16")).statistics
    assert 0.0 < statistics.charge < 1e-12
    assert split(0.01, sampler.threats, noise=statistics.charge).q == pytest.approx(split(0.01, sampler.threats).q, rel=1e-9)
