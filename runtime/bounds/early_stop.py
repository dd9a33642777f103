"""When to stop sampling an input that must abstain, without touching the level of any bound.

Clopper-Pearson's lower bound L(k, m) at a level a grows when votes for are added: L(k, m) <= L(k + j, m + j). So once the votes
against exceed what n samples may have at level alpha, the rest of the samples cannot bring the bound above 1/2, and neither do the
votes already drawn: L(k, m) <= L(k + n - m, n) <= 1/2, at alpha and at every smaller level. An input stopped there abstains like
the one drawn to the end: nothing certified changes.

A stopped input keeps what was drawn (k votes, m samples). It may be certified again at a larger alpha, for which its end would be
no longer certain; m was not fixed beforehand, so a bound from it would not be covered by the level. Therefore an input is stopped
only where also k <= m / 2: then L(k, m) < 1/2 at every level up to 1/2, and it abstains there too.
"""

import numpy as np

from .binomial import lower_probability

# At most this many looks at an input's votes.
LOOKS = 32


def tolerance(n: int, alpha: float) -> int:
    """The most votes against that n samples may have for their lower bound at level alpha to exceed 1/2; -1 if none will do.

    Every bound of a certificate has a level of at most alpha, so this is the most forgiving of them.
    """
    low, high = 0, n + 1
    # The bound is nondecreasing in the count: bisect for the least one that will do.
    while low < high:
        middle = (low + high) // 2
        if middle > n or lower_probability(np.array(middle), np.array(n), alpha) > 0.5:
            high = middle
        else:
            low = middle + 1
    return n - low


def must_abstain(count: int, drawn: int, allowed: int) -> bool:
    """Whether `count` votes among `drawn` samples make the abstention certain; `allowed` from `tolerance`."""
    return drawn - count > allowed and 2 * count <= drawn


def next_look(n: int, allowed: int, count: int, drawn: int) -> int:
    """Samples after which to look again: not before enough votes against can have come, nor too often."""
    return min(n, drawn + max(allowed + 1 - (drawn - count), -(-n // LOOKS)))
