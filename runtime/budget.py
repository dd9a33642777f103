"""Who spends which part of alpha: every event that a certificate rests on, its level, and the threats that use it.

By the union bound all radii of a certificate hold together with probability at least 1 - alpha, alpha the sum of the levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .threats import Quantity, Threat

# q carries every radius, also the zeroth-order part: it gets nearly all. A norm's level enters under a logarithm only.
SHARE_OF_Q = 0.9


@dataclass(frozen=True)
class Budget:
    """Levels of the bound on q and of each norm bound; `total` is what is spent, at most the alpha that was asked for."""

    q: float
    norms: dict[Quantity, float]
    users: dict[Quantity, tuple[str, ...]]

    @property
    def total(self) -> float:
        """The sum of all levels."""
        return self.q + sum(self.norms.values())

    def __str__(self) -> str:
        lines = [f"{self.q:.3g}  lower bound of q (every radius)"]
        lines += [f"{level:.3g}  {quantity} ({', '.join(self.users[quantity])})" for quantity, level in self.norms.items()]
        return "\n".join([*lines, f"{self.total:.3g}  in all"])


def split(alpha: float, threats: Sequence[Threat]) -> Budget:
    """Divide alpha: SHARE_OF_Q to q, the rest equally among the norm bounds that the threats need. ValueError outside (0, 1)."""
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha = {alpha}: expected 0 < alpha < 1")
    users: dict[Quantity, list[str]] = {}
    for threat in threats:
        for quantity in threat.needs():
            users.setdefault(quantity, []).append(threat.name)
    # A hair less than the rest, so that the rounded levels cannot add up to more than alpha.
    level = (1.0 - SHARE_OF_Q) * alpha * (1.0 - 1e-12) / len(users)
    return Budget(
        SHARE_OF_Q * alpha,
        dict.fromkeys(users, level),
        {quantity: tuple(names) for quantity, names in users.items()},
    )
