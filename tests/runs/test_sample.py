import resource
from dataclasses import fields, make_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from certlut import Certifier, Subspace, Table
from certlut.bounds.binomial import lower_probability
from certlut.jobs.journal import Journal
from certlut.runs.certify import certify_statistics
from certlut.runs.results import read_tsv
from certlut.runs.sample import journal_format, sample_dataset
from certlut.sampling.card import Sampling
from certlut.sampling.sampler import Sampler
from certlut.statistics.file import Sampled, read_statistics, write_statistics
from certlut.statistics.records import join, layout
from certlut.statistics.summary import Moments, Part, summarise
from certlut.threats.declare import Direction
from certlut.threats.sets import ALL, L1, L2, Threat
from reference.fields import flat
from reference.naive_statistics import half_space

SIGMA, SEED, N0, N, ALPHA = 0.5, 4, 20, 2001, 0.01


def _model(x: torch.Tensor) -> torch.Tensor:
    """Class 1 where the first number is positive."""
    first = x.reshape(len(x), -1)[:, 0]
    return torch.stack((torch.zeros_like(first), first), dim=1)


def _data() -> list[tuple[npt.NDArray[np.float64], int]]:
    rng = np.random.default_rng(30)
    inputs = rng.normal(0.3, 0.5, (6, 2, 2))
    inputs[2] = 0.0
    return [(x, int(x[0, 0] > 0.0)) for x in inputs]


CARD = Sampling(N0, N, ALPHA, 300, SEED)


def _sampler(threats: tuple[str | Threat, ...] = ("l1", "l2", "linf")) -> Sampler:
    return Sampler(_model, SIGMA, 2, threats)


@pytest.fixture
def loaded(shipped: Table, monkeypatch: pytest.MonkeyPatch) -> list[Path | None]:
    """The shipped table in place of the one that is looked for; the paths that were asked for."""
    asked: list[Path | None] = []

    def load(path: Path | None = None) -> Table:
        asked.append(path)
        return shipped

    monkeypatch.setattr("certlut.runs.certify.load", load)
    return asked


def test_sampling_then_certifying_gives_what_certifying_at_once_gives(
    tmp_path: Path, shipped: Table, loaded: list[Path | None]
) -> None:
    stats, two, one = tmp_path / "stats.h5", tmp_path / "two.tsv", tmp_path / "one.tsv"
    sampled = sample_dataset(_sampler(), _data(), stats, CARD, {"model": "first"})
    budget, rows = certify_statistics(stats, two, ALPHA, "adaptive", Path("a.h5"))
    at_once = Certifier(_model, SIGMA, 2, shipped, seed=SEED).certify_dataset(_data(), one, N0, N, ALPHA, 1000, progress=False)
    assert rows == len(at_once) == len(_data())
    assert loaded == [Path("a.h5")]
    assert budget.total <= ALPHA
    # Two numbers an input, so that l2 uses tails too.
    assert set(budget.users) == {quantity for threat in _sampler().threats for quantity in threat.needs()} | {ALL}
    first, second = read_tsv(two), read_tsv(one)
    assert list(first) == list(second)
    for name, values in first.items():
        # The batches differed: sums agree to rounding, votes exactly.
        tolerance = 2e-6 if name.startswith("radius") else 0.0
        assert np.allclose(values, second[name], rtol=0, atol=tolerance), name
    assert first["predict"][2] == -1
    assert np.count_nonzero(first["radius_l1"]) >= 4
    assert sampled.settings["information"] == {"model": "first", "alpha": ALPHA, "batch_size": 300}
    wanted = {"n0": N0, "n": N, "seed": SEED, "sigma": SIGMA, "num_classes": 2, "inputs": 6, "early_stop": None, "autocast": None}
    assert {name: sampled.settings[name] for name in wanted} == wanted


