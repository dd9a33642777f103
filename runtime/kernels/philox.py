"""Philox4x64-10 for compiled kernels: random bits as a function of (key, counter), the same as numpy.random.Philox makes.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011). A call turns a counter of four 64-bit words into four random
words. NumPy counts up before the first call: what it draws from (0, a, b, c) begins with the call at (1, a, b, c).
"""

import numpy as np
import numpy.typing as npt

from .jit import jit

Words = npt.NDArray[np.uint64]

M0, M1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
W0, W1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
ROUNDS = 10
# Calls side by side, for the processor's vector unit.
LANES = 64
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


@jit
def _high(a: np.uint64, b: np.uint64) -> np.uint64:
    """The upper 64 bits of a b, from 32-bit halves: the vector unit has no longer product."""
    a0, a1, b0, b1 = a & _LOW, a >> _HALF, b & _LOW, b >> _HALF
    middle = a1 * b0 + ((a0 * b0) >> _HALF)
    return a1 * b1 + (middle >> _HALF) + ((a0 * b1 + (middle & _LOW)) >> _HALF)


@jit
def words(key: Words, counter: Words, out: Words) -> None:
    """LANES calls, the first word of the counter going up by one: out[i, j] is word i of call j, shape (4, LANES)."""
    a, b, c, d = out[0], out[1], out[2], out[3]
    for lane in range(LANES):
        a[lane] = counter[0] + np.uint64(lane)
        b[lane], c[lane], d[lane] = counter[1], counter[2], counter[3]
    k0, k1 = key[0], key[1]
    for _ in range(ROUNDS):
        for lane in range(LANES):
            x, y = a[lane], c[lane]
            a[lane] = _high(M1, y) ^ b[lane] ^ k0
            b[lane] = M1 * y
            c[lane] = _high(M0, x) ^ d[lane] ^ k1
            d[lane] = M0 * x
        k0, k1 = k0 + W0, k1 + W1


@jit
def word(k0: np.uint64, k1: np.uint64, a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64, place: np.uint64) -> np.uint64:
    """Word `place` of the call at counter (a, b, c, d) with key (k0, k1)."""
    for _ in range(ROUNDS):
        a, b, c, d = _high(M1, c) ^ b ^ k0, M1 * c, _high(M0, a) ^ d ^ k1, M0 * a
        k0, k1 = k0 + W0, k1 + W1
    return a if place == 0 else b if place == 1 else c if place == 2 else d
