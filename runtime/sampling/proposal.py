"""A unit vector w that ought to lie along the gradient y of the smoothed vote, from gradients of the model at noisy copies of x.

Of N copies, drawn apart from all other samples,

    w  is proportional to  sum of  grad s(margin(x + sigma u) / T),    s(m) = 1 / (1 + exp(-m)),

margin the score of the class less the largest other, T = SHARPNESS times the deviation of the margins. That is the gradient of the
smoothed vote made a little softer, and needs a thousandth to a hundredth of the samples that votes alone would.

No bound rests on it. Whatever w is fixed before the samples are drawn, w.y is a number that they bound (bets.py), and |y|_2 >= w.y:
a model whose gradient is not that of its votes costs radius only. Nothing here is rounded in a safe direction, but w is normalised
in float64.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from .batches import batches
from .card import PROPOSALS, SHARPNESS
from .memory import BatchSize, out_of_memory
from .noise import Gaussian
from .scores import Model, line_of, scores_of
from .streams import Segment

# A stage of the noise (streams.py), disjoint from the selection's and both halves'.
PROPOSAL = 3
# Copies that T comes from, whatever the batches are.
PILOT = 100
# Numbers in a batch: what a network keeps for its gradient is some hundred times its input.
NUMBERS, ROWS = 2**22, 256


@dataclass(frozen=True, eq=False)
class Proposal:
    """Where the gradient may point, and what the copies said of the votes on the way."""

    w: torch.Tensor | None
    """Unit vector, float64, shape (d,), on the noise's device; None: propose from votes."""
    how: str
    """"gradient" or "votes"."""
    n: int = 0
    """Copies that w was made of."""
    temperature: float = 0.0
    """T, in units of the scores."""
    against: int = 0
    """Copies that voted against the class."""
    seen: float = 0.0
    """Mean of (w.u)(f - 1) over the copies, f their votes: an estimate of w.y."""


VOTES = Proposal(None, "votes")


class _NoGradient(Exception):
    """Why there is none."""


@dataclass(frozen=True)
class Source:
    """A model as it is sampled, and the key of the noise."""

    model: Model
    """A batch (B, *shape) of `dtype` on `device` to scores (B, num_classes); in the mode that it votes in."""
    num_classes: int
    sigma: float
    """In input units."""
    seed: int
    device: torch.device
    dtype: torch.dtype


