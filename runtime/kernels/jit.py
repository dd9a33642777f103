"""The one place for Numba's flags: cached machine code, IEEE division, no fastmath, the GIL released."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def jit(function: F) -> F:
    """Compile a scalar or loop kernel. `error_model="numpy"`: x/0 is inf or NaN as in NumPy, never an exception."""
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=False)(function))
