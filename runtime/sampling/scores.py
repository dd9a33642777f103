"""A model's scores of a batch: where it runs, checked for shape, in parts where memory is short, each row's from that row alone."""

import contextlib
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from ..kernels.arrays import Array
from .memory import out_of_memory

# Types that noise can be added to, or that scores can be compared in, without a cast that changes numbers.
NUMBERS = frozenset(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.float16, torch.bfloat16, torch.float32, torch.float64}
)
Model = Callable[[torch.Tensor], torch.Tensor]

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
        hint = _other_shape(model, x, num_classes)
        raise ValueError(f"the model failed on a {x.dtype} batch of shape {tuple(x.shape)}: {line_of(error)}{hint}") from error
    expected = f"expected {(len(x), num_classes)} ({num_classes} classes)"
    if not isinstance(scores, torch.Tensor):
        raise ValueError(f"the model returned a {type(scores).__name__}, {expected} as a tensor of scores")
    if scores.shape != (len(x), num_classes):
        raise ValueError(f"the model returned scores of shape {tuple(scores.shape)}, {expected}")
    # torch has no argmax of 8-bit floating point.
    scores = scores.float() if scores.is_floating_point() and scores.itemsize == 1 else scores
    if scores.layout != torch.strided or scores.dtype not in NUMBERS - {torch.bool}:
        raise ValueError(f"the model returned {scores.dtype} scores ({scores.layout}), {expected} real numbers in a dense tensor")
    return scores


def line_of(error: BaseException) -> str:
    """The line of a library's error that says what happened: the first, with what follows a ":" at its end; TorchScript's last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if "TorchScript interpreter" in lines[0]:
        return lines[-1]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def _other_shape(model: Model, x: torch.Tensor, num_classes: int) -> str:
    """What to do where the model would take these inputs in another shape; else empty."""
    shape, flat = x.shape[1:], x[:2].flatten(1)
    side = math.isqrt(flat.shape[1] // 3) if flat.shape[1] % 3 == 0 else 0
    square = (3, side, side) if side and 3 * side**2 == flat.shape[1] else (1, *[math.isqrt(flat.shape[1])] * 2)
    ways: list[tuple[str, Callable[[], torch.Tensor]]] = [
        ("give them with a channel axis, x[None]", lambda: x[:2, None]),
        ("give them without the first axis, x[0]", lambda: x[:2, 0]),
        ("give their channels first, x.transpose(2, 0, 1)", lambda: x[:2].permute(0, 3, 1, 2).contiguous()),
        ("give them flat, x.reshape(-1)", lambda: flat),
        (f"give them as x.reshape{square}", lambda: flat.reshape(-1, *square)),
    ]
    for what, changed in ways:
        # Whatever an unknown model raises on another shape only says that it is not this one.
        with contextlib.suppress(Exception):
            batch = changed()
            if batch.shape[1:] != shape and model(batch).shape == (len(batch), num_classes):
                return f"; the model takes inputs of shape {tuple(batch.shape[1:])}: {what}"
    return ""


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

    A few noisy copies of x, spread over a batch, are scored twice: among strangers, and among copies of x as it is. Where some
    scores are infinite or NaN, which could hide it, the same is tried closer to x, too.

    Args:
        score: a batch (B, *shape) to scores (B, num_classes).
        x: an input.
        sigma: noise level.
        eps: relative rounding of the model's numbers.
        device: where it runs.
        rows: of the batch; fewer than FEW are tried in one of FEW.
    """
    rows = max(rows, FEW)
    seen, like = slice(1, -1, rows // (FEW // 2)), x if x.is_floating_point() else x.to(torch.float32)
    center = x.detach().cpu().to(torch.promote_types(like.dtype, torch.float32))
    kind = np.float64 if center.dtype == torch.float64 else np.float32
    noise = torch.from_numpy(np.random.default_rng(3).standard_normal((len(range(rows)[seen]), *x.shape), dtype=kind))
    # Several levels, for scores that saturate.
    noise *= sigma * 2.0 ** (torch.arange(len(noise)) % 4).reshape(-1, *[1] * x.ndim)

    def among(strangers: bool, near: float) -> Array:
        batch = center.expand(rows, *x.shape).clone()
        if strangers:
            # Far away, and all on one side for what depends on a mean.
            far = torch.from_numpy(np.random.default_rng(2).standard_normal(batch.shape, dtype=kind)).abs_()
            batch.add_(far, alpha=4.0 * (sigma + float(center.square().mean().sqrt())))
        batch[seen] = center + near * noise
        # The same dice each time: a model that is random by itself is none of this check's business.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            return in_parts(score, batch.to(like))[seen]

    any_finite = False
    for near in (1.0, 2.0**-3, 2.0**-6, 0.0):
        first, other = among(True, near), among(False, near)
        if _depends(first, other, partial(among, True, near), eps):
            raise ValueError(
                f"the model's scores of a row depend on the other rows of its batch (of {rows}): its votes would not be "
                f"independent; was it exported or traced in training mode? (batch size 1 makes it a classifier)"
            )
        any_finite |= bool(np.isfinite(first).any())
        if np.isfinite(first).all() and np.isfinite(other).all():
            return
    if not any_finite:
        raise ValueError("the model returned NaN scores of an input, and of every row near it")


def _depends(first: Array, other: Array, again: Callable[[], Array], eps: float) -> bool:
    """Whether scores of the same rows moved by more than rounding, and by more than where the same batch is scored again."""
    finite = np.isfinite(first) & np.isfinite(other)
    size = float(np.abs(first[finite]).max(initial=0.0))
    spread = float(np.ptp(np.where(finite, first, first[finite].mean() if finite.any() else 0.0), axis=1).max())
    odd, moved, limit = _odd(first, other), _distance(first, other), max(ROUNDING, 16.0 * eps) * spread + 4.0 * eps * size
    if not odd and moved <= limit:
        return False
    repeated = again()
    return (odd and not _odd(first, repeated)) or moved > max(limit, 4.0 * _distance(first, repeated))


def _odd(a: Array, b: Array) -> bool:
    """Whether a score that is infinite or NaN in one is another thing in the other."""
    return not np.array_equal(np.where(np.isfinite(a), 0.0, a), np.where(np.isfinite(b), 0.0, b), equal_nan=True)


def _distance(a: Array, b: Array) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    return float(np.abs(a[both] - b[both]).max(initial=0.0))
