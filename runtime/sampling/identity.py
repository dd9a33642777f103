"""What models and data sets are known by when a run goes on or shards are merged.

A model: a digest of its parameters and buffers, and its scores of a few noisy inputs. The scores see whatever its votes come from,
be it a hook, a global, a program or a file that it reads; counters, clocks and caches do not matter to them.
"""

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .scores import in_parts

PROBES, ROWS = 64, 16


def digest(x: Any) -> str:
    """Identifies an input, or any tensor: its type, shape and bytes."""
    tensor = torch.as_tensor(x).detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
    tensor = tensor.cpu().resolve_conj().resolve_neg().contiguous()
    head = f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
    return hashlib.sha256(head + tensor.view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()[:32]


def places(data: Sequence[tuple[Any, int]]) -> Sequence[int]:
    """Of the inputs that stand for a data set: of all up to half a GiB of numbers, else of 64 evenly spread ones."""
    first = torch.as_tensor(data[0][0])
    many = len(data) * first.numel() * first.element_size() > 2**29
    return sorted({i * (len(data) - 1) // 63 for i in range(64)}) if many else range(len(data))


def data_digest(data: Sequence[tuple[Any, int]]) -> str:
    """Identifies a data set by the inputs and labels at its `places`; empty for none."""
    if not len(data):
        return ""
    hashed = hashlib.sha256()
    for place in places(data):
        x, label = data[place]
        hashed.update(f"{digest(x)} {int(label)}\n".encode())
    return hashed.hexdigest()[:32]


def file_digest(spec: str) -> str:
    """Identifies what a model was loaded from: the file's bytes, or for a function those of its module's source."""
    path, where = Path(spec), spec.rpartition(":")[0]
    if not path.exists():
        path = Path(where if where.endswith(".py") else getattr(sys.modules.get(where), "__file__", None) or "")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32] if path.is_file() else ""


def state_digest(model: Callable[..., Any]) -> str:
    """Identifies a Module's parameters and buffers, in their order, on any device; of another callable nothing is seen here."""
    if not isinstance(model, torch.nn.Module):
        return ""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return hashlib.sha256(" ".join(digest(tensor) for _, tensor in tensors).encode()).hexdigest()[:32]


def probe(score: Callable[[torch.Tensor], torch.Tensor], inputs: Sequence[torch.Tensor], sigma: float) -> list[float]:
    """A number for each of `PROBES` noisy copies of some inputs: the scores, less their mean, along one random direction.

    `score` maps a batch (B, *shape) to scores (B, num_classes). A shift of all scores, which argmax does not see, does not count.
    Compared by `journal.differing`.
    """
    rng, like = np.random.default_rng(0), inputs[0] if inputs[0].is_floating_point() else inputs[0].to(torch.float32)
    centers = [x.detach().cpu().to(torch.float64) for x in inputs if x.shape == like.shape]
    found = []
    for start in range(0, PROBES, ROWS):
        center = torch.stack([centers[row % len(centers)] for row in range(start, start + ROWS)])
        found.append(in_parts(score, (center + sigma * torch.from_numpy(rng.standard_normal(center.shape))).to(like)))
    scores = np.concatenate(found)
    scores = np.where(np.isfinite(scores), scores, 0.0)
    values = (scores - scores.mean(axis=1, keepdims=True)) @ np.random.default_rng(1).standard_normal(scores.shape[1])
    return [float(value) for value in values]
