"""Names for the arrays that travel; and what users give for numbers, as float64, without a cast that changes it."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def reals(name: str, value: Any) -> Array:
    """`value`, an array or tensor of any shape, as float64; ValueError, with its name, unless float64 holds its numbers.

    Gaps of masked arrays, imaginary parts, text, objects and numbers of more than 64 bits would be lost without a word.
    """
    if hasattr(value, "detach"):
        # A tensor: NumPy knows neither its gradient nor all of its types.
        value = value.detach().cpu()
        value = value.double().numpy() if value.is_floating_point() else value.numpy()
    if np.ma.is_masked(value):
        raise ValueError(f"{name} is a masked array: expected its gaps filled, x.filled(value)")
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and array.dtype.itemsize > 8):
        held = f"is a {type(value).__name__}" if array.dtype.kind in "OU" else f"holds {array.dtype}"
        raise ValueError(f"{name} {held}: expected real numbers that float64 holds")
    return np.asarray(array, dtype=np.float64)


def real(name: str, value: Any) -> float:
    """One number, as `reals`."""
    array = reals(name, value)
    if array.ndim:
        raise ValueError(f"{name} has shape {array.shape}: expected one number")
    return float(array)
