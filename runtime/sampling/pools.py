"""The thread pools of a process that samples: torch's, BLAS's and OpenMP's, and Numba's, set together."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numba
import torch
from threadpoolctl import threadpool_limits

from ..jobs.threads import Share, stated


def set_threads(threads: int) -> None:
    """Let every pool keep so many threads busy."""
    torch.set_num_threads(threads)
    threadpool_limits(limits=threads)
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


class Pools:
    """Keeps to so many threads, or where none are said to the process's share of the machine, which others change."""

    def __init__(self, threads: int | None, share: Share, every: float = 2.0) -> None:
        self._fixed, self._share, self._every = threads if threads is not None else stated(), share, every
        self._set, self._next = 0, 0.0

    def keep(self) -> None:
        """Set the pools where the share has changed; others are counted again after so many seconds."""
        if time.monotonic() < self._next:
            return
        threads = self._share.threads() if self._fixed is None else self._fixed
        self._next = time.monotonic() + self._every
        if threads != self._set:
            set_threads(threads)
            self._set = threads


@contextmanager
def pools(threads: int | None = None) -> Iterator[Pools]:
    """While it is open this process counts as one that samples. threads: to keep to; by default what jobs/threads.py says."""
    with Share() as share:
        one = Pools(threads, share)
        one.keep()
        yield one
