"""Who spends which part of alpha: every event that a certificate rests on, its level, and the threats that use it.

By the union bound all radii of a certificate hold together with probability at least 1 - alpha, alpha the sum of the levels.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from ..threats.sets import Quantity, Threat, projections
from .binomial import least_n
from .estimator import Estimator, Events
from .estimators import find_estimator
from .looks import Looks

# What each group of bounds takes of alpha where it has any; the vote gets the rest. The vote carries every radius, also the
# zeroth-order part: it gets nearly all. A norm's level enters under a logarithm only. Where the selection votes are divided the
# runner-up's votes count as much as the class's own.
SHARES = {"gradient": 1.0 - 0.9, "tails": 0.05, "classes": 0.25}
TAIL_EVENTS: Events = {"the largest counts beyond the thresholds": 1.0}
OTHERS = "upper bound of every other class"
CLASS_EVENTS: Events = {"the votes of the runner-up": 1.0}

NO_FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType({})


@dataclass(frozen=True)
class Event:
    """Something that may go wrong with probability at most `level`."""

    bound: str
    what: str
    level: float
    users: tuple[str, ...]
    """Threats whose radii rest on it."""


@dataclass(frozen=True)
class Claim:
    """A bound that is paid for."""

    bound: Quantity | str
    events: Events
    users: tuple[str, ...]
    level: float = 0.0


@dataclass(frozen=True)
class Budget:
    """Levels of the bound on q and of every other bound; `total` is what is spent, at most the alpha that was asked for."""

    estimator: Estimator
    q: float
    groups: Mapping[str, tuple[Claim, ...]]
    """By the names of SHARES."""
    divided: "Budget | None" = None
    """That of inputs whose selection votes are divided, where there are any."""
    looks: str = ""
    """Where sampling had looks: their levels; this budget is the last one's, and the others' are divided alike."""
    noise: float = 0.0
    """What is set aside for the difference between the noise drawn and Gaussian noise: all bounds fail together there."""

    @property
    def norms(self) -> dict[Quantity, float]:
        """Levels of the bounds on the gradient."""
        return {claim.bound: claim.level for claim in self.groups["gradient"] if isinstance(claim.bound, Quantity)}

    @property
    def tails(self) -> dict[str, float]:
        """Levels of the tail bounds, by family of directions."""
        return {str(claim.bound): claim.level for claim in self.groups["tails"]}

    @property
    def others(self) -> float:
        """Level of the bound on every other class; 0 where it is not used."""
        return sum(claim.level for claim in self.groups["classes"])

    @property
    def users(self) -> dict[Quantity | str, tuple[str, ...]]:
        """Bound -> the threats that use it."""
        return {claim.bound: claim.users for claim in self._claims}

    @property
    def events(self) -> tuple[Event, ...]:
        """All of them; their levels add up to `total`."""
        everyone = tuple(dict.fromkeys(name for claim in self._claims for name in claim.users))
        drawn = (Event("noise", "draws that are not those of Gaussian noise", self.noise, everyone),) if self.noise else ()
        bounds = (
            Event(f"tails along {claim.bound}" if group == "tails" else str(claim.bound), what, share * claim.level, claim.users)
            for group, claims in self.groups.items()
            for claim in claims
            for what, share in claim.events.items()
        )
        return Event("lower bound of q", "the number of votes", self.q, everyone), *bounds, *drawn

    @property
    def total(self) -> float:
        """The sum of all levels."""
        return self.q + sum(claim.level for claim in self._claims) + self.noise

    @property
    def _claims(self) -> list[Claim]:
        return [claim for group in self.groups.values() for claim in group]

    def __str__(self) -> str:
        lines = [f"{event.level:<9.3g} {event.bound}: {event.what} ({', '.join(event.users)})" for event in self.events]
        lines.append(f"{self.total:<9.3g} in all")
        if self.divided is not None:
            lines += ["inputs whose selection votes are divided:", str(self.divided)]
        if self.looks:
            lines = [self.looks, "the last look, and every other in proportion:", *lines]
        return "\n".join(lines)


def split(
    alpha: float,
    threats: Sequence[Threat],
    estimator: str = "adaptive",
    unbet: Collection[str] = (),
    families: Mapping[str, tuple[str, ...]] = NO_FAMILIES,
    proposed: bool = False,
    divided: bool = False,
    noise: float = 0.0,
) -> Budget:
    """Divide alpha: to each group of bounds that the threats need its share, equally among them, and the rest to q.

    Args:
        alpha: what the levels add up to, at most.
        threats: all that are certified together.
        estimator: "adaptive" or "paper".
        unbet: parts that no bets were made on while sampling; it changes the names of events only, no level of a bound.
        families: of directions whose tails are used, each with the threats that use it.
        proposed: whether bets went by the model's gradient.
        divided: whether the other classes are bounded as well (classes.py).
        noise: what any event of the samples may be likelier than under Gaussian noise: charged first, the rest is divided.

    Raises:
        ValueError: a charge for noise above a tenth of alpha; alpha outside [1e-200, 1), an unknown estimator, or a norm that it
            has no bound of.
    """
    # Below 1e-200 tails of the binomial distribution leave the range of doubles.
    if not 1e-200 <= alpha < 1.0:
        raise ValueError(f"alpha = {alpha}: expected 0 < alpha < 1, and not below 1e-200")
    if not 0.0 <= noise <= 0.1 * alpha:
        raise ValueError(
            f"noise: its law costs {noise:.3g} of alpha = {alpha}: expected at most a tenth; take fewer samples or a larger alpha"
        )
    alpha = (alpha - noise) * (1.0 - 1e-12) if noise else alpha
    chosen = find_estimator(estimator)
    # Every kind of event besides the vote: a line here, and a share above.
    claims = {
        "gradient": _gradient(threats, chosen, unbet, proposed),
        "tails": [Claim(name, TAIL_EVENTS, users) for name, users in families.items()],
        "classes": [Claim(OTHERS, CLASS_EVENTS, tuple(threat.name for threat in threats))] * divided,
    }
    groups = {}
    for name, wanted in claims.items():
        # A hair less than the share, so that the rounded levels cannot add up to more than alpha.
        level = SHARES[name] * alpha * (1.0 - 1e-12) / max(len(wanted), 1)
        groups[name] = tuple(replace(claim, level=level) for claim in wanted)
    return Budget(chosen, (1.0 - sum(SHARES[name] for name, wanted in claims.items() if wanted)) * alpha, groups, noise=noise)


def _gradient(threats: Sequence[Threat], estimator: Estimator, unbet: Collection[str], proposed: bool) -> list[Claim]:
    """The bounds on the gradient that the threats need, each once."""
    parts, claims = projections(threats), dict[Quantity, Claim]()
    for threat in threats:
        for quantity in threat.needs():
            events = estimator.events(quantity, parts[quantity.part], quantity.part not in unbet, proposed)
            if events is None:
                p = f" (p = {threat.exponent:g})" if quantity.norm == "lp" else ""
                raise ValueError(
                    f"threat {threat.name!r}{p}: estimator {estimator.name!r} has no bound of the {quantity}, "
                    "only of l1, l2 and linf norms; take estimator 'adaptive'"
                )
            users = claims[quantity].users if quantity in claims else ()
            claims[quantity] = Claim(quantity, events, (*users, threat.name))
    return list(claims.values())


def check_n(
    n: float,
    alpha: float,
    threats: Sequence[Threat],
    estimator: str = "adaptive",
    families: Mapping[str, tuple[str, ...]] = NO_FAMILIES,
    noise: float = 0.0,
) -> None:
    """ValueError where n cannot be halved or even n unanimous votes cannot certify: said before any sampling; rest as `split`."""
    level = split(alpha, threats, estimator, families=families, noise=noise).q
    if not isinstance(n, (int, np.integer)) or n < 2:
        raise ValueError(f"n = {n}: expected a whole number of samples, at least one for each half")
    if n < least_n(level):
        raise ValueError(
            f"n = {n}: even a unanimous vote cannot reach alpha = {alpha} (level {level:.3g} for q); n >= {least_n(level)} can"
        )


def check_looks(
    looks: Looks,
    alpha: float,
    threats: Sequence[Threat],
    estimator: str = "adaptive",
    families: Mapping[str, tuple[str, ...]] = NO_FAMILIES,
    noise: float = 0.0,
) -> None:
    """ValueError where even unanimous votes could not certify at the first look that may: what stopped there would abstain."""
    k, n = next((k, n) for k, (share, n) in enumerate(zip(looks.shares, looks.sizes, strict=True), 1) if share > 0.0)
    level = split(looks.level(k, alpha), threats, estimator, families=families, noise=noise).q
    if n < least_n(level):
        raise ValueError(
            f"alpha = {alpha}: look {k} of {len(looks)} has {n} samples, of which even unanimous ones cannot reach its level "
            f"{level:.3g}; alpha >= {0.5**n * alpha / level:.3g} can"
        )
