"""Grid noise in batches: the same draws however they are cut, inputs formed again, another device's route."""

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
import torch

from certlut.sampling.batches import Batch, batches
from certlut.sampling.grid import draw, form
from certlut.sampling.grid_noise import Grid, GridNoise
from certlut.sampling.memory import BatchSize
from certlut.sampling.streams import FIRST, SECOND, Segment, Stream

BYTE = Fraction(1, 255)
GRID = Grid.of(0.25, BYTE, (1.0, 2.0))
SEGMENTS = [
    Segment(0, 5, FIRST, 0, 300),
    Segment(0, 5, SECOND, 0, 301),
    Segment(1, 9, FIRST, 100, 250),
    Segment(1, 9, SECOND, 0, 1),
]


def _levels(slots: int, d: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(d).integers(0, 256, (slots, d), dtype=np.int32))


def _expected(levels: torch.Tensor) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]:
    codes, noisy = [], []
    for segment in SEGMENTS:
        some = np.empty((segment.stop - segment.start, levels.shape[1]), dtype=np.int16)
        draw(GRID.law, Stream(11, segment.index, segment.stage), segment.start, some)
        out = np.empty(some.shape, dtype=np.float32)
        form(GRID.law, some, levels[segment.slot].numpy(), BYTE, out)
        codes.append(some)
        noisy.append(out)
    return np.concatenate(codes), np.concatenate(noisy)


@pytest.mark.parametrize("d", [1, 7, 3000])
@pytest.mark.parametrize("rows", [1, 64, 299, 752, 5000])
@pytest.mark.parametrize("threads", [1, 2])
def test_draws_do_not_depend_on_batches_or_threads(d: int, rows: int, threads: int) -> None:
    if rows == 1 and d > 7:
        rows = 13
    levels = _levels(2, d)
    codes, noisy = _expected(levels)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        seen = [
            (batch.u.numpy().copy(), batch.noisy.numpy().copy(), batch.pieces)
            for batch in batches(GridNoise(11, levels, GRID), SEGMENTS, BatchSize(rows))
        ]
    finally:
        torch.set_num_threads(before)
    assert [len(u) for u, _, _ in seen[:-1]] == [rows] * (len(seen) - 1)
    assert np.array_equal(np.concatenate([u for u, _, _ in seen]), codes)
    assert np.concatenate([x for _, x, _ in seen]).tobytes() == noisy.tobytes()
    # Pieces tell whose rows they are.
    counted = dict.fromkeys(SEGMENTS, 0)
    for u, _, pieces in seen:
        assert sum(rows.stop - rows.start for _, rows in pieces) == len(u)
        for segment, rows_ in pieces:
            counted[segment] += rows_.stop - rows_.start
    assert counted == {segment: segment.stop - segment.start for segment in SEGMENTS}


def test_no_samples_are_no_batches() -> None:
    assert list(batches(GridNoise(1, _levels(1, 4), GRID), [], BatchSize(10))) == []
    assert list(batches(GridNoise(1, _levels(1, 4), GRID), [Segment(0, 0, FIRST, 5, 5)], BatchSize(10))) == []


def test_inputs_that_a_model_changed_are_formed_again() -> None:
    for batch in batches(GridNoise(11, _levels(2, 7), GRID), SEGMENTS, BatchSize(200)):
        kept = batch.noisy.clone()
        batch.noisy.zero_()
        batch.perturb()
        assert torch.equal(batch.noisy, kept)


def test_the_route_of_other_devices_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operation of a GPU's route, on this machine's tensors."""
    levels = _levels(2, 37)
    codes, noisy = _expected(levels)
    monkeypatch.setattr(GridNoise, "draw", GridNoise.draw_torch)
    seen = [
        (batch.u.numpy().copy(), batch.noisy.numpy().copy())
        for batch in batches(GridNoise(11, levels, GRID), SEGMENTS, BatchSize(90))
    ]
    assert np.array_equal(np.concatenate([u for u, _ in seen]), codes)
    assert np.concatenate([x for _, x in seen]).tobytes() == noisy.tobytes()


def test_smaller_batches_from_where_memory_ran_out() -> None:
    size, seen = BatchSize(400), []
    codes, _ = _expected(_levels(2, 5))

    def drawn() -> list[Batch]:
        for batch in batches(GridNoise(11, _levels(2, 5), GRID), SEGMENTS, size):
            seen.append(batch.u.numpy().copy())
            size.halve(torch.device("cpu"))
        return []

    with pytest.warns(RuntimeWarning, match="out of memory: batches of"):
        drawn()
    assert [len(u) for u in seen] == [400, 200, 100, 50, 2]
    assert np.array_equal(np.concatenate(seen), codes)


def test_what_the_law_costs_is_n_d_times_its_variation_rounded_up() -> None:
    assert (GRID.law.ratio, GRID.law.taus) == (Fraction(255, 4), (1.0, 2.0))
    n, d = 10**6, 150_528
    exact = Fraction(GRID.law.variation) * n * d
    assert exact <= Fraction(GRID.charge(n, d)) <= exact * (1 + Fraction(1, 10**9))
    assert GRID.charge(n, d) < 1e-5
    assert GRID.settings(n, d) == {"kind": "grid", "step": "1/255", "variation": GRID.law.variation, "charge": GRID.charge(n, d)}
