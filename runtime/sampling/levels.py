"""Inputs as levels of a grid: x = level * step, with integer levels and a rational step, such as 1/255 for 8-bit images.

The certified input is the vector of levels. The floats of a loader stand for it: off by their own rounding, or by a few where it
multiplied or shifted (2 x - 1). What is further from every level than that is refused: it would be certified around another point.
"""

from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import numpy.typing as npt

# Steps are p / q with p and q up to these.
MOST_P, MOST_Q = 2**8, 2**16 - 1
# (level + k) p, k of 16 bits, stays an exact integer of float32.
EXACT, REACH = 2**24, 2**15
# A few roundings of float32, of the largest level (or of 255, where all are small), in steps.
ROUNDING = 2.0**-20
# Grids that are tried: 1/q.
TRIED = (*range(1, 4097), MOST_Q)


def grid_step(step: str | float | Fraction) -> Fraction:
    """The step as an exact fraction: "1/255", or the float nearest to one.

    Raises:
        ValueError: not positive, or no fraction p/q with p <= 256 and q <= 65535.
    """
    try:
        fraction = Fraction(step)
    except (ValueError, TypeError, OverflowError, ZeroDivisionError):
        fraction = Fraction(0)
    if isinstance(step, float) and fraction.denominator > MOST_Q:
        near = fraction.limit_denominator(MOST_Q)
        fraction = near if float(near) == step else fraction
    if not (0 < fraction.numerator <= MOST_P and fraction.denominator <= MOST_Q):
        raise ValueError(f"grid_step = {step}: expected a fraction p/q with p from 1 to {MOST_P}, q up to {MOST_Q}, such as 1/255")
    return fraction


def levels(x: npt.ArrayLike, step: Fraction, name: str = "input") -> npt.NDArray[np.int32]:
    """x / step as integers, of x's shape.

    Raises:
        ValueError: a value that is not on the grid, the first one named; one too large for exact float32.
    """
    values = np.asarray(x)
    units, near = _units(values, step)
    with np.errstate(invalid="ignore"):
        off = ~(np.abs(units - near) <= _allowance(near))
    if off.any():
        place = np.unravel_index(int(off.argmax()), values.shape)
        value, level = float(values[place]), near[place]
        raise ValueError(
            f"{name}[{', '.join(map(str, place))}] = {value:.9g}: not on the grid of step {step}"
            + (f" (nearest: {level:.0f} steps = {level * float(step):.9g})" if np.isfinite(level) else "")
            + "; give images as they are stored and let the model resize and normalise them, "
            "or take the grid_step that they have, or noise 'gaussian'"
        )
    most = EXACT // step.numerator - REACH
    if (np.abs(near) > most).any():
        raise ValueError(f"{name}: a value is {np.abs(near).max():.0f} steps of {step}: expected at most {most}")
    return near.astype(np.int32)


def infer_step(arrays: Iterable[npt.ArrayLike], name: str = "data") -> Fraction:
    """The coarsest of the steps 1, 1/2, ..., 1/4096, 1/65535 whose grid holds all values.

    Raises:
        ValueError: none does.
    """
    values = np.unique(np.concatenate([np.unique(np.asarray(array)) for array in arrays]))
    # Few of many values tell most grids apart.
    some = values[:: max(1, len(values) // 64)]
    for q in TRIED:
        step = Fraction(1, q)
        if all(_on(part, step) for part in (some, values)):
            return step
    raise ValueError(
        f"{name}: {len(values)} values, {values[0]:g} to {values[-1]:g}, are on no grid of step 1, 1/2, ..., 1/4096, 1/{MOST_Q}; "
        "give images as they are stored and let the model resize and normalise them, or take noise 'gaussian'"
    )


def _units(values: npt.NDArray[np.generic], step: Fraction) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    units = values.astype(np.float64) * (step.denominator / step.numerator)
    return units, np.rint(units)


def _allowance(near: npt.NDArray[np.float64]) -> float:
    return ROUNDING * max(float(np.abs(near[np.isfinite(near)]).max(initial=0.0)), 255.0)


def _on(values: npt.NDArray[np.generic], step: Fraction) -> bool:
    units, near = _units(values, step)
    return bool((np.abs(units - near) <= _allowance(near)).all())
