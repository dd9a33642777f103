"""Noise, votes and moments in torch, on the model's device. Memory is O(batch * d), whatever n is.

Noise is float64 and x + sigma u is formed in float64, then rounded once to float32 (or to the model's coarser type): the rounding
is part of the classifier. Noise on float32's own grid would let a model read x itself from the low bits of x + sigma u.
"""

import contextlib
import hashlib
import itertools
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .statistics import Moments

Model = Callable[[torch.Tensor], torch.Tensor]

# Noise is made in blocks that depend on (seed, index, stage, block) alone: of at most this many rows and about this many numbers.
BLOCK_ROWS = 1024
BLOCK_SIZE = 2**18
SELECTION, FIRST, SECOND = 0, 1, 2


def block_rows(d: int) -> int:
    """Rows of one noise block for inputs of d numbers; part of what a seed means."""
    return max(1, min(BLOCK_ROWS, BLOCK_SIZE // d))


def fill_block(out: torch.Tensor, seed: int, index: int, stage: int, block: int) -> None:
    """Standard normals for one block (float64), in place.

    On the CPU a counter-based generator (Philox, 128-bit key) whose counter starts at (block, stage, index): blocks cannot overlap.
    torch's CPU generator keeps 32 bits of a seed and would repeat itself. On a GPU torch's own Philox, keyed by a 64-bit hash.
    """
    if out.device.type == "cpu":
        bits = np.random.Philox(key=np.array([seed, 0], dtype=np.uint64), counter=np.array([0, block, stage, index], np.uint64))
        np.random.Generator(bits).standard_normal(out=out.numpy())
    else:
        key = hashlib.blake2b(struct.pack("<4Q", seed, index, stage, block), digest_size=8).digest()
        generator = torch.Generator(out.device).manual_seed(int.from_bytes(key, "little") >> 1)
        out.normal_(generator=generator)


def noise(seed: int, index: int, stage: int, n: int, d: int, batch_size: int, device: torch.device) -> Iterator[torch.Tensor]:
    """n standard normal rows of length d in batches of at most `batch_size`; a batch is overwritten by the next one."""
    rows = block_rows(d)
    batch = torch.empty((min(batch_size, n), d), dtype=torch.float64, device=device)
    spare = torch.empty((rows, d), dtype=torch.float64, device=device)
    used, block = rows, 0
    for start in range(0, n, batch_size):
        size = min(batch_size, n - start)
        filled = 0
        while filled < size:
            if used == rows:
                used = 0
                target = batch[filled : filled + rows] if size - filled >= rows else spare
                fill_block(target, seed, index, stage, block)
                block += 1
                if target is not spare:
                    filled, used = filled + rows, rows
                    continue
            take = min(rows - used, size - filled)
            batch[filled : filled + take] = spare[used : used + take]
            filled, used = filled + take, used + take
        yield batch[:size]


def check_input(x: Any, **counts: int) -> torch.Tensor:
    """`x` as a tensor; ValueError unless it is finite real numbers and every count is 1 or more."""
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} = {value}: expected 1 or more")
    tensor: torch.Tensor = torch.as_tensor(x)
    if tensor.numel() == 0 or tensor.is_complex() or not torch.isfinite(tensor).all():
        raise ValueError(f"input of shape {tuple(tensor.shape)}: expected finite real numbers, without a batch axis")
    return tensor


def digest(x: Any) -> str:
    """Identifies an input, or any tensor: its type, shape and bytes."""
    tensor = torch.as_tensor(x).detach().cpu().contiguous()
    head = f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
    return hashlib.sha256(head + tensor.view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()[:32]


def fingerprint(model: Model) -> str:
    """Identifies a Module by its parameters and buffers; any other callable by its type only."""
    if not isinstance(model, torch.nn.Module):
        return type(model).__name__
    state = "".join(f"{name} {digest(value)}\n" for name, value in sorted(model.state_dict().items()))
    return hashlib.sha256(state.encode()).hexdigest()[:32]


class Sampler:
    """Draws noisy votes of `model` around one input at a time.

    Args:
        model: maps a batch (B, *shape) to scores (B, num_classes); put in eval mode where it is a Module.
        sigma: noise level in the model's input units.
        num_classes: number of columns the scores must have.
        seed: the same seed gives the same noise for the same index.
    """

    def __init__(self, model: Model, sigma: float, num_classes: int, seed: int) -> None:
        self.model, self.sigma, self.num_classes, self.seed = model, sigma, num_classes, seed
        self.device: torch.device | None = None
        self.dtype: torch.dtype | None = None
        if isinstance(model, torch.nn.Module):
            # A torch.export program has no modes and refuses to change them.
            with contextlib.suppress(NotImplementedError):
                model.eval()
            tensors = itertools.chain(model.parameters(), model.buffers())
            parameter = next((p for p in tensors if p.is_floating_point()), None)
            if parameter is not None:
                self.device, self.dtype = parameter.device, parameter.dtype

    def votes(self, x: torch.Tensor, n: int, index: int, batch_size: int) -> npt.NDArray[np.int64]:
        """Votes per class among n samples of the selection stage, shape (num_classes,)."""
        counts = torch.zeros(self.num_classes, dtype=torch.int64, device=self._device(x))
        for _, predicted in self._predictions(x, n, index, SELECTION, batch_size):
            counts += torch.bincount(predicted, minlength=self.num_classes)
        return counts.cpu().numpy()

    def moments(self, x: torch.Tensor, label: int, n: int, index: int, batch_size: int) -> Moments:
        """Sums over two halves of n fresh samples, f being the vote for `label`."""
        d = x.numel()
        halves = np.array([n // 2, n - n // 2], dtype=np.int64)
        count = torch.zeros(2, dtype=torch.int64, device=self._device(x))
        sums = torch.zeros((2, 2, d), dtype=torch.float64, device=count.device)
        for half, stage in enumerate((FIRST, SECOND)):
            for u, predicted in self._predictions(x, int(halves[half]), index, stage, batch_size):
                votes = predicted == label
                count[half] += votes.sum()
                # Rows: sum u f, sum u.
                sums[half] += torch.stack((votes.to(u.dtype), torch.ones_like(votes, dtype=u.dtype))) @ u
        total = sums.cpu().numpy()
        return Moments(halves, count.cpu().numpy(), total[:, 0], total[:, 1])

    def _device(self, x: torch.Tensor) -> torch.device:
        return self.device or x.device

    @torch.inference_mode()
    def _predictions(
        self, x: torch.Tensor, n: int, index: int, stage: int, batch_size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of (u, predicted class); u is float64 of shape (B, d)."""
        device = self._device(x)
        dtype = self.dtype or (x.dtype if x.is_floating_point() else torch.float32)
        rounded = dtype if torch.finfo(dtype).bits <= 32 else torch.float32
        center = x.to(device, torch.float64).reshape(1, -1)
        finite = torch.ones((), dtype=torch.bool, device=device)
        for u in noise(self.seed, index, stage, n, center.shape[1], batch_size, device):
            scores = self.model(torch.add(center, u, alpha=self.sigma).to(rounded).to(dtype).reshape(-1, *x.shape))
            if scores.shape != (len(u), self.num_classes):
                raise ValueError(
                    f"the model returned scores of shape {tuple(scores.shape)}, expected {(len(u), self.num_classes)} "
                    f"({self.num_classes} classes)"
                )
            finite &= ~scores.isnan().any()
            yield u, scores.argmax(dim=1)
        if not finite:
            raise ValueError("the model returned NaN scores")
