"""`Smooth`, with the interface that the field's scripts know: certify and predict of a smoothed classifier."""

from typing import Any

import numpy as np
from scipy.stats import binomtest

from .certify import Certifier
from .runs.results import ABSTAIN
from .sampling.card import Sampling, whole
from .sampling.engine import Input
from .sampling.sampler import check_input
from .sampling.scores import Model


class Smooth:
    """A smoothed classifier: the class most likely under N(x, sigma^2 I).

    Args:
        base_classifier: maps a batch (B, *shape) to scores (B, num_classes).
        num_classes: number of classes.
        sigma: noise level in input units.

    Examples:
        >>> import torch
        >>> from certlut import Smooth
        >>> def model(x):  # two classes, told apart by the sign of x's sum
        ...     return torch.stack([x.sum(dim=1), -x.sum(dim=1)], dim=1)
        >>> smooth = Smooth(model, num_classes=2, sigma=0.5)
        >>> prediction, radius = smooth.certify(torch.tensor([0.8, 0.8]), n0=100, n=2000, alpha=0.001, batch_size=1000)
        >>> prediction, radius > 0.5
        (0, True)
        >>> smooth.predict(torch.tensor([0.8, 0.8]), n=100, alpha=0.001, batch_size=100)
        0
    """

    ABSTAIN = ABSTAIN

    def __init__(self, base_classifier: Model, num_classes: int, sigma: float) -> None:
        self.base_classifier, self.num_classes, self.sigma = base_classifier, num_classes, sigma
        self._certifier = Certifier(base_classifier, sigma, num_classes, threats=("l2",))

    def certify(self, x: Any, n0: int, n: int, alpha: float, batch_size: int) -> tuple[int, float]:
        """(class, certified first-order l2 radius in input units); (ABSTAIN, 0.0) where there is no majority at level alpha."""
        certificate = self._certifier.certify(x, n0, n, alpha, batch_size)
        return certificate.prediction, certificate.radius["l2"]

    def predict(self, x: Any, n: int, alpha: float, batch_size: int) -> int:
        """The smoothed class, wrong with probability at most alpha; ABSTAIN where the two leading classes cannot be told apart.

        Raises:
            ValueError: an argument out of range, an n whose unanimous vote could not tell them apart, an input with NaN.
        """
        sampler = self._certifier.sampler
        card = Sampling(n0=whole("n", n, 1), n=max(2, n), alpha=alpha, batch_size=batch_size).seeded()
        if (chance := 2.0 ** -(card.n0 - 1)) > card.alpha:
            raise ValueError(f"n = {n}: even a unanimous vote comes by chance ({chance:.3g}) more often than alpha = {alpha}")
        tensor = check_input(x)
        sampler.check_rows([tensor], card.rows(1))
        counts = sampler.engine.votes([Input(0, tensor)], card)[0]
        first, second = (int(c) for c in np.argsort(counts)[::-1][:2])
        votes = int(counts[first]), int(counts[second])
        return first if binomtest(votes[0], sum(votes), 0.5).pvalue <= alpha else ABSTAIN
