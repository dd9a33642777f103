"""A model or data set that is not the same is not taken for the same; one that is the same is known again."""

import functools
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from certlut import Subspace, Table
from certlut.inputs.data import Arrays
from certlut.inputs.models import load_model
from certlut.jobs.journal import differing
from certlut.jobs.shards import Shard
from certlut.report import study
from certlut.report.card import Config
from certlut.runs.certify import certify_statistics
from certlut.runs.merge import merge
from certlut.runs.sample import sample_dataset
from certlut.sampling.card import Sampling
from certlut.sampling.identity import data_digest, file_digest
from certlut.sampling.sampler import Sampler
from certlut.statistics.file import read_statistics
from certlut.threats.sets import L2, Ball, Threat


def test_the_digest_of_a_data_set_sees_every_input_and_label() -> None:
    def data() -> list[tuple[npt.NDArray[np.float32], int]]:
        return [(np.full(3, i, dtype=np.float32), i % 2) for i in range(100)]

    digests = {data_digest([]), data_digest(data()), data_digest(data()[:99]), data_digest([*data()[:99], (np.zeros(3), 1)])}
    for i in range(100):
        x, y = data(), data()
        x[i][0][1] += 1e-6 * (1 + i)
        y[i] = (y[i][0], 1 - y[i][1])
        digests |= {data_digest(x), data_digest(y)}
    assert len(digests) == 204
    assert data_digest(data()) == data_digest(data())


DATA = Arrays(np.linspace(-1.0, 1.0, 6, dtype=np.float32).reshape(2, 3), np.array([0, 1]))

# Models


class Shifted(torch.nn.Module):
    """A linear classifier of x - mean, which is neither parameter nor buffer."""

    def __init__(self, mean: float, weight: float = 1.0) -> None:
        super().__init__()
        self.mean = mean
        self.linear = torch.nn.Linear(3, 2)
        with torch.no_grad():
            self.linear.weight.copy_(weight * torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.2, 1.0]]))
            self.linear.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x - self.mean)


class Squared(Shifted):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x * x - self.mean)


def scripted(mean: float, path: Path) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(Shifted(mean), torch.zeros(2, 3)).save(path)
        return load_model(str(path))  # type: ignore[return-value]


class Typed(Shifted):
    """The mean as an attribute of the program, not a constant in it."""

    mean: float


class Inside(torch.nn.Module):
    def __init__(self, mean: float) -> None:
        super().__init__()
        self.inner = Typed(mean)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2.0 * self.inner(x)


def compiled(mean: float, path: Path) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Inside(mean)).save(path)
        return load_model(str(path))  # type: ignore[return-value]


def exported(mean: float, path: Path) -> torch.nn.Module:
    program = torch.export.export(Shifted(mean), (torch.zeros(2, 3),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, path)
    return load_model(str(path))  # type: ignore[return-value]


class Folded(torch.nn.Module):
    """The mean as a tensor that is not part of the state."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((3,), mean), persistent=False)
        self.linear = torch.nn.Linear(3, 2)
        torch.nn.init.ones_(self.linear.weight)
        torch.nn.init.zeros_(self.linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x - self.mean)


def closed(mean: float) -> Callable[[torch.Tensor], torch.Tensor]:
    inner = Shifted(0.0)
    return lambda x: inner(x - mean)


def known(model: Any, x: Any = None, batch_size: int = 100) -> dict[str, Any]:
    """What a run's settings say of a model."""
    data = Arrays(np.asarray(DATA.x if x is None else x), np.array([0, 1]))
    settings = Sampler(model, 0.5, 2).settings(data, Sampling(20, 200, batch_size=batch_size, seed=3))
    return {name: settings[name] for name in ("model digest", "model scores")}


def alike(first: Any, second: Any) -> bool:
    return not differing(known(first), known(second))


@pytest.mark.parametrize(
    ("make", "suffix"),
    [
        (lambda mean, _: Shifted(mean), ""),
        (lambda mean, _: torch.nn.Sequential(Shifted(mean)), ""),
        (lambda mean, _: Folded(mean), ""),
        (lambda mean, _: closed(mean), ""),
        (lambda mean, _: functools.partial(lambda x, by: Shifted(0.0)(x * by), by=mean), ""),
        (lambda mean, _: Shifted(mean).forward, ""),
        (scripted, ".ts"),
        (compiled, ".ts"),
        (exported, ".pt2"),
    ],
)
def test_a_number_outside_the_state_tells_two_models_apart(make: Any, suffix: str, tmp_path: Path) -> None:
    one, two, other = (make(mean, tmp_path / f"{place}{suffix}") for place, mean in enumerate((0.1, 0.1, 0.2)))
    assert alike(one, two)
    assert not alike(one, other)


class Hidden:
    """A number where no look at a model's attributes would find it."""

    __slots__ = ("mean",)


class Reading(Shifted):
    """Reads the mean from an object without a dictionary."""

    def __init__(self, mean: float) -> None:
        super().__init__(0.0)
        self.hidden = Hidden()
        self.hidden.mean = mean

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x - self.hidden.mean)


