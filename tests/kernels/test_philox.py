"""certlut.kernels.philox against published answers and integers of any size."""

import numpy as np
import pytest

from certlut.kernels.philox import LANES, word, words
from reference.naive_noise import philox

# Known answers of the authors' own library: counter, key and result, 32-bit words from the lowest.
ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "result"), ANSWERS)
def test_bits_are_the_published_ones(
    counter: tuple[int, int, int, int], key: tuple[int, int], result: tuple[int, int, int, int]
) -> None:
    assert philox(key, counter) == result
    first, out = (
        np.array([counter[0] | counter[1] << 32, counter[2] | counter[3] << 32], np.uint64),
        np.empty((2, LANES), np.uint64),
    )
    words(np.array(key, np.uint64), first, out)
    assert out[:, 0].tolist() == [result[0] | result[1] << 32, result[2] | result[3] << 32]


@pytest.mark.parametrize("key", [(0, 0), (7, 0), (2**32 - 1, 2**31)])
@pytest.mark.parametrize("counter", [(0, 0), (2**32 - 20, 2**63 - 1), (2**62 + 3, 5), (2**64 - 64, 2**64 - 1)])
def test_calls_go_up_from_the_counter(key: tuple[int, int], counter: tuple[int, int]) -> None:
    keys, first, out = np.array(key, np.uint64), np.array(counter, np.uint64), np.empty((2, LANES), np.uint64)
    words(keys, first, out)
    for lane in range(LANES):
        ahead, mask = counter[0] + lane, 2**32 - 1
        r = philox(key, (ahead & mask, ahead >> 32, counter[1] & mask, counter[1] >> 32))
        assert out[:, lane].tolist() == [r[0] | r[1] << 32, r[2] | r[3] << 32]
        for place in range(2):
            assert word(*keys, np.uint64(ahead), first[1], np.uint64(place)) == out[place, lane]
