"""A model's scores of a batch: where it runs, checked for shape, in parts where memory is short, each row's from that row alone."""

import contextlib
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from .memory import out_of_memory

Model = Callable[[torch.Tensor], torch.Tensor]
Array = npt.NDArray[np.float64]

# Rows of the smaller batch that a model is checked with.
FEW = 16
# Scores that move by less, over their spread, are moved by rounding.
ROUNDING = 1e-3


class Placement(NamedTuple):
    """Where a model runs, and the type of its numbers."""

    device: torch.device
    dtype: torch.dtype


def placement(model: Model, x: torch.Tensor) -> Placement:
    """That of the model's parameters and buffers, or of the input x where it is no Module or has none."""
    if isinstance(model, torch.nn.Module):
        tensors = itertools.chain(model.parameters(), model.buffers())
        if (found := next((tensor for tensor in tensors if tensor.is_floating_point()), None)) is not None:
            return Placement(found.device, found.dtype)
    return Placement(x.device, x.dtype if x.is_floating_point() else torch.float32)


def set_to_eval(model: Model) -> None:
    """Eval mode, for a Module that has modes."""
    if isinstance(model, torch.nn.Module):
        # A torch.export program has none and refuses to change them.
        with contextlib.suppress(NotImplementedError):
            model.eval()


def scores_of(model: Model, x: torch.Tensor, num_classes: int) -> torch.Tensor:
    """The model's scores of a batch, shape (B, num_classes).

    Raises:
        ValueError: anything but real numbers of this shape, or the model failed for any reason but memory.
    """
    try:
        scores = model(x)
    except Exception as error:
        if out_of_memory(error):
            raise
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"the model failed on a {x.dtype} batch of shape {tuple(x.shape)}: {line}") from error
    expected = f"expected {(len(x), num_classes)} ({num_classes} classes)"
    if not isinstance(scores, torch.Tensor):
        raise ValueError(f"the model returned a {type(scores).__name__}, {expected} as a tensor of scores")
    if scores.shape != (len(x), num_classes):
        raise ValueError(f"the model returned scores of shape {tuple(scores.shape)}, {expected}")
    if scores.layout != torch.strided or scores.is_complex() or scores.dtype == torch.bool:
        raise ValueError(f"the model returned {scores.dtype} scores ({scores.layout}), {expected} real numbers in a dense tensor")
    # torch has no argmax of 8-bit floating point.
    return scores.float() if scores.is_floating_point() and scores.itemsize == 1 else scores


def in_parts(score: Model, rows: torch.Tensor) -> Array:
    """Scores of the rows as float64; where memory does not suffice, half by half."""
    try:
        return np.asarray(score(rows).detach().cpu().to(torch.float64))
    except (RuntimeError, MemoryError) as error:
        if len(rows) == 1 or not out_of_memory(error):
            raise
    return np.concatenate([in_parts(score, part) for part in rows.tensor_split(2)])


def check_rows(score: Model, x: torch.Tensor, sigma: float, eps: float, device: torch.device, rows: int = FEW) -> None:
    """ValueError where a row's scores depend on the other rows: the votes of a batch would not be independent.

    Noisy copies of x, spread over a batch, are scored twice: among strangers, and among copies of x as it is.

    Args:
        score: a batch (B, *shape) to scores (B, num_classes).
        x: an input.
        sigma: noise level.
        eps: relative rounding of the model's numbers.
        device: where it runs.
        rows: of the batch, FEW or more; a dependence may begin above a number of rows.
    """
    rng, like = np.random.default_rng(2), x if x.is_floating_point() else x.to(torch.float32)
    center = x.detach().cpu().to(torch.float64)
    noise = torch.from_numpy(rng.standard_normal((rows, *x.shape)))
    seen, strangers = slice(1, -1, rows // (FEW // 2)), torch.ones(rows, dtype=torch.bool)
    strangers[seen] = False
    # Several levels, for scores that saturate; strangers far away, and all on one side for what depends on a mean.
    noise[seen] *= sigma * 2.0 ** (torch.arange(len(noise[seen])) % 4).reshape(-1, *[1] * x.ndim)
    noise[strangers] = 4.0 * (sigma + float(center.square().mean().sqrt())) * noise[strangers].abs()

    def among(far: float) -> Array:
        batch = center + noise
        batch[strangers] = center + far * noise[strangers]
        # The same dice each time: a model that is random by itself is none of this check's business.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            return in_parts(score, batch.to(like))[seen]

    first, again, other = among(1.0), among(1.0), among(0.0)
    if np.isnan(first).any() or np.isnan(other).any():
        return
    finite = np.isfinite(first) & np.isfinite(again) & np.isfinite(other)
    size = float(np.abs(first[finite]).max(initial=0.0))
    spread = float(np.ptp(np.where(finite, first, first[finite].mean() if finite.any() else 0.0), axis=1).max())
    moved, restless = (float(np.abs(scores[finite] - first[finite]).max(initial=0.0)) for scores in (other, again))
    changed = bool((first != other)[~finite].any()) and not (first != again)[~finite].any()
    if changed or moved > max(max(ROUNDING, 16.0 * eps) * spread + 4.0 * eps * size, 4.0 * restless):
        raise ValueError(
            f"the model's scores of a row depend on the other rows of its batch (move by {moved:.2g} of {spread:.2g}): "
            f"its votes would not be independent; was it exported or traced in training mode? (batch size 1 makes it a classifier)"
        )
