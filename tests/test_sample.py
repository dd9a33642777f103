import gc
import itertools
import tracemalloc
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import kstest

from runtime.sample import BLOCK_ROWS, BLOCK_SIZE, FIRST, SECOND, SELECTION, Sampler, block_rows, fill_block, noise


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The batches here are small: on busy cores a second thread would only be waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


CPU = torch.device("cpu")


def _naive_blocks(seed: int, index: int, stage: int, n: int, d: int) -> npt.NDArray[np.float64]:
    """The n first rows of a stream, block by block straight from the counter-based generator."""
    rows = max(1, min(1024, 2**18 // d))
    out = []
    for block in range(-(-n // rows)):
        bits = np.random.Philox(key=[seed, 0], counter=[0, block, stage, index])
        out.append(np.random.Generator(bits).standard_normal((rows, d)))
    return np.concatenate(out)[:n]


def _stream(seed: int, index: int, stage: int, n: int, d: int, batch_size: int) -> npt.NDArray[np.float64]:
    return np.concatenate([u.numpy().copy() for u in noise(seed, index, stage, n, d, batch_size, CPU)])


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


# Noise


@pytest.mark.parametrize(("n", "d"), [(3000, 7), (1024, 5), (1, 3), (5000, 1), (700, 1000), (5, 2**17), (3, 2**18 + 1)])
@pytest.mark.parametrize("batch_size", [1, 64, 1000, 1024, 3001])
def test_noise_is_the_blocks_in_order_whatever_the_batch_size(n: int, d: int, batch_size: int) -> None:
    if batch_size == 1 and n > 1000:
        n = 1100
    batches = [u.numpy().copy() for u in noise(11, 2, FIRST, n, d, batch_size, CPU)]
    assert {u.dtype for u in batches} == {np.dtype(np.float64)}
    assert [len(u) for u in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert 0 < len(batches[-1]) <= batch_size
    assert np.array_equal(np.concatenate(batches), _naive_blocks(11, 2, FIRST, n, d))


def test_no_samples_are_no_batches() -> None:
    assert list(noise(1, 0, FIRST, 0, 4, 10, CPU)) == []


def test_a_block_has_a_bounded_size_that_depends_on_d_alone() -> None:
    assert [block_rows(d) for d in (1, 256, 257, 3072, 2**18, 2**20)] == [1024, 1024, 1020, 85, 1, 1]
    assert (BLOCK_ROWS, BLOCK_SIZE) == (1024, 2**18)


def test_noise_is_standard_normal() -> None:
    u = _stream(3, 0, FIRST, 40_960, 25, 1000)
    size = u.size
    assert abs(u.mean()) < 5.0 / np.sqrt(size)
    assert abs(u.var() - 1.0) < 5.0 * np.sqrt(2.0 / size)
    assert abs((u**4).mean() - 3.0) < 5.0 * np.sqrt(96.0 / size)
    assert kstest(u.ravel(), "norm").pvalue > 1e-4
    # Rows, columns and neighbouring blocks are uncorrelated.
    columns = np.corrcoef(u.T) - np.eye(25)
    assert np.abs(columns).max() < 5.0 / np.sqrt(len(u))
    assert abs(np.mean(u[1:] * u[:-1])) < 5.0 / np.sqrt(size)
    assert abs(np.mean(u[1024:] * u[:-1024])) < 5.0 / np.sqrt(size)


def test_streams_of_another_seed_index_stage_or_block_are_independent_and_share_nothing() -> None:
    keys = list(itertools.product((0, 1, 2**32, 2**63 - 1), (0, 1, 2**31), (SELECTION, FIRST, SECOND), (0, 1, 7)))
    blocks = torch.empty(len(keys), 1000, dtype=torch.float64)
    for row, key in zip(blocks, keys, strict=True):
        fill_block(row, *key)
    correlation = np.corrcoef(blocks.numpy()) - np.eye(len(keys))
    assert np.abs(correlation).max() < 6.0 / np.sqrt(1000)
    # Nor is one a shifted piece of another: no number occurs twice.
    assert len(np.unique(blocks.numpy())) == blocks.numel()


def test_a_block_is_made_of_its_key_alone() -> None:
    first, again, other = (torch.empty(40, 3, dtype=torch.float64) for _ in range(3))
    fill_block(first, 5, 1, FIRST, 2)
    torch.manual_seed(9)
    fill_block(other, 5, 1, FIRST, 3)
    fill_block(again, 5, 1, FIRST, 2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_global_random_state_is_left_alone() -> None:
    torch.manual_seed(0)
    np_state = np.random.default_rng(0)
    before = torch.random.get_rng_state()
    Sampler(Scores(4), 0.5, 3, 1).moments(torch.zeros(4), 0, 100, 0, 10)
    assert torch.equal(before, torch.random.get_rng_state())
    assert np_state.bit_generator.state == np.random.default_rng(0).bit_generator.state


# Votes and moments


@pytest.mark.parametrize(("n", "shape"), [(4001, (3, 2)), (5000, (40,)), (2, (5,)), (3, (5,)), (2500, ())])
def test_moments_are_those_of_a_plain_loop_over_the_same_noise(n: int, shape: tuple[int, ...]) -> None:
    d = int(np.prod(shape))
    model, x = Scores(d), torch.linspace(-0.5, 1.0, d).reshape(shape)
    moments = Sampler(model, 0.5, 3, 7).moments(x, 1, n, 4, 300)
    assert moments.n.tolist() == [n // 2, n - n // 2]
    assert moments.n.dtype == moments.count.dtype == np.int64
    assert moments.sum_uf.shape == moments.sum_u.shape == (2, d)
    assert moments.sum_uf.dtype == moments.sum_u.dtype == np.float64
    w = model.w.numpy()
    for half, stage in enumerate((FIRST, SECOND)):
        count, sum_uf, sum_u = 0, np.zeros(d), np.zeros(d)
        for u in _naive_blocks(7, 4, stage, int(moments.n[half]), d):
            noisy = (x.numpy().ravel().astype(np.float64) + 0.5 * u).astype(np.float32)
            vote = int(np.argmax(noisy.astype(np.float64) @ w)) == 1
            count += vote
            sum_uf += vote * u
            sum_u += u
        assert moments.count[half] == count
        assert np.allclose(moments.sum_uf[half], sum_uf, rtol=1e-10, atol=1e-9)
        assert np.allclose(moments.sum_u[half], sum_u, rtol=1e-10, atol=1e-9)


def test_votes_are_those_of_a_plain_loop_over_the_selection_noise() -> None:
    model, x = Scores(6), torch.linspace(-0.5, 1.0, 6)
    votes = Sampler(model, 0.5, 3, 7).votes(x, 777, 4, 100)
    noisy = (x.numpy().astype(np.float64) + 0.5 * _naive_blocks(7, 4, SELECTION, 777, 6)).astype(np.float32)
    expected = np.bincount((noisy.astype(np.float64) @ model.w.numpy()).argmax(axis=1), minlength=3)
    assert votes.tolist() == expected.tolist()
    assert votes.dtype == np.int64


def test_the_batch_size_changes_neither_votes_nor_moments_beyond_rounding() -> None:
    x = torch.linspace(-0.5, 1.0, 6)
    reference = Sampler(Scores(6), 0.5, 3, 7).moments(x, 1, 5000, 0, 5000)
    for batch_size in (9, 300, 1024, 100_000):
        model = Scores(6)
        moments = Sampler(model, 0.5, 3, 7).moments(x, 1, 5000, 0, batch_size)
        assert max(model.sizes) == min(batch_size, 2500)
        assert moments.count.tolist() == reference.count.tolist()
        assert np.allclose(moments.sum_uf, reference.sum_uf, rtol=0, atol=1e-9)
        assert np.allclose(moments.sum_u, reference.sum_u, rtol=0, atol=1e-9)
        assert Sampler(Scores(6), 0.5, 3, 7).votes(x, 500, 0, batch_size).tolist() == [
            *Sampler(Scores(6), 0.5, 3, 7).votes(x, 500, 0, 500).tolist()
        ]


def test_moments_estimate_a_known_gradient() -> None:
    # f = 1{u1 > -1}: E f = Phi(1), E u f = phi(1) along the first axis, whatever sigma.
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.stack((torch.zeros(len(x)), x[:, 0]), dim=1)

    n = 200_000
    for sigma in (0.1, 2.0):
        moments = Sampler(model, sigma, 2, 3).moments(torch.tensor([sigma, 0.0, 5.0]), 1, n, 0, 4096)
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
    moments = Sampler(model, 0.5, 2, 1).moments(torch.zeros(4), 0, 100, 0, 32)
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
    assert Sampler(model, 0.5, 2, 1).votes(torch.zeros(4), 50, 0, 20).sum() == 50


def test_scores_of_another_shape_are_refused() -> None:
    x = torch.zeros(4)
    with pytest.raises(ValueError, match=r"scores of shape \(10, 3\), expected \(10, 5\) \(5 classes\)"):
        Sampler(Scores(4), 0.5, 5, 1).votes(x, 10, 0, 10)
    with pytest.raises(ValueError, match=r"scores of shape \(10,\), expected \(10, 3\)"):
        Sampler(lambda x: x[:, 0], 0.5, 3, 1).moments(x, 0, 20, 0, 10)


@pytest.mark.parametrize("when", [0, 2])
def test_a_nan_score_in_any_batch_is_refused(when: int) -> None:
    calls = itertools.count()

    def model(x: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(len(x), 2)
        if next(calls) == when:
            scores[-1, 0] = float("nan")
        return scores

    with pytest.raises(ValueError, match="the model returned NaN scores"):
        Sampler(model, 0.5, 2, 1).votes(torch.zeros(4), 30, 0, 10)


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
        Sampler(looking, 0.5, 2, 1).moments(x, 0, batches * batch_size, 0, batch_size)
        tracemalloc.start()
        Sampler(lambda x: x[:, :2], 0.5, 2, 1).moments(x, 0, batches * batch_size, 0, batch_size)
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
