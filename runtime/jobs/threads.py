"""How many threads a process may keep busy: the machine's cores, divided among the processes that sample on it.

Processes that each start a thread a core fight over the cores: two of them on two cores take several times the time of one. Each
holds one of a row of lock files while it samples; how many are held says how many share the machine. The locks are the kernel's and
go with their processes. Where none can be made a process counts itself alone.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock, Timeout
from joblib import cpu_count


def cores() -> int:
    """Cores that this process may use, by its affinity and its container's quota."""
    return int(cpu_count())


def stated(environment: Mapping[str, str] = os.environ) -> int | None:
    """Threads that the environment says: this process's part under torchrun (LOCAL_WORLD_SIZE), else OMP_NUM_THREADS."""
    for name, divides in (("LOCAL_WORLD_SIZE", True), ("OMP_NUM_THREADS", False)):
        # OMP_NUM_THREADS may be a list, one for each level.
        text = environment.get(name, "").split(",")[0].strip()
        if text.isdecimal() and int(text):
            return max(1, cores() // int(text)) if divides else int(text)
    return None


class Share:
    """This process's place among those that sample on the machine; a context manager.

    Args:
        folder: of the lock files, the same for all; by default one for each user in the folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(tempfile.gettempdir()) / f"certlut-{os.getuid() if hasattr(os, 'getuid') else 'threads'}"
        self._own: FileLock | None = None

    def __enter__(self) -> "Share":
        self.threads()
        return self

    def __exit__(self, *_: object) -> None:
        if self._own is not None:
            self._own.release()
            self._own = None

    def threads(self) -> int:
        """Cores over processes, now: at least 1."""
        return max(1, cores() // max(1, self._processes()))

    def _processes(self) -> int:
        """How many places are taken; takes one where it has none yet. More than one a core are not counted."""
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            # One at a time: a place that is tried looks taken to another.
            with FileLock(self.folder / "count.lock", timeout=10.0):
                return sum(self._taken(FileLock(self.folder / f"{place}.lock")) for place in range(cores()))
        except (OSError, Timeout):
            return 1

    def _taken(self, place: FileLock) -> bool:
        if self._own is not None and self._own.lock_file == place.lock_file:
            return True
        try:
            place.acquire(timeout=0.0)
        except Timeout:
            return True
        if self._own is None:
            self._own = place
            return True
        place.release()
        return False