def hooked(scale: float) -> torch.nn.Module:
    model = Shifted(0.1)
    model.register_forward_pre_hook(lambda _, args: (scale * args[0],))
    return model


def steps(*order: str) -> torch.nn.Module:
    """Modules that share a layer: their order is no part of the state."""
    torch.manual_seed(0)
    layers = {"linear": torch.nn.Linear(3, 3), "relu": torch.nn.ReLU(), "last": torch.nn.Linear(3, 2)}
    return torch.nn.Sequential(*(layers[name] for name in order))


def tied(tie: bool) -> torch.nn.Module:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
    for place, layer in enumerate(model):
        torch.nn.init.constant_(layer.weight, 0.1 + 0.2 * place)  # type: ignore[arg-type]
        torch.nn.init.constant_(layer.bias, 0.3)  # type: ignore[arg-type]
    if tie:
        model[1].weight = model[0].weight
    return model


def test_whatever_changes_the_scores_tells_models_apart() -> None:
    pairs: list[tuple[Any, Any]] = [
        (Shifted(0.1), Squared(0.1)),
        (Shifted(0.1), Shifted(0.1, 1.5)),
        (Reading(0.1), Reading(0.2)),
        (hooked(1.0), hooked(1.1)),
        (hooked(1.0), hooked(-1.0)),
        (steps("linear", "relu", "last"), steps("linear", "relu", "linear", "last")),
        (tied(True), tied(False)),
        (lambda x: x[:, :2] + torch.tensor([0.0, 0.1]), lambda x: x[:, :2] + torch.tensor([0.1, 0.0])),
        # Votes instead of scores.
        *[(voting(0.1), voting(other)) for other in (-0.2, 0.4, -1.1)],
    ]
    for place, (one, other) in enumerate(pairs):
        assert alike(one, one), place
        assert not alike(one, other), place
    # No vote sees this.
    assert alike(lambda x: x[:, :2], lambda x: x[:, :2] + x[:, 2:])


