"""Noise on the grid of the inputs' levels (grid.py), as batches.py deals it out."""

from dataclasses import dataclass
from fractions import Fraction

import torch

from .cells import Law, law
from .grid import draw_torch, form, form_torch, perturb
from .streams import Stream


@dataclass(frozen=True)
class Grid:
    """Noise of a level on a grid of a step."""

    law: Law
    step: Fraction
    """In input units."""

    @classmethod
    def of(cls, sigma: float, step: Fraction, taus: tuple[float, ...] = ()) -> "Grid":
        """Of noise level sigma, in input units, with cells split at thresholds, sigma = 1 units. ValueError as `cells.law`."""
        return cls(law(Fraction(sigma) / step, taus), step)

    def charge(self, n: int, d: int) -> float:
        """What the law drawn may add to the probability of any event of n samples of d numbers, rounded up."""
        return n * d * self.law.variation * (1.0 + 1e-12)

    def settings(self, n: int, d: int) -> dict[str, str | float]:
        """As a statistics file tells it."""
        return {"kind": "grid", "step": str(self.step), "variation": self.law.variation, "charge": self.charge(n, d)}


@dataclass(frozen=True)
class GridNoise:
    """Noise on a grid around inputs of whole levels."""

    seed: int
    centers: torch.Tensor
    """The inputs over the step: int32, shape (slots, d)."""
    grid: Grid

    @property
    def dtypes(self) -> tuple[torch.dtype, torch.dtype]:
        """Codes of the noise, and float32."""
        return torch.int16, torch.float32

    def draw(self, u: torch.Tensor, noisy: torch.Tensor, stream: Stream, start: int, slot: int) -> None:
        """As `batches.Noise`; u receives the codes."""
        if u.device.type == "cpu":
            perturb(self.grid.law, stream, start, u.numpy(), self.centers[slot].numpy(), self.grid.step, noisy.numpy())
        else:
            self.draw_torch(u, noisy, stream, start, slot)

    def draw_torch(self, u: torch.Tensor, noisy: torch.Tensor, stream: Stream, start: int, slot: int) -> None:
        """The same bits by torch's operations, on any device."""
        draw_torch(self.grid.law, stream, start, u)
        form_torch(self.grid.law, u, self.centers[slot], self.grid.step, noisy)

    def form(self, u: torch.Tensor, noisy: torch.Tensor, slot: int) -> None:
        """As `batches.Noise`."""
        if u.device.type == "cpu":
            form(self.grid.law, u.numpy(), self.centers[slot].numpy(), self.grid.step, noisy.numpy())
        else:
            form_torch(self.grid.law, u, self.centers[slot], self.grid.step, noisy)
