"""The one place for Numba's flags: cached machine code, IEEE division, no fastmath, the GIL released.

Machine code is kept beside the sources, else in the user's cache folder, or where NUMBA_CACHE_DIR says. Where none can be written
(a container under another user, a full quota) kernels are compiled at every start, and one line on stderr says so.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])

_told = False


def _tell(why: object) -> None:
    """Say once, and in the first process only, that there is no cache."""
    global _told
    if not _told and multiprocessing.current_process().name == "MainProcess":
        print(
            f"certlut: no use of a cache of compiled code ({why}), so every start compiles for some seconds; "
            "set NUMBA_CACHE_DIR to a folder that can be written",
            file=sys.stderr,
        )
    _told = True


@contextmanager
def _no_folder_named_tilde() -> Iterator[None]:
    """Without HOME and a name in the user database, "~" stays as it is, and Numba would make a folder of that name here."""
    given = os.environ.get("XDG_CACHE_HOME")
    if os.path.isabs(given or os.path.expanduser("~")):
        yield
        return
    os.environ["XDG_CACHE_HOME"] = os.devnull
    try:
        yield
    finally:
        del os.environ["XDG_CACHE_HOME"]
        if given:
            os.environ["XDG_CACHE_HOME"] = given


def _forgiving(action: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a cache that gives up, and says so: an unreadable, damaged or full folder must not stop what can be compiled."""

    def attempt(*arguments: Any) -> Any:
        try:
            return action(*arguments)
        except Exception as error:
            _tell(error)
            return None

    return attempt


def jit(function: F) -> F:
    """Compile a scalar or loop kernel. `error_model="numpy"`: x/0 is inf or NaN as in NumPy, never an exception."""
    flags: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False}
    try:
        with _no_folder_named_tilde():
            kernel = numba.njit(cache=True, **flags)(function)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        _tell("no folder can be written")
        kernel = numba.njit(**flags)(function)
    # Absent under NUMBA_DISABLE_JIT.
    if cache := getattr(kernel, "_cache", None):
        cache.load_overload, cache.save_overload = _forgiving(cache.load_overload), _forgiving(cache.save_overload)
    return cast(F, kernel)
