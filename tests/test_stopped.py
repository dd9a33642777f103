"""What a stopped run may not claim: that what it gave up is certified, or a class that it chose after a look."""

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from certlut import Certifier, Table
from certlut.bounds.looks import Goal, Looks, Verdict
from certlut.evaluate import evaluate, find_tails
from certlut.plan.stopping import Method, rules_of
from certlut.report.samples import _point
from certlut.runs.certify import certify_statistics
from certlut.runs.results import read_tsv
from certlut.runs.sample import sample_dataset
from certlut.runs.summary import read_results
from certlut.sampling import looking
from certlut.sampling.card import Sampling
from certlut.sampling.engine import Engine
from certlut.sampling.sampler import Sampler
from certlut.statistics.summary import Statistics
from certlut.threats.sets import L1, L2, LINF
from reference.fields import flat

Array = npt.NDArray[np.float64]
V = np.array([0.9, 0.4, 0.2]) / math.sqrt(1.01)
SIGMA, TARGET, ALPHA = 0.5, 0.4, 0.01
CARD = Sampling(20, 4000, ALPHA, 500, 7, goal=Goal({"l2": TARGET}), looks=4, proposal="votes")


class Half(torch.nn.Module):
    """Class 1 on one side of a plane, number by number."""

    def __init__(self) -> None:
        super().__init__()
        self.v = torch.nn.Buffer(torch.from_numpy(V))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = (x.reshape(len(x), -1).to(torch.float64) * self.v).sum(dim=1)
        return torch.stack((torch.zeros_like(score), score), dim=1)


class Turning(torch.nn.Module):
    """Class 0 for so many noisy rows, class 1 ever after; counts none until told to."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.counting = rows, False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = torch.arange(len(x)) < (self.rows if self.counting else len(x))
        self.rows -= len(x) if self.counting else 0
        return torch.stack((first, ~first), dim=1).to(torch.float64)


class Spy:
    """Never stops, and keeps what it was shown at every look."""

    looks = Looks.geometric(4000, 4)

    def __init__(self) -> None:
        self.shown: list[Statistics] = []

    def by_votes(self, count: int, look: int, divided: bool) -> Verdict | None:
        return None

    def by_statistics(self, statistics: Statistics, look: int) -> list[Verdict]:
        self.shown.append(statistics)
        return [Verdict.GO_ON] * len(statistics)


@pytest.fixture
def method(shipped: Table) -> Method:
    return Method((L1, L2, LINF), ALPHA, "adaptive", shipped, find_tails("tails"))


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the bar says, from the first to the last."""
    found: list[str] = []
    monkeypatch.setattr("rich.progress.Progress.update", lambda *_, description, **__: found.append(description))
    return found


