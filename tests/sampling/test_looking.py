"""Drawing in looks: what an input is left with is what a run with as many samples gives, and how it was drawn does not matter."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from certlut.bounds.looks import GivingUp, Goal, Looks, Verdict
from certlut.sampling import looking
from certlut.sampling.card import Sampling
from certlut.sampling.engine import Choice, Engine, Input
from certlut.sampling.sampler import Sampler
from certlut.statistics.records import pack
from certlut.statistics.summary import SCALARS, Statistics, summarise
from certlut.threats.projections import Projection
from certlut.threats.sets import L2

SIGMA, CLASSES = 0.5, 3
WANTED = looking.Wanted({"all": Projection()}, {}, lambda moments: summarise(moments, [L2], SIGMA))


class Net(torch.nn.Module):
    """Three planes in float64, so that votes do not hang on rounding; counts the rows that it is asked with."""

    def __init__(self, d: int = 4) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(d, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(d)))
        self.rows: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(x))
        return (x.reshape(len(x), -1).to(torch.float64)[:, :, None] * self.w).sum(dim=1)


class Until:
    """A rule that stops input i, in the order of their first votes, at a look told beforehand; it notes all it was shown."""

    def __init__(self, looks: Looks, stops: Callable[[Statistics], Sequence[bool]]) -> None:
        self._looks, self._stops = looks, stops
        self.shown: list[tuple[int, Statistics]] = []

    @property
    def looks(self) -> Looks:
        return self._looks

    def by_votes(self, count: int, look: int, divided: bool) -> Verdict | None:
        return None

    def by_statistics(self, statistics: Statistics, look: int) -> list[Verdict]:
        self.shown.append((look, statistics))
        return [Verdict.CERTIFIED if stop else Verdict.GO_ON for stop in self._stops(statistics)]


def _inputs(count: int = 5) -> list[tuple[int, torch.Tensor]]:
    rng = np.random.default_rng(3)
    return [(i, torch.from_numpy(rng.normal(0.0, 0.4, 4))) for i in range(count)]


def _card(n: int = 3000, batch_size: int = 700, **options: Any) -> Sampling:
    return Sampling(20, n, 0.01, batch_size, 5, **{"goal": Goal({"l2": 0.4}), "looks": 4} | options)


def _plain(index: int, x: torch.Tensor, n: int, proposal: str) -> Statistics:
    card = Sampling(20, n, 0.01, 700, 5, proposal=proposal)
    return Sampler(Net(), SIGMA, CLASSES).sample(x, card, index).statistics


def _same(a: Statistics, b: Statistics) -> None:
    """All but what tells of looks and of what was to propose; whole numbers to the bit, sums up to their order."""
    a = replace(a, looks=b.looks, schedule=b.schedule, proposal=b.proposal)
    ours, theirs = pack(a), pack(b)
    assert ours["count"] == theirs["count"]
    assert ours["class_count"] == theirs["class_count"]
    assert ours["tails"] == theirs["tails"]
    assert ours.keys() == theirs.keys()
    for name, part in a.parts.items():
        for field in SCALARS:
            assert np.allclose(getattr(part, field), getattr(b.parts[name], field), rtol=1e-9, atol=1e-12, equal_nan=True), field


def _undecided(statistics: Statistics) -> list[bool]:
    """Stops some inputs, by their votes."""
    share = statistics.count.sum(axis=1) / statistics.n.sum(axis=1)
    return [bool(abs(one - 0.7) > 0.12) for one in share]


@pytest.mark.parametrize("proposal", ["votes", "auto"])
def test_statistics_at_every_look_are_those_of_a_run_with_as_many_samples(proposal: str) -> None:
    card = _card(proposal=proposal)
    rule = Until(Looks.geometric(3000, 4), _undecided)
    inputs = _inputs()
    drawn = list(Sampler(Net(), SIGMA, CLASSES).sample_group(inputs, card, lambda d: rule))
    stopped = [int(one.statistics.looks[0]) for one in drawn]
    assert {1, 4} <= set(stopped)
    for (index, x), one in zip(inputs, drawn, strict=True):
        look, n = int(one.statistics.looks[0]), int(one.statistics.n.sum())
        assert n == rule.looks.sizes[look - 1]
        # The gradient is proposed at the last look alone: n is less than ten times the 250 copies before.
        _same(one.statistics, _plain(index, x, n, proposal if look == 4 else "votes"))
        assert Looks.of(one.statistics.schedule) == rule.looks
    # The rule was shown these statistics, at every look on the way.
    assert [look for look, _ in rule.shown] == [1, 2, 3, 4]
    assert [len(statistics) for _, statistics in rule.shown] == [sum(s >= look for s in stopped) for look in (1, 2, 3, 4)]
    assert [one.verdict for one in drawn] == [
        Verdict.CERTIFIED if stop else Verdict.GO_ON for stop in (_undecided(one.statistics)[0] for one in drawn)
    ]


def test_noise_on_a_grid_has_looks_too() -> None:
    step, rule = Fraction(1, 16), Until(Looks.geometric(3000, 4), _undecided)
    grid = {"noise": "grid", "grid_step": step, "proposal": "votes"}
    inputs = [(i, torch.from_numpy(np.rint(16.0 * x.numpy()) / 16.0)) for i, x in _inputs(3)]
    drawn = list(Sampler(Net(), SIGMA, CLASSES).sample_group(inputs, _card(**grid), lambda d: rule))
    for (index, x), one in zip(inputs, drawn, strict=True):
        card = Sampling(20, int(one.statistics.n.sum()), 0.01, 700, 5, **grid)
        plain = Sampler(Net(), SIGMA, CLASSES).sample(x, card, index).statistics
        # What the law of the noise costs is that of all n samples.
        assert one.statistics.charge >= plain.charge > 0.0
        _same(replace(one.statistics, noise=plain.noise), plain)


def test_neither_the_batch_nor_the_company_changes_what_an_input_is_left_with() -> None:
    inputs, rules = _inputs(6), lambda d: Until(Looks.geometric(3000, 4), _undecided)
    whole = [one.statistics for one in Sampler(Net(), SIGMA, CLASSES).sample_group(inputs, _card(), rules)]
    for batch_size, groups in ((700, [[5], [3, 0], [1, 2, 4]]), (64, [range(6)]), (10_000, [[4, 3, 2, 1, 0, 5]])):
        sampler = Sampler(Net(), SIGMA, CLASSES)
        for places in groups:
            group = [inputs[place] for place in places]
            for place, one in zip(places, sampler.sample_group(group, _card(batch_size=batch_size), rules), strict=True):
                _same(one.statistics, whole[place])
                assert one.statistics.looks == whole[place].looks


def test_the_model_is_asked_once_for_each_sample_and_in_full_batches() -> None:
    net, card = Net(), _card(proposal="votes")
    sampler = Sampler(net, SIGMA, CLASSES)
    inputs = _inputs(16)
    list(sampler.sample_group(inputs[:1], card, lambda d: Until(Looks.geometric(3000, 4), _undecided)))
    net.rows.clear()
    drawn = list(sampler.sample_group(inputs, card, lambda d: Until(Looks.geometric(3000, 4), _undecided)))
    assert sum(net.rows) == 16 * 20 + sum(int(one.statistics.n.sum()) for one in drawn)
    # At most one batch that is not full for the selection and for each look.
    assert sum(rows < 700 for rows in net.rows) <= 5


def test_the_class_is_chosen_before_the_first_look_and_stays() -> None:
    # The n0 votes choose a class that the samples then speak against.
    def for_the_other(batch: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[0.0, 1.0]]).repeat(len(batch), 1)

    x, engine = torch.tensor([0.0, 0.0]), Engine(for_the_other, SIGMA, 2)
    one = looking.Looking(engine, [Input(0, x)], [Choice(0, 0, 20)], _card(proposal="votes"), WANTED)
    (found,) = one.until(Until(Looks.geometric(3000, 4), lambda statistics: [False] * len(statistics)))
    assert found.moments.count.sum() == 0
    assert found.moments.classes[0, 0] == 0
    assert found.moments.looks == 4


def test_an_input_certain_to_abstain_is_stopped_by_its_votes_alone_and_sooner_the_worse_it_is() -> None:
    def for_one(x: torch.Tensor) -> torch.Tensor:
        return torch.stack((torch.zeros(len(x)), x[:, 0]), dim=1)

    inputs = [Input(i, torch.tensor([value, 0.0])) for i, value in enumerate((-0.5, 0.5, -0.1, 0.01))]
    engine, n = Engine(for_one, SIGMA, 2), 20_001
    card, looks = Sampling(n=n, seed=3, batch_size=777, early_stop=True, proposal="votes"), Looks.giving_up(20_001)
    found = looking.Looking(engine, inputs, [Choice(1, 1, 10)] * 4, card, WANTED).until(GivingUp(looks, 0.001))
    drawn = [int(one.moments.n.sum()) for one in found]
    # q = 0.16, 0.84, 0.42, 0.51.
    assert drawn[1] == drawn[3] == n
    assert 0.5 * n < drawn[0] <= 0.6 * n + n / 32 + 1
    assert drawn[0] < drawn[2] <= 0.9 * n + n / 32 + 1
    # The last one abstains with all its samples.
    assert [one.verdict for one in found] == [Verdict.FUTILE, Verdict.GO_ON, Verdict.FUTILE, Verdict.FUTILE]
    whole = engine.moments(inputs, [Choice(1, 1, 10)] * 4, replace(card, early_stop=False))
    for place in (1, 3):
        assert np.allclose(found[place].moments.sum_uf, whole[place].sum_uf, rtol=1e-12, atol=0.0)
        assert found[place].moments.count.tolist() == whole[place].count.tolist()


def test_scores_that_are_not_numbers_are_refused_with_the_input() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x), 2), torch.nan if float(x[:, 0].mean()) > 1.0 else 0.0)

    inputs = [Input(4, torch.zeros(2)), Input(9, torch.full((2,), 3.0))]
    one = looking.Looking(Engine(broken, SIGMA, 2), inputs, [Choice(0, 0, 9)] * 2, _card(batch_size=500), WANTED)
    with pytest.raises(ValueError, match="NaN scores at input 9"):
        one.until(Until(Looks.geometric(3000, 4), lambda statistics: [False] * len(statistics)))


def test_a_goal_without_a_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="expected rules"):
        Sampler(Net(), SIGMA, CLASSES).sample(torch.zeros(4), _card())
