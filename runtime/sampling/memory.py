"""What to do when memory runs out: smaller batches, from there on."""

import contextlib
import ctypes
import sys
import warnings

import torch

# glibc's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, and what they are set to.
_KEPT = {-3: 2**30, -1: 2**31 - 1}


class BatchSize:
    """Rows of a batch: halved whenever memory runs out, and not raised again."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def halve(self, device: torch.device) -> bool:
        """Halve it; False where it is 1 already."""
        if self.rows == 1:
            return False
        self.rows //= 2
        warnings.warn(f"out of memory: batches of {self.rows} from here on", RuntimeWarning, stacklevel=2)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return True


def keep_freed() -> None:
    """Let a process keep what it frees, for the next batch, instead of giving it back to the kernel and faulting it in again.

    A network's activations are allocated by torch, out of reach of buffers of ours. It is set for a whole process, so by a
    command, not by a library. Only with glibc; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            mallopt = ctypes.CDLL(None).mallopt
            for parameter, value in _KEPT.items():
                mallopt(parameter, value)


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocator gave up: torch's on a GPU, its CPU allocator (a plain RuntimeError), or NumPy's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in text or "out of memory" in text)


def most_rows(d: int, device: torch.device, dtype: torch.dtype) -> int:
    """Rows whose noise takes a quarter of a GPU's free memory: the rest is the model's."""
    if device.type != "cuda":
        return sys.maxsize
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(1, free // (4 * d * (8 + dtype.itemsize)))