def test_one_sampling_serves_every_alpha(tmp_path: Path, loaded: list[Path | None]) -> None:
    stats = tmp_path / "stats.h5"
    sample_dataset(_sampler(), _data(), stats, CARD)
    radii = []
    for alpha in (1e-8, 1e-3, 0.2):
        certify_statistics(stats, tmp_path / "results.tsv", alpha, "adaptive", None)
        radii.append(read_tsv(tmp_path / "results.tsv")["radius_l1"])
    assert np.all(radii[0] <= radii[1])
    assert np.all(radii[1] <= radii[2])
    assert radii[0].sum() < radii[1].sum() < radii[2].sum()


def test_what_is_written_is_what_is_returned(tmp_path: Path) -> None:
    stats = tmp_path / "stats.h5"
    sampled = sample_dataset(_sampler(), _data(), stats, CARD)
    read = read_statistics(stats)
    assert read.idx.tolist() == list(range(len(_data())))
    assert read.label.tolist() == [label for _, label in _data()]
    assert read.predict.tolist() == sampled.predict.tolist()
    assert read.seconds.tolist() == sampled.seconds.tolist()
    assert read.statistics.n.tolist() == [[N // 2, N - N // 2]] * len(_data())
    for i, (x, _) in enumerate(_data()):
        _, predict, alone, _ = _sampler().sample(x, CARD, i)
        assert read.predict[i] == predict
        assert read.statistics.count[i].tolist() == alone.count[0].tolist()
        assert read.statistics.parts["all"].inner[i] == alone.parts["all"].inner[0]


def test_votes_that_are_sure_at_the_full_alpha_alone_abstain_with_every_radius_0(tmp_path: Path, loaded: list[Path | None]) -> None:
    n = 100_000
    count = next(k for k in range(n // 2, n) if lower_probability(k, n, ALPHA) > 0.5)
    moments = Moments(np.array([n // 2] * 2), np.array([count - count // 2, count // 2]), np.zeros((2, 3)), np.zeros((2, 3)))
    zero = np.zeros(1, dtype=np.int64)
    sampled = Sampled(summarise([moments], (L2,), SIGMA), zero, zero, zero, zero.astype(float), {})
    write_statistics(tmp_path / "stats.h5", sampled)
    certify_statistics(tmp_path / "stats.h5", tmp_path / "results.tsv", ALPHA, "adaptive", None)
    columns = read_tsv(tmp_path / "results.tsv")
    assert columns["predict"].tolist() == [-1.0]
    assert {name: values[0] for name, values in columns.items() if "radius" in name and values[0] != 0.0} == {}


def test_joining_keeps_order_and_every_part() -> None:
    mask = np.array([True, False, True])
    threats = (L1, L2, Subspace(mask, 2, "red"), Direction(np.ones(3), "along"))
    moments = half_space(np.array([0.6, 0.0, 0.8]), 0.5).moments(np.random.default_rng(31), 5, 99)
    whole = summarise(moments, threats, SIGMA)
    joined = join(
        [summarise(moments[:2], threats, SIGMA), summarise(moments[2:3], threats, SIGMA), summarise(moments[3:], threats, SIGMA)]
    )
    assert (len(joined), joined.sigma, joined.d) == (5, SIGMA, 3)
    assert joined.count.tolist() == whole.count.tolist()
    assert joined.n.tolist() == whole.n.tolist()
    assert set(joined.parts) == set(whole.parts)
    for name, part in whole.parts.items():
        for field in Part.__dataclass_fields__:
            ours, theirs = np.asarray(getattr(joined.parts[name], field)), np.asarray(getattr(part, field))
            assert ours.tobytes() == theirs.tobytes()


def test_every_third_input_is_numbered_and_drawn_as_in_the_whole_set(tmp_path: Path) -> None:
    whole = sample_dataset(_sampler(), _data(), tmp_path / "whole.h5", CARD)
    third = sample_dataset(_sampler(), _data()[::3], tmp_path / "third.h5", CARD, skip=3)
    assert third.idx.tolist() == [0, 3]
    assert third.label.tolist() == whole.label[::3].tolist()
    assert third.statistics.count.tolist() == whole.statistics.count[::3].tolist()
    with pytest.raises(ValueError, match="skip was 3, is 1"):
        sample_dataset(_sampler(), _data()[::3], tmp_path / "third.h5", CARD)


def test_an_empty_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the data set is empty: nothing to sample"):
        sample_dataset(_sampler(), [], tmp_path / "stats.h5", CARD)
    assert list(tmp_path.iterdir()) == []


def test_an_n_that_cannot_reach_alpha_is_said_before_sampling(tmp_path: Path) -> None:
    def never(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the model must not be asked")

    with pytest.raises(ValueError, match="n = 3: even a unanimous vote"):
        sample_dataset(Sampler(never, SIGMA, 2), _data(), tmp_path / "stats.h5", replace(CARD, n=3))


def test_a_folder_that_is_not_there_is_said_before_reading(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder to write results\.tsv in"):
        certify_statistics(tmp_path / "stats.h5", tmp_path / "nowhere" / "results.tsv", ALPHA, "adaptive", None)


def test_a_statistics_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"stats\.h5: no such statistics file"):
        certify_statistics(tmp_path / "stats.h5", tmp_path / "results.tsv", ALPHA, "adaptive", None)


@pytest.mark.parametrize(("alpha", "estimator", "message"), [(0.0, "paper", "alpha = 0"), (0.01, "none", "estimator 'none'")])
def test_bad_arguments_leave_no_results(
    alpha: float, estimator: str, message: str, tmp_path: Path, loaded: list[Path | None]
) -> None:
    sample_dataset(_sampler(("l2",)), _data()[:1], tmp_path / "stats.h5", CARD)
    with pytest.raises(ValueError, match=message):
        certify_statistics(tmp_path / "stats.h5", tmp_path / "results.tsv", alpha, estimator, None)
    assert [path.name for path in tmp_path.iterdir()] == ["stats.h5"]


def test_statistics_sampled_for_l2_alone_still_give_l1_and_linf(tmp_path: Path, loaded: list[Path | None]) -> None:
    for name, threats in (("few", ("l2",)), ("all", ("l1", "l2", "linf"))):
        sample_dataset(_sampler(threats), _data(), tmp_path / f"{name}.h5", CARD)
        certify_statistics(tmp_path / f"{name}.h5", tmp_path / f"{name}.tsv", ALPHA, "adaptive", None, ("l1", "l2", "linf"))
    few, every = (read_tsv(tmp_path / f"{name}.tsv") for name in ("few", "all"))
    assert {name: values.tolist() for name, values in few.items()} == {name: values.tolist() for name, values in every.items()}


# Stops, and going on


def _net(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))


def _sample(out: Path, model: Any = None, n: int = 301, **changes: Any) -> Sampled:
    """Groups of 3 of the 6 inputs."""
    given = {name: changes.pop(name) for name in ("data", "sigma", "threats") if name in changes}
    sampler = Sampler(model or Counting(), given.get("sigma", SIGMA), 2, given.get("threats", ("l1", "l2")))
    card = Sampling(**{"n0": N0, "n": n, "alpha": ALPHA, "seed": SEED, "proposal": "votes"} | changes)
    return sample_dataset(sampler, given.get("data", _data()), out, card, progress=False)


def _flat(sampled: Sampled) -> list[Any]:
    columns = [getattr(sampled, name).tolist() for name in ("idx", "label", "predict")]
    return [*columns, flat(sampled.statistics), sampled.settings]


class Counting(torch.nn.Module):
    """The net, in a model that counts the calls of its samples, and stops or returns NaN at one of them.

    It is looked at first, with batches of other sizes than those that choose the classes of 3 inputs.
    """

    def __init__(self, stop: int = 10**9, nan: int = 10**9) -> None:
        super().__init__()
        self.layers, self.calls, self.until_stop, self.until_nan = _net(), 0, stop, nan

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layers(x)
        if self.calls == 0 and len(x) != 3 * N0:
            return scores
        self.calls, self.until_stop, self.until_nan = self.calls + 1, self.until_stop - 1, self.until_nan - 1
        if self.until_stop == 0:
            raise KeyboardInterrupt
        return scores * (torch.nan if self.until_nan == 0 else 1.0)


def test_a_run_cut_at_any_byte_of_its_journal_ends_the_same(tmp_path: Path) -> None:
    whole = _sample(tmp_path / "whole.h5")
    out, journal = tmp_path / "out.h5", tmp_path / "out.h5.journal"
    # The second group's moments are the fourth call; then all records of both groups are made to be there.
    with pytest.raises(KeyboardInterrupt):
        _sample(out, Counting(4))
    half = journal.read_bytes()
    full = _whole_journal(out)
    assert full.startswith(half)
    calls = set()
    for cut in (0, 3, 100, len(half) - 500, len(half) - 1, len(half), len(half) + 20, len(full) - 500, len(full) - 1, len(full)):
        journal.write_bytes(full[:cut])
        model = Counting()
        assert _flat(_sample(out, model)) == _flat(whole)
        assert [path.name for path in sorted(tmp_path.iterdir())] == ["out.h5", "whole.h5"]
        calls.add(model.calls)
        out.unlink()
    # A group takes two calls.
    assert calls == {4, 2, 0}


def _whole_journal(out: Path) -> bytes:
    """The journal as it is just before the statistics are written."""

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("certlut.runs.sample.write_statistics", kill)
        with pytest.raises(KeyboardInterrupt):
            _sample(out)
    return Path(f"{out}.journal").read_bytes()


def test_a_run_of_a_version_with_other_records_is_refused_by_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, journal = tmp_path / "out.h5", tmp_path / "out.h5.journal"
    with monkeypatch.context() as older:
        older.setattr("certlut.runs.sample.STATISTICS_VERSION", 2)
        with pytest.raises(KeyboardInterrupt):
            _sample(out, Counting(4))
    before = journal.read_bytes()
    with pytest.raises(
        ValueError, match=r"journal: written by certlut \S+ \(format statistics 2, .*\), .* \(format statistics 3, "
    ):
        _sample(out)
    assert journal.read_bytes() == before


def test_records_are_known_by_their_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    before = layout()
    assert layout() == before
    monkeypatch.setattr("certlut.statistics.records.Part", make_dataclass("Part", [f.name for f in fields(Part)][1:]))
    assert layout() != before


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    whole, out = _sample(tmp_path / "whole.h5"), tmp_path / "out.h5"
    journal = _whole_journal(tmp_path / "other.h5")
    (tmp_path / "other.h5.journal").unlink()
    assert len(journal) + 100 < (tmp_path / "whole.h5").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No room for the last record; then for the journal but not for the statistics.
    for room, done in ((len(journal) - 20, 5), (len(journal) + 100, 6)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            with pytest.raises(OSError, match=r"File too large.*out\.h5"):
                _sample(out)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        settings = {name: value for name, value in whole.settings.items() if name != "information"}
        with Journal(out, settings | {"format": journal_format()}) as left:
            assert len(left.records) == done
        assert not out.exists()
    model = Counting()
    assert _flat(_sample(out, model)) == _flat(whole)
    assert model.calls == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": _net(1)}, r"model digest was '.*', is '.*'"),
        ({"data": [*_data()[:5], (_data()[5][0] + 1e-9, 1)]}, r"data digest was '.*', is '.*'"),
        ({"data": [*_data()[:5], (_data()[5][0], 1 - _data()[5][1])]}, r"data digest was"),
        ({"data": _data()[:4]}, r"inputs was 6, is 4"),
        ({"sigma": 0.25}, r"sigma was 0\.5, is 0\.25"),
        ({"seed": 5}, r"seed was 4, is 5"),
        ({"n": 302}, r"n was 301, is 302"),
        ({"threats": ("l2",)}, r"norms was"),
        ({"threats": ("l1", "l2", Direction(np.ones((2, 2)), "along"))}, r"threats was"),
        ({"autocast": "bf16"}, r"autocast was None, is 'bf16'"),
        ({"channels_last": True}, r"channels_last was False, is True"),
        ({"compile": "eager"}, r"compile was False, is 'eager'"),
        ({"early_stop": True}, r"early_stop was None, is 0\.01"),
        ({"proposal": "auto"}, r"proposal was {'by': 'votes'}, is {'by': 'gradient'"),
    ],
)
def test_a_change_is_refused_by_name_while_stopped_and_when_finished(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    out, journal = tmp_path / "out.h5", tmp_path / "out.h5.journal"
    with pytest.raises(KeyboardInterrupt):
        _sample(out, Counting(4))
    before = journal.read_bytes()
    with pytest.raises(ValueError, match=rf"out\.h5\.journal: started with other settings: .*{message}.*; delete it"):
        _sample(out, **changes)
    assert journal.read_bytes() == before
    _sample(out)
    finished = out.read_bytes()
    with pytest.raises(ValueError, match=rf"out\.h5: holds the statistics of other settings: .*{message}.*; delete it"):
        _sample(out, **changes)
    assert out.read_bytes() == finished
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]


def test_a_finished_file_is_not_sampled_again_with_any_batch_size(tmp_path: Path) -> None:
    first = _sample(tmp_path / "out.h5")
    before = (tmp_path / "out.h5").read_bytes()
    model = Counting()
    assert _flat(_sample(tmp_path / "out.h5", model)) == _flat(first)
    assert model.calls == 0
    assert (tmp_path / "out.h5").read_bytes() == before


def test_a_model_that_fails_at_an_input_keeps_those_before(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the model returned NaN scores at input 3"):
        _sample(tmp_path / "out.h5", Counting(nan=3))
    with pytest.raises(ValueError, match=r"scores of shape \(16, 2\), expected \(16, 3\) \(3 classes\)"):
        sample_dataset(Sampler(_net(), SIGMA, 3), _data(), tmp_path / "new.h5", Sampling(N0, 301, ALPHA), progress=False)
    model = Counting()
    whole = _sample(tmp_path / "out.h5", model)
    assert model.calls == 2
    assert whole.idx.tolist() == list(range(6))
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]


def test_stopping_early_certifies_the_same(tmp_path: Path, loaded: list[Path | None]) -> None:
    n, alpha = 20_000, 0.001
    for name, early in (("all", False), ("early", True)):
        card = Sampling(1, n, alpha, 5000, SEED, early_stop=early)
        # A class that is wrong for sure: chosen from one sample.
        data = [(np.full((2, 2), value), 1) for value in (-0.6, -0.3, 0.02, 0.3, 0.6)] * 2
        sample_dataset(_sampler(), data, tmp_path / f"{name}.h5", card, progress=False)
    fewer = read_statistics(tmp_path / "early.h5").statistics.n.sum(axis=1) < n
    assert 1 <= fewer.sum() < 10
    # Nothing is certified of what was given up, at any alpha.
    for level in (1e-9, alpha, 0.4, 0.9):
        rows = []
        for name in ("all", "early"):
            certify_statistics(tmp_path / f"{name}.h5", tmp_path / f"{name}.tsv", level, "adaptive", None)
            rows.append(read_tsv(tmp_path / f"{name}.tsv"))
        assert (rows[1]["predict"][fewer] == -1).all()
        assert (rows[1]["radius_l1"][fewer] == 0).all()
        assert (rows[1]["radius_cohen"][fewer] == 0).all()
        for column in rows[0]:
            same = rows[0][column] == rows[1][column]
            assert same[~fewer].all()
            if level <= alpha and (column == "predict" or "radius" in column):
                assert same.all(), column
