"""What to do when memory runs out: smaller batches, from there on."""

import sys
import warnings

import torch


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