@pytest.fixture
def turning(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model turns by the rows that come after the selection."""
    select = Engine.votes

    def votes(engine: Any, inputs: Any, card: Sampling) -> npt.NDArray[np.int64]:
        out = select(engine, inputs, card)
        engine.model.counting = True
        return out

    monkeypatch.setattr(Engine, "votes", votes)


# Distances in sigma: a target of .8 sigma. Two have a radius, but not that one; two have none; one is wrong.
Z = (2.5, 0.45, 0.0, 1.8, 0.5, 0.02, -2.5)


def _data() -> list[tuple[Array, int]]:
    return [(SIGMA * z * V, 1) for z in Z]


def test_what_was_given_up_is_certified_nowhere(tmp_path: Path, method: Method, notes: list[str]) -> None:
    stats, out = tmp_path / "stats.h5", tmp_path / "out.tsv"
    sampler, rules = Sampler(Half(), SIGMA, 2), rules_of(CARD, method, SIGMA)
    verdicts = [one.drawn.verdict for one in sampler.draw(_data(), range(len(Z)), CARD, 1, rules)]
    assert verdicts == [Verdict.CERTIFIED, *[Verdict.FUTILE] * 2, Verdict.CERTIFIED, *[Verdict.FUTILE] * 2, Verdict.CERTIFIED]
    sampled = sample_dataset(sampler, _data(), stats, CARD, method=method)
    accuracy = 2.0 / len(Z)
    assert re.match(r"certified accuracy (\d\.\d+)", notes[-1]).group(1) == f"{accuracy:.3f}"  # type: ignore[union-attr]
    certify_statistics(stats, out, ALPHA, "adaptive", None, progress=False)
    columns = read_tsv(out)
    given_up = np.array([verdict is Verdict.FUTILE for verdict in verdicts])
    assert (columns["n"][given_up] < 4000).all()
    assert (columns["radius_l2"][given_up] < TARGET).all()
    assert (columns["radius_l2"][given_up] > 0.0).sum() == 2
    assert (columns["radius_l2"][~given_up] >= TARGET).all()
    results = read_results(out)
    assert results.accuracy(results.radius["l2"], TARGET) == pytest.approx(accuracy)
    study: Any = SimpleNamespace(threats=method.threats, config=SimpleNamespace(alpha=ALPHA), table=method.table)
    assert _point(sampled, CARD.goal, study) == (columns["n"].mean(), pytest.approx(accuracy))


def test_certifying_at_once_does_not_count_it_either(tmp_path: Path, shipped: Table, notes: list[str]) -> None:
    certifier = Certifier(Half(), SIGMA, 2, shipped, seed=7, proposal="votes")
    rows = certifier.certify_dataset(_data(), tmp_path / "out.tsv", 20, 4000, ALPHA, 500, target={"l2": TARGET}, looks=4)
    assert notes[-1].startswith(f"certified accuracy {2.0 / len(Z):.3f}")
    assert sum(row["correct"] == 1 and row["radius_l2"] >= TARGET for row in rows) == 2


@pytest.mark.usefixtures("turning")
def test_a_class_that_wins_after_the_selection_is_not_certified(shipped: Table) -> None:
    c = Certifier(Turning(0), SIGMA, 2, shipped, seed=1, proposal="votes").certify(
        np.zeros(3), n0=20, n=4000, target={"l2": TARGET}, looks=4
    )
    assert (c.count, c.n, c.verdict) == (0, 500, "futile")
    assert all(radius == 0.0 for radius in c.radius.values())


@pytest.mark.usefixtures("turning")
@pytest.mark.parametrize("rows", [500, 900])
def test_votes_that_turn_at_a_look_are_counted_for_the_class_of_the_selection(rows: int, method: Method) -> None:
    spy = Spy()
    (one,) = Sampler(Turning(rows), SIGMA, 2).sample_group([(0, np.zeros(3))], CARD, lambda d: spy)
    assert (one.predict, one.votes.tolist()) == (0, [20, 0])
    for statistics, n in zip([*spy.shown, one.statistics], [*Spy.looks.sizes, 4000], strict=True):
        for_it = min(n, rows)
        assert int(statistics.count.sum()) == for_it
        found = evaluate(statistics, method.threats, ALPHA, "adaptive", method.table, method.tails)
        assert bool(found.sure[0]) == (found.radius["l2"][0] > 0.0) == (for_it > 0.55 * n)
    assert one.statistics.classes[0, 0] == 0


@pytest.mark.parametrize("room", [0, 5000])
def test_noise_that_is_drawn_again_is_the_noise_that_would_have_been_kept(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, noise, drawn = Sampler(Half(), SIGMA, 2), Engine.noise, [0]

    def counted(*args: Any) -> Any:
        drawn[-1] += 1
        return noise(*args)

    monkeypatch.setattr(Engine, "noise", counted)
    found = []
    for size in (looking.ROOM, room):
        monkeypatch.setattr(looking, "ROOM", size)
        drawn.append(0)
        found.append([flat(one.drawn.statistics) for one in sampler.draw(_data(), range(len(Z)), CARD, 1, lambda d: Spy())])
    assert found[0] == found[1]
    # The selection, and all inputs together for each look; then also one by one for all looks but the first.
    assert drawn[1] == 1 + 4
    assert drawn[2] > drawn[1] + 3 * (len(Z) - 4)
