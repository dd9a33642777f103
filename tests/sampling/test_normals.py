"""Standard normals: against plainly made bits and mpmath's quantile, anywhere in a stream, and their law far out."""

import itertools

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, kstest, norm

from certlut.sampling import normals
from certlut.sampling.normals import PER_CHUNK, draw
from certlut.sampling.streams import FIRST, SECOND, SELECTION, Stream
from reference.naive_noise import naive_noise, naive_words

Array = npt.NDArray[np.float64]


def _drawn(stream: Stream, start: int, rows: int, d: int) -> Array:
    out = np.full((rows, d), np.nan)
    draw(stream, start, out)
    return out


def _exact(bits: int) -> mpmath.mpf:
    tail = (mpmath.mpf(bits >> 1) + mpmath.mpf(1) / 2) / mpmath.mpf(2) ** 64
    # erfinv is slow and lax far out; Newton's method on the tail is neither.
    w = mpmath.mpf(float(norm.isf(float(tail))))
    for _ in range(4):
        w += (mpmath.erfc(w / mpmath.sqrt(2)) / 2 - tail) / mpmath.npdf(w)
    return w if bits & 1 else -w


def test_numbers_are_the_quantiles_of_their_bits() -> None:
    stream, n = Stream(2**63 - 1, 2**62, SECOND), 3 * PER_CHUNK + 77
    bits, u = naive_words(stream.seed, stream.index, stream.stage, n), _drawn(stream, 0, 1, n)[0]
    with mpmath.workdps(40):
        for word, value in zip(bits.tolist(), u.tolist(), strict=True):
            exact = _exact(word)
            # Rounding the tail moves w by less than 2^-54 / phi(0), and w is rounded to 2^-53 of itself a few times.
            assert abs(value - exact) <= 3e-16 + 5e-16 * abs(exact), word


def _of_tails(halves: list[int]) -> Array:
    """What the kernel makes of 64-bit words, of which the generator is left out."""
    cells = normals._cells()
    tails = (np.array(halves, dtype=np.int64).astype(np.float64) + 0.5) * 2.0**-64
    place = (tails.view(np.uint64) >> normals._SHIFT) - normals._FIRST
    t = tails - cells[place, 0]
    return np.asarray(np.polynomial.polynomial.polyval(t, cells[place, 1:].T, tensor=False))


def test_every_cell_is_right_at_its_ends_and_in_the_middle() -> None:
    """From the smallest tail there is to 1/2, and across the octaves."""
    ends = {2**63 - 1, 0, 1, 2, 3}
    for octave, part in itertools.product(range(64), (0, 1, 31, 63)):
        low = 2**octave + (part << octave) // 64
        ends |= {min(max(low + step, 0), 2**63 - 1) for step in (-1, 0, 1, (1 << octave) // 128)}
    halves = sorted(ends)
    made = _of_tails(halves)
    with mpmath.workdps(40):
        for half, w in zip(halves, made.tolist(), strict=True):
            exact = _exact(2 * half + 1)
            assert abs(w - exact) <= 3e-16 + 5e-16 * exact, half
    assert made.max() == pytest.approx(norm.isf(2.0**-65))
    assert abs(made.min()) < 3e-16
    # Nowhere does a larger tail have a larger quantile by more than rounding.
    assert (np.diff(made) <= 1e-15 * (1.0 + made[:-1])).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3000), st.integers(1, 40), st.integers(1, 900))
def test_any_row_is_drawn_without_those_before_it(start: int, rows: int, d: int) -> None:
    stream = Stream(5, 3, FIRST)
    whole = np.full(4000 * 30, np.nan)
    draw(stream, 0, whole[None])
    some = _drawn(stream, start * 30 // d, rows, d).ravel()
    first = start * 30 // d * d
    assert np.array_equal(some[: max(0, len(whole) - first)], whole[first : first + len(some)])


def test_a_row_far_into_a_stream() -> None:
    """Beyond 2^32 numbers, where a narrow counter would repeat."""
    stream, d = Stream(1, 0, FIRST), 64
    far = _drawn(stream, 2**40, 4, d)
    tail = ((naive_words(1, 0, FIRST, 4 * d, 2**40 * d) >> np.uint64(1)).astype(np.float64) + 0.5) * 2.0**-64
    assert np.abs(far.ravel()) == pytest.approx(norm.isf(tail), rel=1e-13, abs=1e-15)
    assert not np.array_equal(far, _drawn(stream, 0, 4, d))


def test_the_reference_is_the_same_noise() -> None:
    u = _drawn(Stream(11, 2, FIRST), 0, 300, 7)
    assert u == pytest.approx(naive_noise(11, 2, FIRST, 300, 7), rel=1e-14, abs=1e-15)


def test_noise_is_standard_normal() -> None:
    u = _drawn(Stream(3, 0, FIRST), 0, 40_960, 25)
    size = u.size
    assert abs(u.mean()) < 5.0 / np.sqrt(size)
    assert abs(u.var() - 1.0) < 5.0 * np.sqrt(2.0 / size)
    assert abs((u**4).mean() - 3.0) < 5.0 * np.sqrt(96.0 / size)
    assert kstest(u.ravel(), "norm").pvalue > 1e-4
    # Rows, columns, neighbours and numbers a chunk apart are uncorrelated.
    columns = np.corrcoef(u.T) - np.eye(25)
    assert np.abs(columns).max() < 5.0 / np.sqrt(len(u))
    flat = u.ravel()
    for lag in (1, 25, 64, PER_CHUNK):
        assert abs(np.mean(flat[lag:] * flat[:-lag])) < 5.0 / np.sqrt(size), lag


def test_cells_of_equal_probability_are_equally_full_out_to_five() -> None:
    """Chi-square over 2,000 cells and, of pairs of neighbours, 30 x 30; and the counts beyond 4, 4.5 and 5 are as due."""
    u = np.concatenate([_drawn(Stream(8, index, FIRST), 0, 1000, 4000).ravel() for index in range(5)])
    for edges, many in ((norm.ppf(np.arange(1, 2000) / 2000), 2000), (norm.ppf(np.arange(1, 30) / 30), 900)):
        place = np.searchsorted(edges, u)
        if many == 900:
            place = 30 * place[::2] + place[1::2]
        count, due = np.bincount(place, minlength=many), len(place) / many
        assert 1e-5 < chi2.sf(((count - due) ** 2 / due).sum(), many - 1) < 1.0 - 1e-5
    for far in (4.0, 4.5, 5.0):
        due = 2.0 * norm.sf(far) * len(u)
        assert abs((np.abs(u) >= far).sum() - due) < 5.0 * np.sqrt(due), far


def test_streams_of_another_seed_index_stage_share_nothing() -> None:
    keys = list(itertools.product((0, 1, 2**32, 2**63 - 1), (0, 1, 2**31), (SELECTION, FIRST, SECOND)))
    drawn = np.concatenate([_drawn(Stream(*key), 0, 1, 2000) for key in keys])
    correlation = np.corrcoef(drawn) - np.eye(len(keys))
    assert np.abs(correlation).max() < 6.0 / np.sqrt(2000)
    # Nor is one a shifted piece of another: no number occurs twice.
    assert len(np.unique(drawn)) == drawn.size


def test_columns_of_a_wider_array_are_refused() -> None:
    with pytest.raises(ValueError, match="expected contiguous rows"):
        draw(Stream(0, 0, 0), 0, np.empty((4, 6))[:, ::2])
