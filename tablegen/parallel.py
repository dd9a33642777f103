"""Run independent tasks through joblib, on processes here or on a Dask cluster, and hand back results as they come."""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

with warnings.catch_warnings():
    # Where it finds no semaphores; `run` says so when it matters.
    warnings.filterwarnings("ignore", "(?s).*joblib will operate in serial mode")
    import joblib


def run(function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], jobs: int, scheduler: str | None = None) -> Iterator[Any]:
    """`function(*task)` for every task, in any order of completion.

    Args:
        function: importable by the workers; each process runs it on one thread.
        tasks: argument tuples.
        jobs: worker processes, -1 for all cores; with a scheduler, how many tasks are in flight (-1: one for each of its threads).
        scheduler: address of a Dask scheduler whose workers have certlut installed; None for processes on this machine. Where it
            lets nobody start any (/dev/shm missing, full or read-only) this one does all, and one line on stderr says so.

    Raises:
        ImportError: a scheduler is given and dask.distributed is missing.
        OSError: no scheduler answers at the address; a worker process was killed.
    """
    if jobs == 0 or jobs < -1:
        raise ValueError(f"jobs = {jobs}: expected -1 or at least 1")
    if scheduler is None and joblib.parallel.mp is None:
        if jobs != 1:
            print("certlut: no processes can be started (no usable /dev/shm?), so one does all the work", file=sys.stderr)
        yield from (function(*task) for task in tasks)
        return
    with contextlib.ExitStack() as stack:
        if scheduler is None:
            stack.enter_context(joblib.parallel_config(backend="loky", n_jobs=jobs, inner_max_num_threads=1))
        else:
            try:
                from distributed import Client
            except ImportError:
                raise ImportError("a Dask cluster needs dask: pip install 'certlut[cluster]'") from None
            stack.enter_context(Client(scheduler, timeout=20))
            stack.enter_context(joblib.parallel_config(backend="dask", n_jobs=jobs))
        calls: Iterable[Any] = (joblib.delayed(function)(*task) for task in tasks)
        try:
            yield from joblib.Parallel(return_as="generator_unordered")(calls)
        except Exception as error:
            # Dask's own name for it needs Dask.
            if not isinstance(error, BrokenProcessPool) and type(error).__name__ != "KilledWorker":
                raise
            raise ChildProcessError(
                "a worker process ended in the middle of its task (killed for memory, by a scheduler?): what was finished is kept, "
                "the same command goes on; --jobs 1 starts none"
            ) from None
