"""Draws on the grid against a slow reading of the same bits, their law, and what a model is given."""

import math
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import binom, chi2

from certlut.sampling.cells import OPEN, TOTAL, Law, law
from certlut.sampling.grid import STRIP, Codes, draw, draw_torch, form, form_torch, perturb
from certlut.sampling.streams import Stream
from reference.naive_noise import plane

BYTE = Fraction(1, 255)
LAWS = [law(Fraction(1), (0.6, 0.7, 2.0)), law(Fraction(4)), law(255 * Fraction(0.12), (1.0, 3.0)), law(Fraction(255))]


def _drawn(grid: Law, stream: Stream, start: int, rows: int, d: int) -> Codes:
    codes = np.full((rows, d), OPEN, dtype=np.int16)
    draw(grid, stream, start, codes)
    return codes


def _bits(stream: Stream, numbers: int) -> list[int]:
    """The 64 random bits of the first numbers of a stream."""
    leading, others = (plane(stream.seed, stream.index, stream.stage, place, 0, numbers).ravel().tolist() for place in (0, 1))
    quarters = [word >> shift & 0xFFFF for word in leading[: -(-numbers // 4)] for shift in (0, 16, 32, 48)]
    return [lead << 48 | word >> 16 for lead, word in zip(quarters[:numbers], others[:numbers], strict=True)]


@pytest.mark.parametrize("grid", LAWS, ids=lambda grid: str(float(grid.ratio)))
def test_a_draw_is_its_64_bits_against_the_weights(grid: Law) -> None:
    stream, rows, d = Stream(2**63 - 1, 2**62, 2), 37, 311
    edges = np.cumsum(grid.weights.astype(object))[:-1].tolist()
    expected = [int(grid.codes[bisect_right(edges, r)]) for r in _bits(stream, rows * d)]
    assert _drawn(grid, stream, 0, rows, d).ravel().tolist() == expected


@pytest.mark.parametrize("grid", LAWS, ids=lambda grid: str(float(grid.ratio)))
def test_a_draw_of_the_outermost_leading_bits_is_its_64_bits_too(grid: Law) -> None:
    stream, numbers = Stream(6, 1, 1), 2**19
    bits = np.array(_bits(stream, numbers), dtype=np.uint64)
    outer = np.flatnonzero(np.isin(bits >> np.uint64(48), (0, 2**16 - 1)))
    assert len(outer) > 5
    codes = _drawn(grid, stream, 0, numbers // 64, 64).ravel()
    assert np.array_equal(codes[outer], grid.codes[np.searchsorted(grid.edges, bits[outer], side="right")])


@pytest.mark.parametrize("grid", LAWS, ids=lambda grid: str(float(grid.ratio)))
def test_known_bits_reach_every_part_to_its_last_weight(grid: Law, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a generator that returns the bits it is told: both ends of every part, the tails' last units among them."""
    edges = [0, *np.cumsum(grid.weights.astype(object)).tolist()]
    # A part of weight 0 is never drawn.
    told = [(r, code) for code, lo, hi in zip(grid.codes.tolist(), edges, edges[1:], strict=False) if lo < hi for r in (lo, hi - 1)]
    bits = np.array([r for r, _ in told] + [0] * (-len(told) % 16), dtype=np.uint64)
    shifts = np.array([0, 16, 32, 48], dtype=np.uint64)
    planes = ((bits >> np.uint64(48)).reshape(-1, 4) << shifts).sum(axis=1, dtype=np.uint64), bits << np.uint64(16)
    calls = [torch.from_numpy(plane_.view(np.int64).reshape(-1, 2)) for plane_ in planes]
    monkeypatch.setattr("certlut.sampling.grid._philox", lambda _stream, place, ahead: calls[place][ahead])
    out = torch.empty((1, len(bits)), dtype=torch.int16)
    draw_torch(grid, Stream(0, 0, 0), 0, out)
    assert out[0, : len(told)].tolist() == [code for _, code in told]


@pytest.mark.parametrize("grid", LAWS, ids=lambda grid: str(float(grid.ratio)))
@pytest.mark.parametrize("d", [1, 3, 16, 1000, STRIP + 5])
def test_draws_do_not_depend_on_how_rows_are_cut(grid: Law, d: int) -> None:
    rows = max(5, 3000 // d)
    stream = Stream(5, 3, 1)
    whole = _drawn(grid, stream, 0, rows, d)
    for height in (1, 2, 7, rows - 1):
        for start in range(0, rows, height):
            part = _drawn(grid, stream, start, min(height, rows - start), d)
            assert np.array_equal(part, whole[start : start + height])


def test_threads_change_nothing() -> None:
    grid, stream = LAWS[2], Stream(1, 2, 1)
    whole = _drawn(grid, stream, 0, 400, 999)
    apart = np.empty_like(whole)
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda row: draw(grid, stream, row, apart[row : row + 40]), range(0, 400, 40)):
            pass
    assert np.array_equal(apart, whole)


@pytest.mark.parametrize("grid", LAWS, ids=lambda grid: str(float(grid.ratio)))
@pytest.mark.parametrize(("start", "rows", "d"), [(0, 4, 16), (11, 9, 37), (10**9, 3, 5000), (2**40 + 1, 2, 3)])
def test_torch_draws_and_forms_the_same_bit_for_bit(
    grid: Law, start: int, rows: int, d: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream(2**63 - 7, 2**63 - 1, 2)
    levels = np.random.default_rng(d).integers(0, 256, d, dtype=np.int32)
    codes = _drawn(grid, stream, start, rows, d)
    noisy = np.empty((rows, d), dtype=np.float32)
    form(grid, codes, levels, BYTE, noisy)
    monkeypatch.setattr("certlut.sampling.grid.DEVICE_STRIP", 1000)
    ours, formed = torch.empty((rows, d), dtype=torch.int16), torch.empty((rows, d))
    draw_torch(grid, stream, start, ours)
    form_torch(grid, ours, torch.from_numpy(levels), BYTE, formed)
    assert torch.equal(ours, torch.from_numpy(codes))
    assert formed.numpy().tobytes() == noisy.tobytes()


def test_streams_share_nothing() -> None:
    streams = [Stream(seed, index, stage) for seed in (0, 1, 2**63 - 1) for index in (0, 1, 2**40) for stage in (0, 1, 2)]
    drawn = np.stack([_drawn(LAWS[3], stream, 0, 1, 4000)[0] for stream in streams]).astype(np.float64)
    correlation = np.corrcoef(drawn) - np.eye(len(streams))
    assert np.abs(correlation).max() < 6.0 / math.sqrt(4000)
    # Nor is one a shifted piece of another.
    eights = np.lib.stride_tricks.sliding_window_view(drawn, 8, axis=1).reshape(-1, 8)
    assert len(np.unique(eights, axis=0)) == len(eights)


def chi_square(counts: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> float:
    """The p-value, neighbours of fewer than 10 expected draws taken together."""
    expected, total, pooled, seen = counts.sum() * probabilities, 0.0, [], []
    count = 0
    for e, c in zip(expected.tolist(), counts.tolist(), strict=True):
        total, count = total + e, count + c
        if total >= 10.0:
            pooled.append(total)
            seen.append(count)
            total, count = 0.0, 0
    pooled[-1] += total
    seen[-1] += count
    statistic = sum((s - e) ** 2 / e for s, e in zip(seen, pooled, strict=True))
    return float(chi2.sf(statistic, len(seen) - 1))


@pytest.mark.parametrize("grid", LAWS, ids=lambda grid: str(float(grid.ratio)))
def test_all_parts_come_as_often_as_their_weights_say(grid: Law) -> None:
    codes = np.concatenate([_drawn(grid, Stream(17, index, 1), 0, 1000, 300).ravel() for index in range(10)])
    counts = np.bincount(codes.astype(np.int64) - grid.low, minlength=len(grid.mean))[grid.codes.astype(np.int64) - grid.low]
    assert counts.sum() == codes.size
    assert chi_square(counts, grid.weights / TOTAL) > 1e-4


@pytest.mark.parametrize("grid", LAWS[:2], ids=lambda grid: str(float(grid.ratio)))
@pytest.mark.parametrize("pair", ["neighbours in a row", "rows", "streams"])
def test_pairs_come_as_often_as_independent_draws(grid: Law, pair: str) -> None:
    one, other = _drawn(grid, Stream(3, 0, 1), 0, 1001, 800), _drawn(grid, Stream(3, 1, 1), 0, 1001, 800)
    apart = {"neighbours in a row": (one[:, :-1], one[:, 1:]), "rows": (one[:-1], one[1:]), "streams": (one, other)}
    a, b = (part.astype(np.int64).ravel() - grid.low for part in apart[pair])
    size, places = len(grid.mean), grid.codes.astype(np.int64) - grid.low
    counts = np.bincount(a * size + b, minlength=size * size).reshape(size, size)[np.ix_(places, places)]
    p = grid.weights / TOTAL
    assert chi_square(counts.ravel(), np.outer(p, p).ravel()) > 1e-4


def test_tails_come_with_their_frequency() -> None:
    grid, draws, beyond = law(Fraction(4), (4.0, 6.0)), 0, 0
    for index in range(10):
        codes = _drawn(grid, Stream(23, index, 1), 0, 1000, 400)
        draws, beyond = draws + codes.size, beyond + int((grid.rank[codes.astype(np.int64) - grid.low] >= 1).sum())
    p = math.erfc(4.0 / math.sqrt(2.0)) / 2.0
    assert binom.ppf(1e-4, draws, p) <= beyond <= binom.isf(1e-4, draws, p)
    # Beyond 6 a draw has 2^64 Q(6) of the 2^64 weights on each side.
    weight = sum(w for w, c in zip(grid.weights.tolist(), grid.codes.tolist(), strict=True) if grid.rank[c - grid.low] == 2)
    assert abs(weight / TOTAL * 2.0 / math.erfc(6.0 / math.sqrt(2.0)) - 1.0) < 1e-9


@pytest.mark.parametrize("step", [BYTE, Fraction(1, 16), Fraction(1), Fraction(2, 3)])
def test_the_model_gets_the_float_nearest_to_every_level(step: Fraction) -> None:
    grid = law(Fraction(4))
    ks = np.arange(-37, 38, dtype=np.int16)[:, None]
    levels = np.arange(-300, 700, dtype=np.int32)
    out = np.empty((len(ks), len(levels)), dtype=np.float32)
    form(grid, np.broadcast_to(ks, out.shape), levels, step, out)
    total = ks + levels
    exact = {int(level): np.float32(float(int(level) * step)) for level in np.unique(total)}
    # float64 first is no second rounding here: no level lies as near to the middle of two floats.
    assert np.array_equal(out, np.vectorize(exact.__getitem__)(total))


def test_without_noise_the_model_gets_what_a_loader_gives() -> None:
    byte = np.arange(256, dtype=np.int32)
    out = np.empty((1, 256), dtype=np.float32)
    form(LAWS[1], np.zeros((1, 256), dtype=np.int16), byte, BYTE, out)
    assert out[0].tobytes() == (byte.astype(np.float32) / np.float32(255)).tobytes()
    assert torch.equal(torch.from_numpy(out[0]), torch.arange(256, dtype=torch.uint8).to(torch.float32).div(255))


def test_perturb_is_draw_and_form() -> None:
    grid, stream, levels = LAWS[2], Stream(4, 4, 1), np.arange(5000, dtype=np.int32) % 256
    codes, noisy = np.empty((30, 5000), dtype=np.int16), np.empty((30, 5000), dtype=np.float32)
    perturb(grid, stream, 7, codes, levels, BYTE, noisy)
    assert np.array_equal(codes, _drawn(grid, stream, 7, 30, 5000))
    again = np.empty_like(noisy)
    form(grid, codes, levels, BYTE, again)
    assert noisy.tobytes() == again.tobytes()


def test_codes_that_are_not_contiguous_are_refused() -> None:
    with pytest.raises(ValueError, match="expected contiguous rows"):
        draw(LAWS[0], Stream(0, 0, 0), 0, np.empty((4, 6), dtype=np.int16)[:, ::2])


def spy(noisy: npt.NDArray[np.float32]) -> float:
    """How often a small sum has no bits below those of 1/2: 1/2 plus noise of float32's own grid never has."""
    small = noisy[np.abs(noisy) < 2.0**-6].astype(np.float64)
    return float(np.mean(small * 2.0**25 % 1.0 == 0.0))


def test_a_spy_on_low_bits_learns_nothing_of_x() -> None:
    """A model that tells x = 0 from x = 128/255 by the low bits of sums that do not differ otherwise."""
    n, sigma, half = 400_000, 0.5, np.float32(128 / 255)
    generator = torch.Generator().manual_seed(1)
    floats = [
        (np.float32(sigma) * torch.randn(n, generator=generator).numpy() + x).astype(np.float32) for x in (np.float32(0), half)
    ]
    assert spy(floats[0]) < 0.1
    assert spy(floats[1]) > 0.9
    # float64 noise, rounded once.
    rng = np.random.default_rng(2)
    rounded = [(float(x) + sigma * rng.standard_normal(n)).astype(np.float32) for x in (0.0, half)]
    assert abs(spy(rounded[0]) - spy(rounded[1])) < 0.02
    # On the grid a sum is a function of level + k: given that, its bits are always the same.
    grid, bits = law(Fraction(sigma) / BYTE), []
    for index, level in enumerate((0, 128)):
        codes, noisy = np.empty((1, n), dtype=np.int16), np.empty((1, n), dtype=np.float32)
        perturb(grid, Stream(9, index, 1), 0, codes, np.full(n, level, dtype=np.int32), BYTE, noisy)
        bits.append({int(total): int(pattern) for total, pattern in zip(codes[0] + level, noisy[0].view(np.uint32), strict=True)})
        assert len({(int(a), int(b)) for a, b in zip(codes[0] + level, noisy[0].view(np.uint32), strict=True)}) == len(bits[-1])
    shared = bits[0].keys() & bits[1].keys()
    assert len(shared) > 500
    assert all(bits[0][total] == bits[1][total] for total in shared)
