import gc
import itertools
import math
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from certlut.sampling.bets import Tally
from certlut.sampling.card import Sampling
from certlut.sampling.engine import Choice, Engine, Input
from certlut.sampling.streams import FIRST, SECOND, SELECTION
from certlut.statistics.summary import Moments
from certlut.threats.families import Family
from certlut.threats.projections import Projection
from reference.naive_noise import naive_noise


def votes_of(
    engine: Engine, x: torch.Tensor, n: int, idx: int = 0, batch_size: int = 1000, **options: Any
) -> npt.NDArray[np.int64]:
    """Of a single input."""
    return engine.votes([Input(idx, x)], Sampling(n0=n, batch_size=batch_size, **{"seed": 7} | options))[0]


def moments_of(
    engine: Engine, x: torch.Tensor, label: int, n: int, idx: int = 0, batch_size: int = 1000, **options: Any
) -> Moments:
    """Of a single input."""
    own = {"seed": 7, "proposal": "votes"} | options
    return engine.moments([Input(idx, x)], [Choice(label)], Sampling(n=n, batch_size=batch_size, **own))[0]


class Scores(torch.nn.Module):
    """Three scores by two fixed planes, in float64 so that votes do not hang on rounding."""

    def __init__(self, d: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(d)
        self.w = torch.randn(d, 3, dtype=torch.float64, generator=generator)
        self.sizes: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        return (x.reshape(len(x), -1).to(torch.float64)[:, :, None] * self.w).sum(dim=1)


def test_the_global_random_state_is_left_alone() -> None:
    torch.manual_seed(0)
    np_state = np.random.default_rng(0)
    before = torch.random.get_rng_state()
    moments_of(Engine(Scores(4), 0.5, 3), torch.zeros(4), 0, 100, 0, 10, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert np_state.bit_generator.state == np.random.default_rng(0).bit_generator.state


# Votes and moments


@pytest.mark.parametrize(("n", "shape"), [(4001, (3, 2)), (5000, (40,)), (2, (5,)), (3, (5,)), (2500, ())])
def test_moments_are_those_of_a_plain_loop_over_the_same_noise(n: int, shape: tuple[int, ...]) -> None:
    d = int(np.prod(shape))
    model, x = Scores(d), torch.linspace(-0.5, 1.0, d).reshape(shape)
    moments = moments_of(Engine(model, 0.5, 3), x, 1, n, 4, 300)
    assert moments.n.tolist() == [n // 2, n - n // 2]
    assert moments.n.dtype == moments.count.dtype == np.int64
    assert moments.sum_uf.shape == moments.sum_u.shape == (2, d)
    assert moments.sum_uf.dtype == moments.sum_u.dtype == np.float64
    w = model.w.numpy()
    for half, stage in enumerate((FIRST, SECOND)):
        count, sum_uf, sum_u = 0, np.zeros(d), np.zeros(d)
        for u in naive_noise(7, 4, stage, int(moments.n[half]), d):
            noisy = (x.numpy().ravel().astype(np.float64) + 0.5 * u).astype(np.float32)
            vote = int(np.argmax(noisy.astype(np.float64) @ w)) == 1
            count += vote
            sum_uf += vote * u
            sum_u += u
        assert moments.count[half] == count
        assert np.allclose(moments.sum_uf[half], sum_uf, rtol=1e-10, atol=1e-9)
        assert np.allclose(moments.sum_u[half], sum_u, rtol=1e-10, atol=1e-9)


def test_classes_and_tails_are_counted_on_the_certification_samples_alone() -> None:
    model, x, n, d = Scores(6), torch.linspace(-0.5, 1.0, 6), 3001, 6
    mask, v = np.array([True, False, True, False, False, True]), np.full((1, d), 1.0 / np.sqrt(d))
    families = {"all": Family(), "mask": Family(mask=mask), "ray": Family(vectors=v)}
    card = Sampling(n0=500, n=n, batch_size=300, seed=7)
    (m,) = Engine(model, 0.5, 3).moments([Input(4, x)], [Choice(1)], card, families=families)
    u = np.concatenate([naive_noise(7, 4, stage, size, d) for stage, size in ((FIRST, n // 2), (SECOND, n - n // 2))])
    noisy = (x.numpy().astype(np.float64) + 0.5 * u).astype(np.float32)
    predicted = (noisy.astype(np.float64) @ model.w.numpy()).argmax(axis=1)
    counts = dict(zip(m.classes[0].tolist(), m.class_count[0].tolist(), strict=True))
    assert counts == {k: int((predicted == k).sum()) for k in range(3)}
    assert m.classes[0, 0] == 1
    against, taus = u[predicted != 1], np.array(card.thresholds)
    axes = np.concatenate([np.eye(d), -np.eye(d)])
    for name, directions in {"all": axes, "mask": axes[np.tile(mask, 2)], "ray": v}.items():
        beyond = (against @ directions.T)[:, :, None] >= taus
        assert m.tails[name].largest[0].tolist() == beyond.sum(axis=0).max(axis=0).tolist()
        assert m.tails[name].key == families[name].key


def test_votes_are_those_of_a_plain_loop_over_the_selection_noise() -> None:
    model, x = Scores(6), torch.linspace(-0.5, 1.0, 6)
    votes = votes_of(Engine(model, 0.5, 3), x, 777, 4, 100)
    noisy = (x.numpy().astype(np.float64) + 0.5 * naive_noise(7, 4, SELECTION, 777, 6)).astype(np.float32)
    expected = np.bincount((noisy.astype(np.float64) @ model.w.numpy()).argmax(axis=1), minlength=3)
    assert votes.tolist() == expected.tolist()
    assert votes.dtype == np.int64


def test_the_batch_size_changes_neither_votes_nor_moments_beyond_rounding() -> None:
    x = torch.linspace(-0.5, 1.0, 6)
    reference = moments_of(Engine(Scores(6), 0.5, 3), x, 1, 5000, 0, 5000)
    for batch_size in (9, 300, 1024, 100_000):
        model = Scores(6)
        moments = moments_of(Engine(model, 0.5, 3), x, 1, 5000, 0, batch_size)
        assert max(model.sizes) == min(batch_size, 5000)
        assert moments.count.tolist() == reference.count.tolist()
        assert np.allclose(moments.sum_uf, reference.sum_uf, rtol=0, atol=1e-9)
        assert np.allclose(moments.sum_u, reference.sum_u, rtol=0, atol=1e-9)
        assert votes_of(Engine(Scores(6), 0.5, 3), x, 500, 0, batch_size).tolist() == [
            *votes_of(Engine(Scores(6), 0.5, 3), x, 500, 0, 500).tolist()
        ]


def test_moments_estimate_a_known_gradient() -> None:
    # f = 1{u1 > -1}: E f = Phi(1), E u f = phi(1) along the first axis, whatever sigma.
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.stack((torch.zeros(len(x)), x[:, 0]), dim=1)

    n = 200_000
    for sigma in (0.1, 2.0):
        moments = moments_of(Engine(model, sigma, 2), torch.tensor([sigma, 0.0, 5.0]), 1, n, 0, 4096, seed=3)
        assert moments.count.sum() / n == pytest.approx(0.841345, abs=5 * 0.37 / np.sqrt(n))
        assert np.abs(moments.sum_uf.sum(axis=0) / n - [0.241971, 0.0, 0.0]).max() < 5 / np.sqrt(n)
        assert np.abs(moments.sum_u.sum(axis=0) / n).max() < 5 / np.sqrt(n)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_model_is_asked_in_its_own_type(dtype: torch.dtype) -> None:
    class Typed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 2).to(dtype)
            self.asked: set[torch.dtype] = set()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.asked.add(x.dtype)
            return self.layer(x)

    model = Typed()
    moments = moments_of(Engine(model, 0.5, 2), torch.zeros(4), 0, 100, 0, 32, seed=1)
    assert model.asked == {dtype}
    assert moments.sum_u.dtype == np.float64


def test_a_module_is_put_in_eval_mode_and_asked_without_gradients() -> None:
    class Dropout(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not self.training
            scores = self.layer(x)
            assert isinstance(scores, torch.Tensor)
            assert not scores.requires_grad
            return scores

    model = Dropout().train()
    assert votes_of(Engine(model, 0.5, 2), torch.zeros(4), 50, 0, 20, seed=1).sum() == 50


def test_scores_of_another_shape_are_refused() -> None:
    x = torch.zeros(4)
    with pytest.raises(ValueError, match=r"scores of shape \(10, 3\), expected \(10, 5\) \(5 classes\)"):
        votes_of(Engine(Scores(4), 0.5, 5), x, 10, 0, 10, seed=1)
    with pytest.raises(ValueError, match=r"scores of shape \(10,\), expected \(10, 3\)"):
        moments_of(Engine(lambda x: x[:, 0], 0.5, 3), x, 0, 20, 0, 10, seed=1)


@pytest.mark.parametrize("when", [0, 2])
def test_a_nan_score_in_any_batch_is_refused(when: int) -> None:
    calls = itertools.count()

    def model(x: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(len(x), 2)
        if next(calls) == when:
            scores[-1, 0] = float("nan")
        return scores

    with pytest.raises(ValueError, match="the model returned NaN scores"):
        votes_of(Engine(model, 0.5, 2), torch.zeros(4), 30, 0, 10, seed=1)


def test_nan_scores_in_a_group_name_the_input() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, :2] > 50.0, torch.nan, x[:, :2])

    inputs = [Input(index, torch.full((4,), value)) for index, value in ((3, 0.0), (7, 100.0), (8, 0.0))]
    with pytest.raises(ValueError, match="the model returned NaN scores at input 7"):
        Engine(model, 0.5, 2).votes(inputs, Sampling(n0=20, batch_size=100, seed=1))


# Groups


def _inputs(d: int, count: int) -> list[Input]:
    return [Input(10 + 3 * i, torch.linspace(-0.5, 1.0, d) * (i - 1)) for i in range(count)]


@pytest.mark.parametrize(("n", "batch_size"), [(101, 1000), (101, 64), (101, 202), (1000, 10_000), (5, 7)])
def test_inputs_that_share_batches_get_what_each_gets_alone(n: int, batch_size: int) -> None:
    inputs, labels = _inputs(6, 4), [0, 2, 1, 2]
    model = Scores(6)
    card = Sampling(n0=n, n=n, batch_size=batch_size, seed=7, proposal="votes")
    votes = Engine(model, 0.5, 3).votes(inputs, card)
    together = Engine(model, 0.5, 3).moments(inputs, [Choice(label) for label in labels], card)
    total = 4 * n
    full = [batch_size] * (total // batch_size) + [total % batch_size] * (total % batch_size > 0)
    assert model.sizes == full * 2
    for i, ((index, x), label) in enumerate(zip(inputs, labels, strict=True)):
        alone = Engine(Scores(6), 0.5, 3)
        assert votes[i].tolist() == votes_of(alone, x, n, index).tolist()
        moments = moments_of(alone, x, label, n, index)
        assert (together[i].n.tolist(), together[i].count.tolist()) == (moments.n.tolist(), moments.count.tolist())
        assert np.allclose(together[i].sum_uf, moments.sum_uf, rtol=0, atol=1e-11)
        assert np.allclose(together[i].sum_u, moments.sum_u, rtol=0, atol=1e-11)
    assert len({tuple(v) for v in votes.tolist()}) > 1


# Rounding of the sums


def test_sums_round_far_below_their_noise() -> None:
    d, n, rows = 4, 200_000, 1000
    generator = np.random.default_rng(0)
    u = generator.standard_normal((n, d))
    f = generator.random(n) < 0.9
    tally = Tally({"all": Projection()}, d, n, (0, 100), torch.device("cpu"))
    for start in range(0, n, rows):
        tally.add(torch.from_numpy(u[start : start + rows]), torch.from_numpy(f[start : start + rows]))
    moments = tally.moments()
    total = np.array([moments.sum_uf.sum(axis=0), moments.sum_u.sum(axis=0)])
    exact = np.array([[math.fsum(column) for column in part.T] for part in (u[f], u)])
    noise = 0.5 * math.sqrt(n)
    bound = (rows + n / rows) * 2.0**-53 * np.abs(u).sum(axis=0).max()
    assert np.abs(total - exact).max() <= bound < 1e-9 * noise


# Out of memory


class Greedy(torch.nn.Module):
    """Scores by a plane, in a model that fails above `room` rows, after it has changed its input in place."""

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__()
        self.inner, self.room, self.error = Scores(6), room, error
        self.sizes: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        x.sub_(0.1)
        if len(x) > self.room:
            raise self.error
        scores: torch.Tensor = self.inner(x)
        return scores


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
]


@pytest.mark.parametrize("error", ERRORS, ids=["device", "cpu"])
def test_out_of_memory_halves_the_batch_and_counts_every_sample_once(error: Exception) -> None:
    x = torch.linspace(-0.5, 1.0, 6)
    plain = Engine(Greedy(10**9, error), 0.5, 3)
    model = Greedy(130, error)
    engine = Engine(model, 0.5, 3)
    with pytest.warns(RuntimeWarning, match=r"out of memory: batches of (500|250|125) from here on"):
        votes = votes_of(engine, x, 300, 2)
    assert votes.tolist() == votes_of(plain, x, 300, 2).tolist()
    assert model.sizes[:2] == [300, 300]
    model.sizes.clear()
    # What did not fit is not tried again.
    moments = moments_of(engine, x, 1, 3001, 2)
    assert set(model.sizes) == {125, 1}
    assert sum(model.sizes) == 3001
    expected = moments_of(plain, x, 1, 3001, 2)
    assert moments.count.tolist() == expected.count.tolist()
    assert np.allclose(moments.sum_uf, expected.sum_uf, rtol=0, atol=1e-10)
    assert np.allclose(moments.sum_u, expected.sum_u, rtol=0, atol=1e-10)


def test_a_model_that_cannot_take_a_single_input_is_refused() -> None:
    with (
        pytest.warns(RuntimeWarning, match="out of memory"),
        pytest.raises(ValueError, match=r"out of memory with a single input of shape \(6,\) a batch"),
    ):
        votes_of(Engine(Greedy(0, ERRORS[0]), 0.5, 3), torch.zeros(6), 3, 0, 2)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied\n more"), KeyError("pool")])
def test_another_error_of_the_model_is_one_line_with_the_batchs_shape_and_its_cause(error: Exception) -> None:
    line = str(error).splitlines()[0]
    with pytest.raises(ValueError, match=rf"^the model failed on a torch\.float32 batch of shape \(2, 6\): {line}$") as raised:
        votes_of(Engine(Greedy(0, error), 0.5, 3), torch.zeros(6), 3, 0, 2)
    assert raised.value.__cause__ is error


# How the model is run


@pytest.mark.parametrize(("name", "dtype"), [(None, torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_autocast_runs_the_layers_in_the_precision_asked_for(name: str | None, dtype: torch.dtype) -> None:
    seen: set[tuple[torch.dtype, torch.dtype]] = set()

    class Looking(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.layer(x)
            seen.add((x.dtype, scores.dtype))
            return scores

    votes_of(Engine(Looking(), 0.5, 3), torch.zeros(6), 50, 0, 20, autocast=name)
    assert seen == {(torch.float32, dtype)}


def test_channels_last_changes_the_strides_alone() -> None:
    class Looking(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            strides.add(x.stride())
            return x[:, 0, :3, 1]

    votes = []
    for channels_last, stride in ((False, (60, 20, 5, 1)), (True, (60, 1, 15, 3))):
        strides: set[tuple[int, ...]] = set()
        votes.append(votes_of(Engine(Looking(), 0.5, 3), torch.zeros(3, 4, 5), 90, 0, 20, channels_last=channels_last).tolist())
        assert strides == {stride}
    assert votes[0] == votes[1]
    # Other inputs than images have no channels.
    votes_of(Engine(lambda x: x[:, :3], 0.5, 3), torch.zeros(6), 90, 0, 20, channels_last=True)


def test_a_compiled_model_gives_the_same_votes() -> None:
    model, x = torch.nn.Linear(6, 3), torch.linspace(-0.5, 1.0, 6)
    engine = Engine(model, 0.5, 3)
    plain, compiled = (votes_of(engine, x, 500, 0, 150, compile=backend).tolist() for backend in (False, "eager"))
    assert compiled == plain
    with pytest.raises(Exception, match="no_such_backend"):
        votes_of(engine, x, 500, 0, 150, compile="no_such_backend")


# Memory


def _tensors() -> Iterator[torch.Tensor]:
    return (thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor))


def test_memory_does_not_grow_with_n() -> None:
    d, batch_size = 50, 256
    x = torch.zeros(d)
    known = {id(tensor) for tensor in _tensors()}
    calls = itertools.count()
    live: list[int] = []

    def looking(x: torch.Tensor) -> torch.Tensor:
        if next(calls) % 13 == 0:
            storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors() if id(t) not in known}
            live.append(sum(storages.values()))
        return x[:, :2]

    def peaks(batches: int) -> tuple[int, int]:
        live.clear()
        moments_of(Engine(looking, 0.5, 2), x, 0, batches * batch_size, 0, batch_size, seed=1)
        tracemalloc.start()
        moments_of(Engine(lambda x: x[:, :2], 0.5, 2), x, 0, batches * batch_size, 0, batch_size, seed=1)
        python = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return max(live), python

    peaks(8)
    tensors, python = peaks(8)
    more_tensors, more_python = peaks(80)
    # 72 more batches of 102,400 bytes; the last few may be alive at once, at one moment or another.
    assert tensors >= batch_size * d * 8
    assert more_tensors <= tensors + 4 * batch_size * d * 8
    assert more_python <= python + 4 * batch_size * d * 8


# Host round-trips


class Operations(TorchDispatchMode):
    """Counts every operation of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_back_and_no_shape_depends_on_values_within_a_batch() -> None:
    def operations(batches: int) -> Counter[str]:
        engine = Engine(Scores(6), 0.5, 3)
        with Operations() as seen:
            moments_of(engine, torch.zeros(6), 1, 200 * batches, 0, 100)
            votes_of(engine, torch.zeros(6), 100 * batches, 0, 100)
        return seen.counts

    few, many = operations(4), operations(40)
    # That a NaN was seen is asked once a stage, whatever the number of batches.
    assert few["_local_scalar_dense"] == many["_local_scalar_dense"] == 2
    assert many["argmax"] == 40 * 3
    assert not {"nonzero", "bincount", "masked_select", "unique_dim", "_unique2"} & set(many)