def voting(threshold: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: torch.stack([x[:, 0] < threshold, x[:, 0] >= threshold], dim=1).float()


def test_any_weight_tells_models_apart_and_use_does_not() -> None:
    model, other = Shifted(0.1), Shifted(0.1)
    before = known(model)
    model.eval()(torch.zeros(2, 3)).sum().backward()
    assert known(model) == before
    with torch.no_grad():
        # Below what scores are compared to.
        other.linear.weight[0, 0] += 1e-6
    assert [name for name, *_ in differing(known(other), before)] == ["model digest"]
    assert not alike(model, Shifted(0.1).double())
    assert alike(torch.nn.DataParallel(Shifted(0.1)), Shifted(0.1))
    assert alike(torch.compile(Shifted(0.1), backend="eager"), Shifted(0.1))


def test_scores_that_differ_by_rounding_are_the_same() -> None:
    scores = known(Shifted(0.1))["model scores"]
    assert len(scores) == 64
    size = max(map(abs, scores))
    for shift, same in ((9e-4, True), (1.1e-3, False)):
        other = {"model scores": [*scores[:9], scores[9] + shift * size, *scores[10:]]}
        assert (differing({"model scores": scores}, other) == []) is same
    assert differing({"model scores": scores}, {"model scores": scores[1:]}) != []
    assert differing({"model scores": []}, {"model scores": scores}) != []


def test_any_model_that_can_be_certified_has_settings() -> None:
    """Tensors and attributes of every kind; scores that are infinite or NaN."""
    model = Shifted(0.1)
    model.sparse = torch.nn.Buffer(torch.eye(3).to_sparse())
    model.conjugate = torch.nn.Buffer(torch.tensor([1.0 + 2.0j]).conj())
    model.itself = {"model": model}  # type: ignore[assignment]
    assert known(model) == known(model)
    for odd in (torch.inf, -torch.inf, torch.nan):
        masked = known(lambda x, odd=odd: torch.stack([x[:, 0], torch.full_like(x[:, 0], odd)], dim=1))
        assert np.isfinite(masked["model scores"]).all()
    # Every CPU build has it; elsewhere its warnings are an error.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = [torch.ao.quantization.quantize_dynamic(Shifted(0.1, w), {torch.nn.Linear}) for w in (1.0, 1.0, 1.5)]
        # Their rounding depends on the largest number in a batch: one row at a time.
        first, same, other = (known(model, batch_size=1) for model in quantized)
        assert not differing(first, same)
        assert differing(first, other)
        with pytest.raises(ValueError, match="depend on the other rows"):
            known(quantized[0])


def test_a_model_that_fits_a_few_rows_only_has_settings() -> None:
    def small(x: torch.Tensor) -> torch.Tensor:
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return Shifted(0.1)(x)

    assert known(small)["model scores"] == pytest.approx(known(Shifted(0.1))["model scores"], rel=1e-5)


class Counting(Shifted):
    """Counts, times and keeps its calls, and has a cache by batch size."""

    def __init__(self, mean: float) -> None:
        super().__init__(mean)
        self.calls, self.inputs, self.cache = 0, list[torch.Tensor](), dict[int, torch.Tensor]()
        self.started: float | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.started = self.started or time.time()
        self.inputs.append(x)
        return super().forward(x) * self.cache.setdefault(len(x), torch.ones(len(x), 1))


def test_a_file_is_known_by_its_bytes_and_a_function_by_its_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.bin").write_bytes(b"one")
    (tmp_path / "b.bin").write_bytes(b"two")
    assert file_digest(str(tmp_path / "a.bin")) != file_digest(str(tmp_path / "b.bin"))
    monkeypatch.chdir(tmp_path)
    for name, size in (("identity_one", 2), ("identity_two", 3)):
        (tmp_path / f"{name}.py").write_text(f"import torch\n\ndef make():\n    return torch.nn.Linear({size}, 2)\n")
        load_model(f"{name}:make")
    assert file_digest("identity_one:make") != file_digest("identity_two:make") != ""


# What is refused


MASK = np.array([True, True, False])


def sampled(out: Path, model: Any = None, threats: list[Any] | None = None, **more: Any) -> None:
    sampler = Sampler(model or Shifted(0.1), 0.5, 2, threats or ["l1"])
    card = Sampling(20, 200, 0.001, 100, 3, keep_means=more.pop("keep_means", False))
    sample_dataset(sampler, more.pop("data", DATA), out, card, progress=False, **more)


RED: list[Threat] = [Subspace(MASK, 2, "red")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": Shifted(0.1, 1.5)}, "model digest was"),
        ({"model": Shifted(0.2)}, r"model scores was [-\d.]+, is [-\d.]+;"),
        ({"model": Squared(0.1)}, "model scores was"),
        ({"model_file": "other"}, "model file was '', is 'other'"),
        ({"threats": [Subspace(MASK, np.inf, "red")]}, r"norms was \{'l2': 2.0, 'red': 2.0\}, is \{'red': 'inf', 'l2': 2.0\}"),
        ({"threats": [Ball("red", 1.0)]}, "norms was"),
        ({"data": Arrays(np.asarray(DATA.x), np.array([0, 0]))}, "data digest was"),
    ],
)
def test_a_finished_file_of_another_model_threat_or_data_set_is_not_taken(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    out = tmp_path / "s.h5"
    sampled(out, threats=RED)
    before = out.read_bytes()
    sampled(out, threats=RED)
    with pytest.raises(ValueError, match=f"holds the statistics of other settings: .*{message}"):
        sampled(out, **{"threats": RED, **changes})
    assert out.read_bytes() == before


def test_shards_of_two_norms_or_two_models_are_not_merged(tmp_path: Path) -> None:
    first, second = Shard(0, 2), Shard(1, 2)
    out = tmp_path / "s.h5"
    sampled(out, threats=RED, shard=first)
    for changes, message in (
        ({"threats": [Subspace(MASK, np.inf, "red")]}, "norms is"),
        ({"model": Shifted(0.2)}, "model scores is"),
    ):
        second.path(out).unlink(missing_ok=True)
        sampled(out, **{"threats": RED, "shard": second, **changes})
        with pytest.raises(ValueError, match=f"are not of one run: .*{message}"):
            merge([first.path(out), second.path(out)], tmp_path / "joined.h5")


def test_a_model_that_counts_its_calls_is_resumed_and_merged(tmp_path: Path) -> None:
    out, parts = tmp_path / "s.h5", [Shard(0, 2), Shard(1, 2)]
    data = Arrays(np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(4, 3), np.array([0, 1, 0, 1]))
    for shard, before in zip(parts, (5, 0), strict=True):
        model = Counting(0.1)
        for _ in range(before):
            model(torch.zeros(2, 3))
        for _ in range(2):
            sampled(out, model, shard=shard, data=data)
    merge([shard.path(out) for shard in parts], out)
    sampled(tmp_path / "whole.h5", Counting(0.1), data=data)
    whole, joined = read_statistics(tmp_path / "whole.h5"), read_statistics(out)
    assert (whole.statistics.count == joined.statistics.count).all()
    # A finished file, merged or not, is known again.
    sampled(out, Counting(0.1), data=data)


def test_a_mask_of_another_shape_is_refused_for_kept_means(tmp_path: Path) -> None:
    data = Arrays(np.zeros((1, 3, 4), dtype=np.float32), np.array([0]))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    out = tmp_path / "s.h5"
    sampled(out, model, data=data, keep_means=True)
    for shape in ((4, 3), (12,)):
        mask = np.zeros(shape, dtype=bool)
        mask.flat[0] = True
        with pytest.raises(ValueError, match=rf"threat 'own' has shape \({shape[0]},.*the input has shape \(3, 4\)"):
            certify_statistics(out, tmp_path / "r.tsv", 0.001, "adaptive", None, [Subspace(mask, 2, "own")], progress=False)
    good = np.zeros((3, 4), dtype=bool)
    good[0] = True
    certify_statistics(out, tmp_path / "r.tsv", 0.001, "adaptive", None, [Subspace(good, 2, "own")], progress=False)


def test_a_report_does_not_use_the_statistics_of_another_model_or_data_set(shipped: Table, tmp_path: Path) -> None:
    def made(x: npt.NDArray[np.float32], y: list[int], mean: float = 0.1, classes: int = 2) -> study.Study:
        config = Config("t", "data.npz", 2, num_classes=classes, n=200)
        return study.Study(
            config, shipped, (L2,), (3,), (), Arrays(x, np.array(y)), np.arange(2), {0.5: lambda: Shifted(mean)}, {}, {}
        )

    x = np.asarray(DATA.x)
    later = x.copy()
    later[1, 0] += 0.5
    studies = [made(x, [0, 1]), made(x, [0, 1]), made(later, [0, 1]), made(x, [0, 0]), made(x, [0, 1], classes=3)]
    paths = [study.kept(one, tmp_path, 0.5)[0] for one in studies]
    assert paths[0] == paths[1]
    assert len(set(paths)) == 4
    first = study._sampled(studies[0], tmp_path, 0.5, progress=False)
    assert study._sampled(studies[1], tmp_path, 0.5, progress=False).seconds.tolist() == first.seconds.tolist()
    with pytest.raises(ValueError, match=r"holds the statistics of other settings: model scores was .*; delete it"):
        study._sampled(made(x, [0, 1], 0.2), tmp_path, 0.5, progress=False)
