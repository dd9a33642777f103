"""Standard normals as a function of counter-based random bits: number p of a stream is Phi^-1 of 64 bits of its own.

Of a number's 64 bits the last is its sign; the others are k, and its tail is (k + 1/2) 2^-64, rounded to float64: from 2^-65 (9.2)
to 1/2. Phi^-1 of the tail is a polynomial on each of 64 cells an octave, Taylor's of degree 6 around the middle, with

    w' = -1/phi(w),  w'' = w w'^2,  w^(n+1) = P_n(w) w'^(n+1),  P_1 = w,  P_(n+1) = P_n' + (n + 1) w P_n,

what it leaves out being at most 2^-49 / 7 of w: less than a rounding. No products are fused, so that the bits are any machine's.

Words are Philox's (kernels/philox.py): word i of call j is number 128 (j // 64) + 64 i + j % 64.
"""

from functools import lru_cache

import numpy as np
from numpy.polynomial import polynomial

from ..kernels.arrays import Array
from ..kernels.jit import jit
from ..kernels.normal import densities, upper_quantile
from ..kernels.philox import LANES, PER_CALL, Words, words
from .streams import NORMALS, Stream

# The exponent of 2^-65 and the first mantissa bits: which cell a tail is in.
OCTAVES, MANTISSA, DEGREE = 64, 6, 6
_SHIFT = np.uint64(52 - MANTISSA)
_FIRST = np.float64(2.0**-65).view(np.uint64) >> _SHIFT
PER_CHUNK = PER_CALL * LANES


@lru_cache(maxsize=1)
def _cells() -> Array:
    """The middle of every cell, and the coefficients around it from the constant term up: shape (cells, 8)."""
    edges = (np.arange(OCTAVES * 2**MANTISSA + 2, dtype=np.uint64) + _FIRST << _SHIFT).view(np.float64)
    middle = (edges[:-1] + edges[1:]) / 2.0
    w = np.array([upper_quantile(p) if p <= 0.5 else -upper_quantile(1.0 - p) for p in middle])
    slope, of_w, columns, factorial = -1.0 / densities(w), np.array([1.0]), [middle, w], 1.0
    for n in range(1, DEGREE + 1):
        factorial *= n
        columns.append(polynomial.polyval(w, of_w) * slope**n / factorial)
        of_w = polynomial.polyadd(polynomial.polyder(of_w), polynomial.polymulx(n * of_w))
    return np.ascontiguousarray(np.stack(columns, axis=1))


def draw(stream: Stream, start: int, out: Array) -> None:
    """Rows start, start + 1, ... of a stream, in place: `out` is float64, shape (rows, d), contiguous."""
    if not out.flags.c_contiguous:
        raise ValueError(f"noise of shape {out.shape}: expected contiguous rows")
    _draw(stream.key, stream.counter(NORMALS), start * out.shape[1], _cells(), out.reshape(-1))


@jit
def _draw(key: Words, counter: Words, start: int, cells: Array, out: Array) -> None:
    """Numbers start, start + 1, ... of a stream."""
    bits, tails = np.empty((PER_CALL, LANES), dtype=np.uint64), np.empty(PER_CHUNK)
    made = np.empty(PER_CHUNK)
    raw, places = bits.reshape(-1), tails.view(np.uint64)
    at, stop = counter.copy(), start + len(out)
    for chunk in range(start // PER_CHUNK, -(-stop // PER_CHUNK)):
        at[0] = counter[0] + np.uint64(chunk * LANES)
        words(key, at, bits)
        for i in range(PER_CHUNK):
            tails[i] = (np.float64(np.int64(raw[i] >> np.uint64(1))) + 0.5) * 2.0**-64
        before = chunk * PER_CHUNK
        for i in range(PER_CHUNK):
            cell = (places[i] >> _SHIFT) - _FIRST
            t = tails[i] - cells[cell, 0]
            near = cells[cell, 3] + t * (cells[cell, 4] + t * (cells[cell, 5] + t * (cells[cell, 6] + t * cells[cell, 7])))
            w = cells[cell, 1] + t * (cells[cell, 2] + t * near)
            made[i] = w if raw[i] & np.uint64(1) else -w
        low, high = max(start - before, 0), min(stop - before, PER_CHUNK)
        out[before + low - start : before + high - start] = made[low:high]
