"""A model or data set that is not the same is not taken for the same; one that is the same is known again."""

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from runtime import Certifier, Subspace, Table, study
from runtime.config import Config
from runtime.data import Arrays
from runtime.identity import data_digest, file_digest, fingerprint
from runtime.merge import merge
from runtime.models import load_model
from runtime.results import read_statistics
from runtime.run import certify_statistics, sample_dataset
from runtime.shards import Shard
from runtime.threats import Ball, Threat


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


@pytest.mark.parametrize(
    ("make", "suffix"),
    [
        (lambda mean, _: Shifted(mean), ""),
        (lambda mean, _: torch.nn.Sequential(Shifted(mean)), ""),
        (lambda mean, _: Folded(mean), ""),
        (lambda mean, _: closed(mean), ""),
        (lambda mean, _: functools.partial(torch.sub, other=mean), ""),
        (lambda mean, _: Shifted(mean).forward, ""),
        (scripted, ".ts"),
        (compiled, ".ts"),
        (exported, ".pt2"),
    ],
)
def test_a_number_outside_the_state_tells_two_models_apart(make: Any, suffix: str, tmp_path: Path) -> None:
    one, two, other = (make(mean, tmp_path / f"{place}{suffix}") for place, mean in enumerate((0.1, 0.1, 0.7)))
    assert fingerprint(one) == fingerprint(two)
    assert fingerprint(one) != fingerprint(other)


def test_class_source_weights_and_order_tell_models_apart_and_use_does_not() -> None:
    relu, tanh = torch.nn.ReLU(), torch.nn.Tanh()
    models: list[torch.nn.Module] = [
        Shifted(0.1),
        Squared(0.1),
        Shifted(0.1, 1.5),
        torch.nn.Sequential(Shifted(0.1), relu),
        torch.nn.Sequential(Shifted(0.1), tanh),
        torch.nn.Sequential(relu, Shifted(0.1)),
    ]
    before = [fingerprint(model) for model in models]
    assert len(set(before)) == len(models)
    for model in models:
        model.eval()(torch.zeros(2, 3)).sum().backward()
    assert [fingerprint(model) for model in models] == before
    assert [fingerprint(model.double()) for model in models] != before


def test_a_wrapper_and_the_device_make_no_other_model() -> None:
    def placed(device: str) -> torch.nn.Module:
        model = Shifted(0.1)
        model.device = device  # type: ignore[assignment]
        return model

    model = Shifted(0.1)
    wrapped = [torch.nn.DataParallel(model), torch.compile(model, backend="eager")]
    assert {fingerprint(other) for other in wrapped} == {fingerprint(model)}
    assert fingerprint(placed("cuda:0")) == fingerprint(placed("cuda:3")) == fingerprint(placed("cpu"))
    assert fingerprint(placed("cuda-like")) != fingerprint(placed("cpu"))
    first, other = closed(0.1), closed(0.7)
    assert fingerprint(torch.compile(first, backend="eager")) == fingerprint(first) != fingerprint(other)


class Counting(Shifted):
    """Counts, times and keeps its calls, and makes its scale at the first."""

    def __init__(self, mean: float, scale: float = 1.0) -> None:
        super().__init__(mean)
        self.calls, self.made = 0, scale
        self.clock: dict[str, float] = {}
        self.inputs: list[torch.Tensor] = []
        self.scale: float | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.clock["seconds"] = self.clock.get("seconds", 0.0) + 0.1
        self.inputs.append(x)
        self.scale = self.made
        return self.scale * super().forward(x)


def test_what_a_call_changes_does_not_count_and_what_it_leaves_does() -> None:
    x = torch.zeros(2, 3)

    def known(model: Counting, calls: int = 0) -> str:
        for _ in range(calls):
            model(x)
        return fingerprint(model, lambda: model(x))

    assert len({known(Counting(0.1), calls) for calls in (0, 1, 7)}) == 1
    assert len({known(model) for model in (Counting(0.1), Counting(0.2), Counting(0.1, 2.0))}) == 3
    made = Counting(0.1)
    made(x)
    made.made = 2.0
    assert known(made) == known(Counting(0.1, 2.0))


def test_a_function_with_a_cell_that_is_still_empty_has_a_digest() -> None:
    def outer() -> tuple[str, str]:
        def model(x: torch.Tensor) -> torch.Tensor:
            return x + later

        before = fingerprint(model)
        later = 2.0
        return before, fingerprint(model)

    before, after = outer()
    assert before != after


def test_functions_are_known_by_what_they_do_and_use() -> None:
    first, second = (lambda x: x + 1.0), (lambda x: x + 2.0)
    models = [first, second, lambda x: Shifted(0.5)(x), torch.relu, torch.nn.functional.relu, torch.nn.functional.gelu]
    assert len({fingerprint(model) for model in models}) == len(models)


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


DATA = Arrays(np.linspace(-1.0, 1.0, 6, dtype=np.float32).reshape(2, 3), np.array([0, 1]))
MASK = np.array([True, True, False])


