"""One process an output: a lock file beside it, which tells who holds it.

The lock is the kernel's (flock) and goes with its process, however it ends. Where the file system has none (some NFS, Lustre, FUSE)
the file locks by being there: left behind by a process that was killed, it is taken over on the same machine, and on another one
refused with what to do.
"""

import contextlib
import errno
import os
import socket
import time
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class Lock:
    """The lock `<out>.lock`, held from the start."""

    def __init__(self, out: str | os.PathLike[str]) -> None:
        """Take it.

        Raises:
            ValueError: another process holds it; who, where and for how long is said.
            OSError: it cannot be made.
        """
        self.out, self.path = os.fspath(out), Path(f"{os.fspath(out)}.lock")
        try:
            self._lock = FileLock(self.path) if self._kernel_locks() else SoftFileLock(self.path)
            self._acquire(self._lock)
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), str(self.path)) from None
        if not isinstance(self._lock, SoftFileLock):
            # As a SoftFileLock says it; a full disk takes no more than the saying.
            with contextlib.suppress(OSError):
                self.path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n")

    def _kernel_locks(self) -> bool:
        """Tried on a file of this process alone: one that is left locks by existing."""
        trial = Path(f"{self.path}.{os.getpid()}")
        lock = FileLock(trial)
        try:
            self._acquire(lock)
            lock.release()
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return False
        finally:
            trial.unlink(missing_ok=True)
        return True

    def _acquire(self, lock: BaseFileLock) -> None:
        try:
            # Not 0: one who is just leaving deletes the file on the way.
            lock.acquire(timeout=0.2)
        except Timeout:
            if not os.path.exists(lock.lock_file):
                raise PermissionError(errno.EACCES, "", str(self.path)) from None
            raise ValueError(self._refusal()) from None

    def _refusal(self) -> str:
        who = "another process"
        with contextlib.suppress(OSError, ValueError):
            pid, host = self.path.read_text().split()[:2]
            who = f"process {pid} on {host}, for {(time.time() - self.path.stat().st_mtime) / 60:.0f} min"
        return f"{self.out}: another process is writing it ({who}); if that has ended, delete {self.path}"

    def release(self) -> None:
        """Let others in."""
        if self._lock.is_locked:
            if not isinstance(self._lock, SoftFileLock):
                # Before it is released; one who has opened this file meanwhile sees that it has no name any more, and starts over.
                self.path.unlink(missing_ok=True)
            self._lock.release()
