"""The sampler's noise from a generator in Python's integers and SciPy's quantile."""

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from certlut.sampling.streams import NORMALS

_MASK = 2**32 - 1


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 as its authors define it."""
    (k0, k1), (a, b, c, d) = key, counter
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (q >> 32) ^ b ^ k0, q & _MASK, (p >> 32) ^ d ^ k1, p & _MASK
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return a, b, c, d


def plane(seed: int, index: int, stage: int, place: int, first: int, calls: int) -> npt.NDArray[np.uint64]:
    """The words of some calls of a plane of a stream, shape (calls, 2)."""
    call = np.arange(first, first + calls, dtype=np.uint64) + np.uint64(place << 62 | stage << 60)
    low, half = np.uint64(_MASK), np.uint64(32)
    a, b, c, d = call & low, call >> half, np.full_like(call, index & _MASK), np.full_like(call, index >> 32)
    k0, k1 = seed & _MASK, seed >> 32
    for _ in range(10):
        p, q = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, b, c, d = (q >> half) ^ b ^ np.uint64(k0), q & low, (p >> half) ^ d ^ np.uint64(k1), p & low
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return np.stack((a | (b << half), c | (d << half)), axis=1)


def naive_words(seed: int, index: int, stage: int, n: int, first: int = 0) -> npt.NDArray[np.uint64]:
    """The random bits of n numbers of a stream from number `first` on, a multiple of 128."""
    chunks = -(-n // 128)
    raw = plane(seed, index, stage, NORMALS, first // 2, 64 * chunks)
    return np.asarray(raw.reshape(chunks, 64, 2).transpose(0, 2, 1).ravel()[:n])


def naive_noise(seed: int, index: int, stage: int, n: int, d: int) -> npt.NDArray[np.float64]:
    """The n first rows of a stream, shape (n, d), to a few roundings."""
    bits = naive_words(seed, index, stage, n * d)
    tail = ((bits >> np.uint64(1)).astype(np.float64) + 0.5) * 2.0**-64
    return np.asarray(np.where(bits & np.uint64(1), -1.0, 1.0) * ndtri(tail)).reshape(n, d)
