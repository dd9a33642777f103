"""Threats that change few coordinates, whichever these are."""

from dataclasses import dataclass

from ..kernels.covering import Covering
from .families import Family, Tails
from .projections import Projection
from .sets import ALL, LENGTH, Quantity, Threat


@dataclass(frozen=True, eq=False)
class Sparse(Threat):
    """All perturbations of any k coordinates with |delta|_2 <= R. The dual norm is the l2 norm of the k largest coordinates."""

    kind = "sparse"
    name: str
    k: int

    exponent = 2.0
    shape = None
    touched = None

    def coordinates(self, d: int) -> int:
        """K of them."""
        return min(self.k, d)

    def longest(self, p: float, d: int) -> float:
        """As of a ball of k coordinates."""
        return float(self.coordinates(d) ** max(0.0, (1.0 / p) - 0.5))

    def holds(self, inner: Threat, d: int) -> bool:
        """Where every perturbation changes few enough."""
        return inner.coordinates(d) <= self.coordinates(d)

    def parts(self) -> dict[str, Projection]:
        """One coordinate's dual norm is the whole's linf norm, which needs no part of its own."""
        return {} if self.k == 1 else {self.name: Projection(largest=self.k)}

    def needs(self) -> tuple[Quantity, ...]:
        """The dual norm from above."""
        return (Quantity(ALL, "linf", "upper") if self.k == 1 else Quantity(self.name, "sparse", "upper"), LENGTH)

    def tails(self, d: int) -> Tails | None:
        """Along all axes."""
        return Tails(ALL, Family(), Covering.sparse(self.coordinates(d)))

    def settings(self) -> float | str | None:
        """Its k."""
        return f"sparse {self.k}"
