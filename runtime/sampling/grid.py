"""Gaussian noise on a grid, drawn: the parts of cells.py from counter-based random bits, and the inputs that they make.

Number p of a stream has 64 random bits of its own. The leading 16 are a quarter of word p / 4 of one of its planes, the other 48
the upper part of word p of another, made only where an edge of the law lies among what the 16 leave open (one draw in a hundred). A
plane is Philox's words in order (streams.py). Any row can be drawn without those before it: a draw depends on nothing else, be it
batch size, shard, thread or device, and its law is that of the integer weights, exactly.

The model receives (level + k) step: level + k is an integer, times the step's numerator still an exact one below 2^24, and dividing
it by the denominator rounds once. That is the float32 that a loader makes of a stored level, level / 255: a function of level + k.
"""

from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..kernels.jit import jit
from ..kernels.philox import LANES, M0, M1, PER_CALL, ROUNDS, W0, W1, Words, word, words
from .cells import LEADING, OPEN, Law
from .streams import LEADING_BITS, OTHER_BITS, Stream

Codes = npt.NDArray[np.int16]
Levels = npt.NDArray[np.int32]

# Numbers that a word of plane 0 serves; a call; LANES calls.
PER_WORD = 64 // LEADING
PER_CHUNK = LANES * PER_CALL * PER_WORD
# Numbers at a time: in a cache from their draw to their use; what a GPU holds of their bits.
STRIP, DEVICE_STRIP = 2**15, 2**24

_MASK = 2**32 - 1


def draw(law: Law, stream: Stream, start: int, codes: Codes) -> None:
    """Rows start, start + 1, ... of a stream, in place: the codes of the parts.

    Args:
        law: of the noise.
        stream: what to draw.
        start: first row.
        codes: int16, shape (rows, d), contiguous.
    """
    counters = np.stack([stream.counter(plane) for plane in (LEADING_BITS, OTHER_BITS)])
    _draw(stream.key, counters, start * codes.shape[1], law.guide, law.first, law.edges, law.codes, _flat(codes))


def form(law: Law, codes: Codes, levels: Levels, step: Fraction, out: npt.NDArray[np.float32]) -> None:
    """What the model receives, in place.

    Args:
        law: of the noise.
        codes: as `draw` left them, shape (rows, d).
        levels: the input over the step, shape (d,): |levels + k| times the step's numerator is below 2^24 (levels.py sees to it).
        step: of the grid, in input units.
        out: shape (rows, d).
    """
    _form(codes, law.bits, levels, np.float32(step.numerator), np.float32(step.denominator), out)


