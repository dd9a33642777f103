from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from certlut.sampling.batches import Batch, batches
from certlut.sampling.memory import BatchSize, keep_freed, most_rows, out_of_memory
from certlut.sampling.noise import BLOCK_ROWS, BLOCK_SIZE, Gaussian, block_rows, draw_blocks
from certlut.sampling.normals import draw
from certlut.sampling.streams import FIRST, SECOND, SELECTION, Segment, Stream


def _batches(
    seed: int,
    centers: torch.Tensor,
    sigma: float,
    segments: list[Segment],
    size: BatchSize,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Batch]:
    return batches(Gaussian(seed, centers, sigma, dtype), segments, size)


def _rows(seed: int, segments: list[Segment], d: int, batch_size: int) -> list[npt.NDArray[np.float64]]:
    """The noise of each batch."""
    centers = torch.zeros((1 + max((s.slot for s in segments), default=0), d), dtype=torch.float64)
    return [batch.u.numpy().copy() for batch in _batches(seed, centers, 1.0, segments, BatchSize(batch_size))]


def _drawn(seed: int, index: int, stage: int, n: int, d: int) -> npt.NDArray[np.float64]:
    """All rows at once."""
    out = np.empty((n, d))
    draw(Stream(seed, index, stage), 0, out)
    return out


@pytest.mark.parametrize(("n", "d"), [(3000, 7), (1024, 5), (1, 3), (5000, 1), (700, 1000), (5, 2**17), (3, 2**18 + 1)])
@pytest.mark.parametrize("batch_size", [1, 64, 1000, 1024, 3001])
def test_noise_is_the_streams_rows_in_order_whatever_the_batch_size(n: int, d: int, batch_size: int) -> None:
    if batch_size == 1 and n > 1000:
        n = 1100
    drawn = _rows(11, [Segment(0, 2, FIRST, 0, n)], d, batch_size)
    assert {u.dtype for u in drawn} == {np.dtype(np.float64)}
    assert [len(u) for u in drawn[:-1]] == [batch_size] * (len(drawn) - 1)
    assert 0 < len(drawn[-1]) <= batch_size
    assert np.array_equal(np.concatenate(drawn), _drawn(11, 2, FIRST, n, d))


def test_no_samples_are_no_batches() -> None:
    assert _rows(1, [Segment(0, 0, FIRST, 0, 0)], 4, 10) == []
    assert _rows(1, [], 4, 10) == []


# What a GPU does, on this machine's tensors and generator


def test_a_block_has_a_bounded_size_that_depends_on_d_alone() -> None:
    assert [block_rows(d) for d in (1, 256, 257, 3072, 2**18, 2**20)] == [1024, 1024, 1020, 85, 1, 1]
    assert (BLOCK_ROWS, BLOCK_SIZE) == (1024, 2**18)


