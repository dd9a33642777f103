"""Philox4x32-10 for compiled kernels: random bits as a function of (key, counter), on any machine and device the same.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011). A call turns a counter of four 32-bit words into four random
ones; here two 64-bit words into two, the lower half of each first. Its products have 64 bits, which a vector unit has.
"""

import numpy as np
import numpy.typing as npt

from .jit import jit

Words = npt.NDArray[np.uint64]

M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
ROUNDS = 10
# Random words of a call; calls side by side.
PER_CALL, LANES = 2, 64
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


@jit
def words(key: Words, counter: Words, out: Words) -> None:
    """LANES calls, the first word of the counter going up by one: out[i, j] is word i of call j, shape (2, LANES).

    Args:
        key: two words below 2^32.
        counter: two words.
        out: written.
    """
    key0, key1, before, index = key[0], key[1], counter[0], counter[1]
    low, high = out[0], out[1]
    for lane in range(LANES):
        first = before + np.uint64(lane)
        a, b, c, d = first & _LOW, first >> _HALF, index & _LOW, index >> _HALF
        k0, k1 = key0, key1
        for _ in range(ROUNDS):
            p, q = M0 * a, M1 * c
            a, b, c, d = (q >> _HALF) ^ b ^ k0, q & _LOW, (p >> _HALF) ^ d ^ k1, p & _LOW
            k0, k1 = (k0 + W0) & _LOW, (k1 + W1) & _LOW
        low[lane], high[lane] = a | (b << _HALF), c | (d << _HALF)


@jit
def word(k0: np.uint64, k1: np.uint64, first: np.uint64, second: np.uint64, place: np.uint64) -> np.uint64:
    """Word `place` of the call at counter (first, second) with key (k0, k1)."""
    a, b, c, d = first & _LOW, first >> _HALF, second & _LOW, second >> _HALF
    for _ in range(ROUNDS):
        p, q = M0 * a, M1 * c
        a, b, c, d = (q >> _HALF) ^ b ^ k0, q & _LOW, (p >> _HALF) ^ d ^ k1, p & _LOW
        k0, k1 = (k0 + W0) & _LOW, (k1 + W1) & _LOW
    return a | (b << _HALF) if place == 0 else c | (d << _HALF)
