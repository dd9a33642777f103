"""Who spends which part of alpha: every event that a certificate rests on, its level, and the threats that use it.

By the union bound all radii of a certificate hold together with probability at least 1 - alpha, alpha the sum of the levels.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..threats.sets import Quantity, Threat, projections
from .adaptive import EVENTS
from .binomial import least_n

ESTIMATORS = ("adaptive", "paper")
# q carries every radius, also the zeroth-order part: it gets nearly all. A norm's level enters under a logarithm only.
SHARE_OF_Q = 0.9

# The events behind each bound, and their shares of its level, for (norm, side).
MEANS = {"the means along the vector that the norm is attained at": 1.0}
ADAPTIVE: Mapping[tuple[str, str], Mapping[str, float]] = EVENTS | {(norm, "upper"): MEANS for norm in ("l1", "lp", "sparse")}
# The same where no bets were made.
UNBET: Mapping[tuple[str, str], Mapping[str, float]] = {
    **ADAPTIVE,
    ("l2", "lower"): EVENTS["l2", "upper"],
    ("linf", "upper"): MEANS,
    ("dot", "lower"): {"the mean along the direction": 1.0},
    ("abs", "upper"): {"the mean along the direction, with the gradient's sign": 1.0},
}
PAPER: Mapping[tuple[str, str], Mapping[str, float]] = {
    ("l2", "lower"): {"the noise of one half along the other's": 0.5, "noise along the gradient": 0.5},
    ("l2", "upper"): {"the noise of one half along the other's": 0.5, "noise along the gradient": 0.5},
    ("linf", "upper"): {"all signed coordinate axes": 1.0},
    ("l1", "upper"): {"all sign vectors": 1.0},
    ("dot", "lower"): {"the mean along the direction": 1.0},
    ("abs", "upper"): {"the mean along the direction, both signs": 1.0},
}


@dataclass(frozen=True)
class Event:
    """Something that may go wrong with probability at most `level`."""

    bound: str
    what: str
    level: float
    users: tuple[str, ...]
    """Threats whose radii rest on it."""


@dataclass(frozen=True)
class Budget:
    """Levels of the bound on q and of each norm bound; `total` is what is spent, at most the alpha that was asked for."""

    q: float
    norms: dict[Quantity, float]
    users: dict[Quantity, tuple[str, ...]]
    shares: dict[Quantity, Mapping[str, float]]
    """The events behind each norm bound, and their shares of its level."""

    @property
    def events(self) -> tuple[Event, ...]:
        """All of them; their levels add up to `total`."""
        everyone = tuple(dict.fromkeys(name for names in self.users.values() for name in names))
        first = Event("lower bound of q", "the number of votes", self.q, everyone)
        return first, *(
            Event(str(quantity), what, share * level, self.users[quantity])
            for quantity, level in self.norms.items()
            for what, share in self.shares[quantity].items()
        )

    @property
    def total(self) -> float:
        """The sum of all levels."""
        return self.q + sum(self.norms.values())

    def __str__(self) -> str:
        return "\n".join(
            [
                *(f"{event.level:<9.3g} {event.bound}: {event.what} ({', '.join(event.users)})" for event in self.events),
                f"{self.total:<9.3g} in all",
            ]
        )


def split(alpha: float, threats: Sequence[Threat], estimator: str = "adaptive", unbet: Collection[str] = ()) -> Budget:
    """Divide alpha: SHARE_OF_Q to q, the rest equally among the norm bounds that the threats need.

    Args:
        alpha: what the levels add up to, at most.
        threats: all that are certified together.
        estimator: "adaptive" or "paper".
        unbet: parts that no bets were made on while sampling; it changes the names of events only, no level of a bound.

    Raises:
        ValueError: alpha outside [1e-200, 1), an unknown estimator, or a norm that it has no bound of.
    """
    # Below 1e-200 tails of the binomial distribution leave the range of doubles.
    if not 1e-200 <= alpha < 1.0:
        raise ValueError(f"alpha = {alpha}: expected 0 < alpha < 1, and not below 1e-200")
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator {estimator!r}: expected one of {', '.join(ESTIMATORS)}")
    users: dict[Quantity, list[str]] = {}
    shares: dict[Quantity, Mapping[str, float]] = {}
    for threat in threats:
        for quantity in threat.needs():
            users.setdefault(quantity, []).append(threat.name)
            shares[quantity] = _shares(quantity, threat, estimator, quantity.part in unbet)
    # A hair less than the rest, so that the rounded levels cannot add up to more than alpha.
    level = (1.0 - SHARE_OF_Q) * alpha * (1.0 - 1e-12) / len(users)
    return Budget(
        SHARE_OF_Q * alpha,
        dict.fromkeys(users, level),
        {quantity: tuple(names) for quantity, names in users.items()},
        shares,
    )


def _shares(quantity: Quantity, threat: Threat, estimator: str, unbet: bool) -> Mapping[str, float]:
    """The events behind one bound."""
    # Bets are made on coordinates themselves only.
    unbet |= quantity.norm == "linf" and not projections([threat])[quantity.part].keeps_coordinates
    known = PAPER if estimator == "paper" else UNBET if unbet else ADAPTIVE
    if (quantity.norm, quantity.side) not in known:
        p = f" (p = {threat.exponent:g})" if quantity.norm == "lp" else ""
        raise ValueError(
            f"threat {threat.name!r}{p}: estimator {estimator!r} has no bound of the {quantity}, only of l1, l2 and linf norms; "
            "take estimator 'adaptive'"
        )
    return known[quantity.norm, quantity.side]


def check_n(n: float, alpha: float, threats: Sequence[Threat], estimator: str = "adaptive") -> None:
    """ValueError where n cannot be halved or even n unanimous votes cannot certify: said before any sampling."""
    level = split(alpha, threats, estimator).q
    if not isinstance(n, (int, np.integer)) or n < 2:
        raise ValueError(f"n = {n}: expected a whole number of samples, at least one for each half")
    if n < least_n(level):
        raise ValueError(
            f"n = {n}: even a unanimous vote cannot reach alpha = {alpha} (level {level:.3g} for q); n >= {least_n(level)} can"
        )
