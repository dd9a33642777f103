"""The sampler's noise straight from NumPy's counter-based generator and SciPy's quantile."""

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from certlut.sampling.streams import NORMALS


def naive_words(seed: int, index: int, stage: int, n: int) -> npt.NDArray[np.uint64]:
    """The random bits of the n first numbers of a stream."""
    chunks = -(-n // 256)
    raw = np.random.Philox(key=[seed, 0], counter=[0, NORMALS, stage, index]).random_raw(256 * chunks)
    return np.asarray(raw.reshape(chunks, 64, 4).transpose(0, 2, 1).ravel()[:n])


def naive_noise(seed: int, index: int, stage: int, n: int, d: int) -> npt.NDArray[np.float64]:
    """The n first rows of a stream, shape (n, d), to a few roundings."""
    bits = naive_words(seed, index, stage, n * d)
    tail = ((bits >> np.uint64(1)).astype(np.float64) + 0.5) * 2.0**-64
    return np.asarray(np.where(bits & np.uint64(1), -1.0, 1.0) * ndtri(tail)).reshape(n, d)
