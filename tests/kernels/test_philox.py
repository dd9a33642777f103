"""certlut.kernels.philox against NumPy's own generator."""

import numpy as np
import pytest

from certlut.kernels.philox import LANES, word, words

KEYS = [(0, 0), (7, 0), (2**64 - 1, 2**63)]
COUNTERS = [(0, 0, 0, 0), (5, 1, 2, 2**63 - 1), (2**32 - 70, 2**64 - 1, 3, 0)]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("counter", COUNTERS)
def test_the_bits_are_numpys(key: tuple[int, int], counter: tuple[int, int, int, int]) -> None:
    keys, first = np.array(key, np.uint64), np.array(counter, np.uint64)
    expected = np.random.Philox(key=keys, counter=first).random_raw(4 * LANES).reshape(LANES, 4)
    out = np.empty((4, LANES), np.uint64)
    # NumPy counts up before it draws.
    words(keys, first + np.array([1, 0, 0, 0], np.uint64), out)
    assert np.array_equal(out.T, expected)
    for call in (0, 1, LANES - 1):
        ahead = first[0] + np.uint64(call + 1)
        alone = [word(*keys, ahead, *first[1:], np.uint64(place)) for place in range(4)]
        assert np.array_equal(np.array(alone, np.uint64), expected[call])