def perturb(
    law: Law, stream: Stream, start: int, codes: Codes, levels: Levels, step: Fraction, out: npt.NDArray[np.float32]
) -> None:
    """`draw` and `form`, a few rows at a time."""
    rows = max(1, STRIP // codes.shape[1])
    for row in range(0, len(codes), rows):
        draw(law, stream, start + row, codes[row : row + rows])
        form(law, codes[row : row + rows], levels, step, out[row : row + rows])


def _flat(codes: Codes) -> Codes:
    if not codes.flags.c_contiguous:
        raise ValueError(f"codes of shape {codes.shape}: expected contiguous rows")
    return codes.reshape(-1)


@jit
def _draw(
    key: Words, counters: Words, start: int, guide: Codes, first: npt.NDArray[np.uint16], edges: Words, codes: Codes, out: Codes
) -> None:
    """Numbers start, start + 1, ... of a stream."""
    bits, leading = np.empty((PER_CALL, LANES), dtype=np.uint64), np.empty(PER_CHUNK, dtype=np.uint16)
    counter, stop = counters[0].copy(), start + len(out)
    k0, k1, others, index = key[0], key[1], counters[1, 0], counters[1, 1]
    for chunk in range(start // PER_CHUNK, -(-stop // PER_CHUNK)):
        counter[0] = counters[0, 0] + np.uint64(chunk * LANES)
        words(key, counter, bits)
        for lane in range(LANES):
            for place in range(PER_CALL):
                four, first_of = bits[place, lane], (PER_CALL * lane + place) * PER_WORD
                for quarter in range(PER_WORD):
                    leading[first_of + quarter] = np.uint16(four >> np.uint64(LEADING * quarter))
        before = chunk * PER_CHUNK
        for i in range(max(start - before, 0), min(stop - before, PER_CHUNK)):
            lead = leading[i]
            code = guide[lead]
            if code == OPEN:
                number = np.uint64(before + i)
                rest = word(k0, k1, others + (number >> np.uint64(1)), index, number & np.uint64(1))
                r = (np.uint64(lead) << np.uint64(64 - LEADING)) | (rest >> np.uint64(LEADING))
                low, high = np.int64(first[lead]), np.int64(first[np.int64(lead) + 1])
                while low < high:
                    middle = (low + high) // 2
                    if edges[middle] <= r:
                        low = middle + 1
                    else:
                        high = middle
                code = codes[low]
            out[before + i - start] = code


@jit
def _form(codes: Codes, bits: int, levels: Levels, top: np.float32, bottom: np.float32, out: npt.NDArray[np.float32]) -> None:
    for row in range(codes.shape[0]):
        for j in range(codes.shape[1]):
            out[row, j] = np.float32(levels[j] + (np.int32(codes[row, j]) >> bits)) * top / bottom


class _Tables(NamedTuple):
    """A law's tables on a device; edges less 2^63, so that their order is that of signed numbers."""

    guide: torch.Tensor
    edges: torch.Tensor
    codes: torch.Tensor
    shifts: torch.Tensor


@lru_cache(maxsize=16)
def _tables(law: Law, device: torch.device) -> _Tables:
    edges = (law.edges ^ np.uint64(2**63)).view(np.int64)
    arrays = (law.guide.copy(), edges, law.codes.copy(), LEADING * np.arange(PER_WORD))
    return _Tables(*(torch.from_numpy(array).to(device) for array in arrays))


def draw_torch(law: Law, stream: Stream, start: int, codes: torch.Tensor) -> None:
    """`draw` on any device, bit for bit: `codes` int16, shape (rows, d), contiguous."""
    flat = codes.view(-1)
    for done in range(0, len(flat), DEVICE_STRIP):
        _draw_strip(law, stream, start * codes.shape[1] + done, flat[done : done + DEVICE_STRIP])


def form_torch(law: Law, codes: torch.Tensor, levels: torch.Tensor, step: Fraction, out: torch.Tensor) -> None:
    """`form` on any device: levels int32, out float32."""
    torch.add(codes.to(torch.int32) >> law.bits, levels, out=out)
    # By a number, a GPU multiplies with its reciprocal, which rounds twice; by a tensor it divides.
    out.mul_(step.numerator).div_(torch.full((1,), step.denominator, dtype=torch.float32, device=out.device))


def _draw_strip(law: Law, stream: Stream, start: int, out: torch.Tensor) -> None:
    tables, stop = _tables(law, out.device), start + len(out)
    per_call = PER_CALL * PER_WORD
    calls = torch.arange(start // per_call, -(-stop // per_call), device=out.device)
    quarters = (_philox(stream, LEADING_BITS, calls)[:, :, None] >> tables.shifts) & (2**LEADING - 1)
    leading = quarters.view(-1)[start % per_call :][: len(out)]
    out.copy_(tables.guide[leading])
    left = (out == OPEN).nonzero()[:, 0]
    numbers = start + left
    rest = _philox(stream, OTHER_BITS, numbers >> 1).gather(1, (numbers & 1)[:, None])[:, 0]
    low = 64 - LEADING
    r = (leading[left] << low) | ((rest >> LEADING) & (2**low - 1))
    out[left] = tables.codes[torch.searchsorted(tables.edges, r ^ -(2**63), right=True)]


def _philox(stream: Stream, plane: int, ahead: torch.Tensor) -> torch.Tensor:
    """The calls so far ahead in a plane, as int64 that stand for 64 bits: shape (calls, 2)."""
    first, index = (int(word) for word in stream.counter(plane))
    (k0, k1), start = (int(word) for word in stream.key), _signed(first)
    a, b = (ahead + start) & _MASK, ((ahead + start) >> 32) & _MASK
    c, d = torch.full_like(ahead, index & _MASK), torch.full_like(ahead, index >> 32)
    for _ in range(ROUNDS):
        p, q = a * int(M0), c * int(M1)
        a, b, c, d = ((q >> 32) & _MASK) ^ b ^ k0, q & _MASK, ((p >> 32) & _MASK) ^ d ^ k1, p & _MASK
        k0, k1 = (k0 + int(W0)) & _MASK, (k1 + int(W1)) & _MASK
    return torch.stack((a | (b << 32), c | (d << 32)), dim=1)


def _signed(x: int) -> int:
    """The int64 with the 64 bits of x."""
    return x - 2**64 if x >= 2**63 else x
