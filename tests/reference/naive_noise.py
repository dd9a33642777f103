"""The sampler's noise, block by block straight from the counter-based generator."""

import numpy as np
import numpy.typing as npt


def naive_noise(seed: int, index: int, stage: int, n: int, d: int) -> npt.NDArray[np.float64]:
    """The n first rows of a stream, shape (n, d)."""
    rows = max(1, min(1024, 2**18 // d))
    out: list[npt.NDArray[np.float64]] = []
    for block in range(-(-n // rows)):
        bits = np.random.Philox(key=[seed, 0], counter=[0, block, stage, index])
        out.append(np.random.Generator(bits).standard_normal((rows, d)))
    return np.concatenate([np.empty((0, d)), *out])[:n]