def sampled(table: Table, out: Path, model: Any = None, threats: list[Any] | None = None, **more: Any) -> None:
    certifier = Certifier(model or Shifted(0.1), 0.5, 2, table, threats or ["l1"], seed=3, **more.pop("certifier", {}))
    sample_dataset(certifier, more.pop("data", DATA), out, 20, 200, 0.001, 100, {}, progress=False, **more)


RED: list[Threat] = [Subspace(MASK, 2, "red")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": Shifted(0.7)}, "model digest was"),
        ({"model": Squared(0.1)}, "model digest was"),
        ({"model_file": "other"}, "model file was '', is 'other'"),
        ({"threats": [Subspace(MASK, np.inf, "red")]}, r"norms was \{'l2': 2.0, 'red': 2.0\}, is \{'red': 'inf', 'l2': 2.0\}"),
        ({"threats": [Ball("red", 1.0)]}, "norms was"),
        ({"data": Arrays(np.asarray(DATA.x), np.array([0, 0]))}, "data digest was"),
    ],
)
def test_a_finished_file_of_another_model_threat_or_data_set_is_not_taken(
    changes: dict[str, Any], message: str, shipped: Table, tmp_path: Path
) -> None:
    out = tmp_path / "s.h5"
    sampled(shipped, out, threats=RED)
    before = out.read_bytes()
    sampled(shipped, out, threats=RED)
    with pytest.raises(ValueError, match=f"holds the statistics of other settings: .*{message}"):
        sampled(shipped, out, **{"threats": RED, **changes})
    assert out.read_bytes() == before


def test_shards_of_two_norms_or_two_models_are_not_merged(shipped: Table, tmp_path: Path) -> None:
    first, second = Shard(0, 2), Shard(1, 2)
    out = tmp_path / "s.h5"
    sampled(shipped, out, threats=RED, shard=first)
    for changes, message in (
        ({"threats": [Subspace(MASK, np.inf, "red")]}, "norms is"),
        ({"model": Shifted(0.7)}, "model digest is"),
    ):
        second.path(out).unlink(missing_ok=True)
        sampled(shipped, out, **{"threats": RED, "shard": second, **changes})
        with pytest.raises(ValueError, match=f"are not of one run: .*{message}"):
            merge([first.path(out), second.path(out)], tmp_path / "joined.h5")


def test_a_model_that_counts_its_calls_is_resumed_and_merged(shipped: Table, tmp_path: Path) -> None:
    out, parts = tmp_path / "s.h5", [Shard(0, 2), Shard(1, 2)]
    data = Arrays(np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(4, 3), np.array([0, 1, 0, 1]))
    for shard, before in zip(parts, (5, 0), strict=True):
        model = Counting(0.1)
        for _ in range(before):
            model(torch.zeros(2, 3))
        for _ in range(2):
            sampled(shipped, out, model, shard=shard, data=data)
    merge([shard.path(out) for shard in parts], out)
    sampled(shipped, tmp_path / "whole.h5", Counting(0.1), data=data)
    whole, joined = read_statistics(tmp_path / "whole.h5"), read_statistics(out)
    assert (whole.statistics.count == joined.statistics.count).all()
    # A finished file, merged or not, is known again.
    sampled(shipped, out, Counting(0.1), data=data)


def test_a_mask_of_another_shape_is_refused_for_kept_means(shipped: Table, tmp_path: Path) -> None:
    data = Arrays(np.zeros((1, 3, 4), dtype=np.float32), np.array([0]))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    out = tmp_path / "s.h5"
    sampled(shipped, out, model, data=data, certifier={"keep_means": True})
    for shape in ((4, 3), (12,)):
        mask = np.zeros(shape, dtype=bool)
        mask.flat[0] = True
        with pytest.raises(ValueError, match=rf"threat 'own' has shape \({shape[0]},.*the input has shape \(3, 4\)"):
            certify_statistics(out, tmp_path / "r.tsv", 0.001, "adaptive", None, [Subspace(mask, 2, "own")], progress=False)
    good = np.zeros((3, 4), dtype=bool)
    good[0] = True
    certify_statistics(out, tmp_path / "r.tsv", 0.001, "adaptive", None, [Subspace(good, 2, "own")], progress=False)


def test_a_report_does_not_use_the_statistics_of_changed_inputs_or_labels(tmp_path: Path) -> None:
    class One:
        """As much of a study as its statistics are named by."""

        def __init__(self, x: npt.NDArray[np.float32], y: list[int], classes: int = 2) -> None:
            self.config = Config("t", "data.npz", 2, num_classes=classes)
            self.test = Arrays(x, np.array(y))

        def certifier(self, _: float) -> Any:
            return SimpleNamespace(model=Shifted(0.1))

    x = np.asarray(DATA.x)
    later = x.copy()
    later[1, 0] += 0.5
    studies = [One(x, [0, 1]), One(x, [0, 1]), One(later, [0, 1]), One(x, [0, 0]), One(x, [0, 1], 3)]
    paths = [study._kept(one, tmp_path, 0.5)[0] for one in studies]  # type: ignore[arg-type]
    assert paths[0] == paths[1]
    assert len(set(paths)) == 4
