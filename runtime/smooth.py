"""`Smooth`, with the interface that the field's scripts know: certify and predict of a smoothed classifier."""

import secrets
from typing import TYPE_CHECKING, Any

from .certify import Certifier
from .runs.results import ABSTAIN

if TYPE_CHECKING:
    from .sampling.scores import Model


class Smooth:
    """A smoothed classifier: the class most likely under N(x, sigma^2 I).

    Args:
        base_classifier: maps a batch (B, *shape) to scores (B, num_classes).
        num_classes: number of classes.
        sigma: noise level in input units.
    """

    ABSTAIN = ABSTAIN

    def __init__(self, base_classifier: "Model", num_classes: int, sigma: float) -> None:
        self.base_classifier, self.num_classes, self.sigma = base_classifier, num_classes, sigma
        self._certifier = Certifier(base_classifier, sigma, num_classes, threats=("l2",))

    def certify(self, x: Any, n0: int, n: int, alpha: float, batch_size: int) -> tuple[int, float]:
        """(class, certified first-order l2 radius in input units); (ABSTAIN, 0.0) where there is no majority at level alpha."""
        certificate = self._certifier.certify(x, n0, n, alpha, batch_size)
        return certificate.prediction, certificate.radius["l2"]

    def predict(self, x: Any, n: int, alpha: float, batch_size: int) -> int:
        """The smoothed class, wrong with probability at most alpha; ABSTAIN where the two leading classes cannot be told apart."""
        from scipy.stats import binomtest

        from .sampling.engine import Sampler, check_input

        if not 0.0 < alpha < 1.0:
            raise ValueError(f"alpha = {alpha}: expected 0 < alpha < 1")
        sampler = Sampler(self.base_classifier, self.sigma, self.num_classes, secrets.randbits(63))
        tensor = check_input(x, n=n, batch_size=batch_size)
        self._certifier.check_company([tensor], batch_size)
        counts = sampler.votes(tensor, n, 0, batch_size)
        first, second = (int(c) for c in counts.argsort()[::-1][:2])
        votes = int(counts[first]), int(counts[second])
        return first if binomtest(votes[0], sum(votes), 0.5).pvalue <= alpha else ABSTAIN