@pytest.mark.parametrize(("start", "rows", "d"), [(0, 85, 3072), (10, 200, 3072), (1023, 2, 5), (2048, 1024, 5), (7, 1, 2**18)])
def test_rows_of_blocks_do_not_depend_on_how_they_are_asked_for(start: int, rows: int, d: int) -> None:
    stream, out = Stream(5, 1, FIRST), torch.empty((rows, d), dtype=torch.float64)
    whole = torch.empty((-(-(start + rows) // block_rows(d)) * block_rows(d), d), dtype=torch.float64)
    draw_blocks(stream, 0, whole)
    torch.manual_seed(9)
    draw_blocks(stream, start, out)
    assert torch.equal(out, whole[start : start + rows])
    assert abs(float(out.mean())) < 6.0 / out.numel() ** 0.5
    others = [Stream(5, 1, SECOND), Stream(5, 2, FIRST), Stream(6, 1, FIRST)]
    for other in others:
        again = torch.empty_like(out)
        draw_blocks(other, start, again)
        assert len(torch.unique(torch.cat((out, again)))) == 2 * out.numel()


@pytest.mark.parametrize("batch_size", [1, 7, 100, 1024, 1500, 10_000])
@pytest.mark.parametrize("d", [3, 400])
def test_batches_span_segments_and_each_row_is_its_segments(batch_size: int, d: int) -> None:
    rows = block_rows(d)
    segments = [
        Segment(0, 5, FIRST, 0, 70),
        Segment(0, 5, SECOND, 0, rows),
        Segment(2, 9, FIRST, rows, 2 * rows + 13),
        Segment(1, 9, SECOND, 0, 0),
        Segment(1, 0, SELECTION, 2 * rows, 2 * rows + 1),
    ]
    if batch_size == 1:
        segments = segments[:1] + segments[-1:]
    centers = torch.arange(3.0, dtype=torch.float64)[:, None] * torch.ones(d, dtype=torch.float64)
    drawn: list[list[npt.NDArray[np.float64]]] = [[] for _ in segments]
    sizes = []
    for batch in _batches(4, centers, 0.25, segments, BatchSize(batch_size)):
        sizes.append(len(batch.u))
        assert [piece.rows.start for piece in batch.pieces] == [0] + [piece.rows.stop for piece in batch.pieces[:-1]]
        assert batch.pieces[-1].rows.stop == len(batch.u) == len(batch.noisy)
        for segment, where in batch.pieces:
            u = batch.u[where].numpy().copy()
            drawn[segments.index(segment)].append(u)
            assert batch.noisy[where].numpy().tobytes() == (segment.slot + 0.25 * u).astype(np.float32).tobytes()
    total = sum(s.stop - s.start for s in segments)
    assert sizes == [batch_size] * (total // batch_size) + [total % batch_size] * (total % batch_size > 0)
    for segment, parts in zip(segments, drawn, strict=True):
        expected = _drawn(4, segment.index, segment.stage, segment.stop, d)[segment.start :]
        assert np.array_equal(np.concatenate([np.empty((0, d)), *parts]), expected)


def test_threads_change_nothing() -> None:
    segments = [Segment(0, 3, FIRST, 0, 700)]
    alone = _rows(8, segments, 3072, 500)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        together = _rows(8, segments, 3072, 500)
    finally:
        torch.set_num_threads(threads)
    assert [u.tobytes() for u in together] == [u.tobytes() for u in alone]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_caller_in_inference_mode_changes_nothing(dtype: torch.dtype) -> None:
    threads, segments = torch.get_num_threads(), [Segment(0, 3, FIRST, 0, 20)]
    torch.set_num_threads(2)
    try:
        centers = torch.zeros((1, 2**17), dtype=torch.float64)
        plain = [batch.noisy.clone() for batch in _batches(1, centers, 1.0, segments, BatchSize(20), dtype)]
        with torch.inference_mode():
            inside = [batch.noisy.clone() for batch in _batches(1, centers, 1.0, segments, BatchSize(20), dtype)]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(inside[0], plain[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_noisy_input_is_rounded_once_and_can_be_formed_again(dtype: torch.dtype) -> None:
    centers = torch.full((1, 300), 1 / 3, dtype=torch.float64)
    for batch in _batches(2, centers, 0.1, [Segment(0, 0, FIRST, 0, 2000)], BatchSize(1500), dtype):
        exact = centers + 0.1 * batch.u
        # torch goes from float64 to float16 by way of float32.
        expected = torch.from_numpy(exact.numpy().astype(np.float16)) if dtype == torch.float16 else exact.to(dtype)
        assert torch.equal(batch.noisy, expected)
        batch.noisy.mul_(2.0)
        batch.perturb()
        assert torch.equal(batch.noisy, expected)


def test_a_batch_size_halved_on_the_way_changes_no_noise() -> None:
    size, center = BatchSize(1000), torch.zeros((1, 5), dtype=torch.float64)

    def draw() -> Iterator[npt.NDArray[np.float64]]:
        for batch in _batches(2, center, 1.0, [Segment(0, 1, FIRST, 0, 3000)], size):
            yield batch.u.numpy().copy()
            size.halve(torch.device("cpu"))

    with pytest.warns(RuntimeWarning, match="out of memory: batches of"):
        seen = list(draw())
    assert [len(u) for u in seen] == [1000, 500, 250, 125, 62, 31, 15, 7, 3] + [1] * 1007
    assert np.array_equal(np.concatenate(seen), _drawn(2, 1, FIRST, 3000, 5))
    assert not size.halve(torch.device("cpu"))


def test_buffers_that_memory_refuses_are_halved_until_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch.empty

    def empty(shape: tuple[int, int], **arguments: object) -> torch.Tensor:
        if shape[0] > 300:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return plain(shape, **arguments)

    monkeypatch.setattr(torch, "empty", empty)
    with pytest.warns(RuntimeWarning, match="out of memory: batches of (500|250) from here on"):
        drawn = _rows(2, [Segment(0, 1, FIRST, 0, 700)], 2000, 1000)
    assert [len(u) for u in drawn] == [250, 250, 200]
    assert np.array_equal(np.concatenate(drawn), _drawn(2, 1, FIRST, 700, 2000))


def test_noise_leaves_a_gpu_most_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"mem_get_info": (9_000, 80_000), "memory_reserved": 3_500, "memory_allocated": 500}
    for name, value in held.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    # 12,000 bytes are free; a row of 25 numbers takes 25 (8 + 4).
    assert most_rows(25, torch.device("cuda"), torch.float32) == 12_000 // 4 // 300
    assert most_rows(10**6, torch.device("cuda"), torch.float32) == 1
    assert most_rows(25, torch.device("cpu"), torch.float32) > 10**12


def test_buffers_smaller_than_a_batch_change_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certlut.sampling.batches.most_rows", lambda d, device, dtype: 300)
    drawn = _rows(2, [Segment(0, 1, FIRST, 0, 700)], 2000, 1000)
    assert [len(u) for u in drawn] == [300, 300, 100]
    assert np.array_equal(np.concatenate(drawn), _drawn(2, 1, FIRST, 700, 2000))


def test_a_command_keeps_what_it_frees_where_the_c_library_can(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    libraries = [SimpleNamespace(mallopt=lambda parameter, value: told.append((parameter, value))), SimpleNamespace()]
    monkeypatch.setattr("certlut.sampling.memory.sys.platform", "linux")
    for library in libraries:
        monkeypatch.setattr("certlut.sampling.memory.ctypes.CDLL", lambda name, library=library: library)
        keep_freed()
    # glibc's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
    assert told == [(-3, 2**30), (-1, 2**31 - 1)]


def test_what_counts_as_out_of_memory() -> None:
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("out of memory"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.float64)
    assert out_of_memory(caught.value)