def batch_rows(d: int) -> int:
    """Rows that a gradient is taken of at a time, unless memory or the caller allows fewer."""
    return max(1, min(ROWS, NUMBERS // d))


def propose(source: Source, x: torch.Tensor, label: int, index: int, size: BatchSize, mode: str, n: int) -> Proposal:
    """Propose w for the vote for `label` around x; the same for the same (seed, index) on one device.

    Args:
        source: the model; its parameters and their gradients are left as they are.
        x: one input.
        label: the class.
        index: the input's, which keys its noise.
        size: rows of a batch, `batch_rows(d)` at most; halved, and so kept by the caller, where memory runs out.
        mode: "auto": votes where the model gives no gradient; "gradient": ValueError there; "votes": nothing is tried.
        n: copies.

    Raises:
        ValueError: another mode, n < 1, or no gradient where one was asked for.
    """
    if mode not in PROPOSALS:
        raise ValueError(f"proposal = {mode!r}: expected one of {', '.join(PROPOSALS)}")
    if n < 1:
        raise ValueError(f"proposal of n = {n} copies: expected 1 or more")
    if mode == "votes":
        return VOTES
    try:
        with torch.inference_mode(False), _repeatable(source.device):
            return _Draw(source, x, label, index, size).proposal(n)
    except _NoGradient as error:
        if mode == "gradient":
            raise ValueError(f"proposal = 'gradient': the model gives none ({error}); 'auto' or 'votes' does without") from error
        return VOTES


def obstacle(source: Source, x: torch.Tensor) -> str:
    """Why the model gives no gradient at all, in a line; empty where it does, be that 0 at some inputs."""
    try:
        with torch.inference_mode(False), torch.enable_grad(), _repeatable(source.device):
            draw = _Draw(source, x, 0, 0, BatchSize(1))
            if not _fits(draw.gradient, x.detach().to(source.device, source.dtype)[None]):
                return "out of memory with a single copy"
    except _NoGradient as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class _Draw:
    """The copies of one input, and what is asked of them."""

    source: Source
    x: torch.Tensor
    label: int
    index: int
    size: BatchSize

    def proposal(self, n: int) -> Proposal:
        """From n copies; _NoGradient where there is none."""
        margins: list[torch.Tensor] = []
        with torch.no_grad():
            self._each(min(PILOT, n), lambda rows, _: margins.append(self._margins(rows)))
        # One margin has no deviation.
        temperature = SHARPNESS * float(torch.cat(margins).std(correction=0)) if n > 1 else 1.0
        if not (math.isfinite(temperature) and temperature > 0.0):
            raise _NoGradient(f"its margins have deviation {temperature / SHARPNESS:g}")
        # The largest weight will be near 1: half precision would lose those of a vote that is almost unanimous.
        largest = _log_weights(torch.cat(margins), temperature).max()
        margins.clear()
        total, lost = torch.zeros((2, self.x.numel()), dtype=torch.float64, device=self.source.device)

        def differentiate(rows: torch.Tensor, u: torch.Tensor) -> None:
            margin, gradient = self.gradient(rows, lambda margin: (_log_weights(margin, temperature) - largest).exp())
            sums = gradient.sum(dim=0, dtype=torch.float64).reshape(-1), (margin <= 0.0).to(torch.float64) @ u
            total.add_(sums[0])
            lost.add_(sums[1])
            margins.append(margin)

        with torch.enable_grad():
            self._each(n, differentiate)
        length = float(total.norm())
        if not (math.isfinite(length) and length > 0.0):
            raise _NoGradient(f"its length is {length:g}")
        w = total / length
        w = w / w.norm()
        against = int((torch.cat(margins) <= 0.0).sum())
        return Proposal(w, "gradient", n, temperature, against, -float(w @ lost) / n)

    def gradient(
        self, rows: torch.Tensor, weigh: Callable[[torch.Tensor], torch.Tensor] = torch.ones_like
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(margins, their gradients times the weights that `weigh` gives them), shapes (B,) and (B, *shape)."""
        leaf = rows.detach().requires_grad_()
        margin = self._margins(leaf)
        if not margin.requires_grad:
            raise _NoGradient("its scores carry no gradient")
        (gradient,) = torch.autograd.grad(margin, leaf, weigh(margin.detach()), allow_unused=True)
        if gradient is None:
            raise _NoGradient("its scores do not depend on the input")
        return margin.detach(), gradient

    def _margins(self, rows: torch.Tensor) -> torch.Tensor:
        """Score of the class less the largest other, float64, shape (B,)."""
        # A copy: a model may change its input in place, which a leaf does not allow.
        scores = scores_of(self.source.model, rows.clone(), self.source.num_classes).to(torch.float64)
        others = torch.cat((scores[:, : self.label], scores[:, self.label + 1 :]), dim=1)
        return scores[:, self.label] - others.amax(dim=1)

    def _each(self, n: int, work: Callable[[torch.Tensor, torch.Tensor], None]) -> None:
        """Do `work` for the first n copies and their noise, rows at a time; it leaves no trace where it runs out of memory."""
        source, shape = self.source, self.x.shape
        center = self.x.detach().to(source.device, torch.float64).reshape(1, -1)
        rounded = source.dtype if torch.finfo(source.dtype).bits <= 32 else torch.float32
        segments = [Segment(0, self.index, PROPOSAL, 0, n)]
        for batch in batches(Gaussian(source.seed, center, source.sigma, rounded), segments, self.size):
            start = 0
            while start < len(batch.noisy):
                where = slice(start, start + self.size.rows)
                rows = batch.noisy[where].to(source.dtype).reshape(-1, *shape)
                if _fits(work, rows, batch.u[where]):
                    start += len(rows)
                elif not self.size.halve(source.device):
                    raise _NoGradient("out of memory with a single copy")


def _log_weights(margins: torch.Tensor, temperature: float) -> torch.Tensor:
    """log s'(m / T): how much a copy's gradient counts."""
    size = margins.abs() / temperature
    return -size - 2.0 * torch.log1p(torch.exp(-size))


def _fits(work: Callable[..., object], *rows: torch.Tensor) -> bool:
    """Do it; False where memory ran out: what it held is free again once this returns."""
    try:
        work(*rows)
    except _NoGradient:
        raise
    except Exception as error:
        if out_of_memory(error):
            return False
        raise _NoGradient(line_of(error)) from error
    return True


@contextlib.contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """cuDNN's sums of gradients in a fixed order."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
