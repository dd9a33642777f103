"""A model's scores of a batch: checked for shape, taken in parts where memory is short, and the same in any company of rows."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from .noise import out_of_memory

Model = Callable[[torch.Tensor], torch.Tensor]
Array = npt.NDArray[np.float64]

# Rows of the batch that a model is checked with.
COMPANY = 16
# Scores that move by less, over their spread, are moved by rounding.
ROUNDING = 1e-3


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


def check_company(score: Model, x: torch.Tensor, sigma: float, rows: int, eps: float) -> None:
    """ValueError where a row's scores depend on the other rows: the votes of a batch would not be independent.

    Noisy copies of x are scored twice among the same strangers, which shows a model that is random by itself, then among others.

    Args:
        score: a batch (B, *shape) to scores (B, num_classes).
        x: an input.
        sigma: noise level.
        rows: of a batch, 2 or more.
        eps: relative rounding of the model's numbers.
    """
    rng, like = np.random.default_rng(2), x if x.is_floating_point() else x.to(torch.float32)
    center, half = x.detach().cpu().to(torch.float64), rows // 2
    noise = [torch.from_numpy(rng.standard_normal((count, *x.shape))) for count in (half, rows - half)]
    own = center + sigma * noise[0]

    def among(level: float) -> Array:
        # Anew each time: a model may change its input in place.
        return in_parts(score, torch.cat((own, center + level * sigma * noise[1])).to(like))[:half]

    first, again, other = among(4.0), among(4.0), among(0.0)
    if not (np.isfinite(first).all() and np.isfinite(other).all()):
        return
    spread = float(np.abs(first - first.mean(axis=1, keepdims=True)).max())
    rounding = 4.0 * eps * float(np.abs(first).max())
    moved, restless = (float(np.abs(scores - first).max()) for scores in (other, again))
    if moved > max(ROUNDING, 16.0 * eps) * spread + rounding and restless <= rounding:
        raise ValueError(
            f"the model's scores of a row depend on the other rows of its batch (move by {moved:.2g} of {spread:.2g}): "
            f"its votes would not be independent; was it exported or traced in training mode? (batch size 1 makes it a classifier)"
        )
