"""What votes leave besides the gradient: how often each class was seen, and how many votes against lie far out. Both optional."""

from dataclasses import dataclass

import numpy as np

from ..kernels.arrays import Array, Counts

# Columns kept of an input's classes: all of them, or the certified one, the largest nine others and the rest together.
COLUMNS = 11
# Stands for all classes that have no column of their own.
REST = -1


def kept_classes(votes: Counts, label: int) -> tuple[Counts, Counts]:
    """(ids, counts) from one input's votes per class, shape (num_classes,): `label` first, the others by counts, then REST."""
    order = np.argsort(-votes, kind="stable")
    ids = np.append(label, order[order != label])
    if len(ids) <= COLUMNS:
        return ids, votes[ids]
    ids = ids[: COLUMNS - 1]
    return np.append(ids, REST), np.append(votes[ids], votes.sum() - votes[ids].sum())


def check_classes(classes: Counts, class_count: Counts, count: Counts, n: Counts) -> None:
    """ValueError unless N inputs' class counts, shape (N, C), agree with `count` votes for the first of them among `n`, (N,)."""
    shape = class_count.shape
    if len(shape) != 2 or shape[0] != len(n) or classes.shape != shape:
        raise ValueError(f"statistics: classes have shape {classes.shape}, their counts {shape}; expected ({len(n)}, C) for both")
    if not shape[1]:
        return
    ids = np.sort(classes, axis=1)
    twice = (ids[:, 1:] == ids[:, :-1]) & (ids[:, 1:] != REST)
    if twice.any() or (classes < REST).any() or (classes[:, 0] == REST).any():
        raise ValueError(f"statistics: expected every class once, from 0, and {REST} for the rest, not before the first")
    if (class_count < 0).any() or (class_count.sum(axis=1) != n).any() or (class_count[:, 0] != count).any():
        raise ValueError("statistics: expected class counts that add up to n, first that of the certified class")


@dataclass(frozen=True)
class Tail:
    """How many votes against lie beyond thresholds along the directions of one family, for N inputs."""

    key: str
    """Identifies the directions, so that one family's counts are not taken for another's of the same name."""
    thresholds: Array
    """Ascending, sigma = 1 units, shape (K,): fixed before sampling, the same for all inputs."""
    largest: Counts
    """For each threshold the largest count, over the family, of votes against with e.u beyond it: shape (N, K)."""
    slack: float = 0.0
    """Where e.u is not quite known (sampling/tails.py): this much of eps may be beyond a threshold besides what the counts tell."""

    def check(self, name: str, against: Counts) -> None:
        """ValueError unless these can be the tails of inputs with so many votes against, shape (N,)."""
        t, shape = self.thresholds, (len(against), len(self.thresholds))
        if t.ndim != 1 or not len(t) or not (np.isfinite(t).all() and (np.diff(t, prepend=0.0) > 0).all()):
            raise ValueError(f"statistics: tails {name!r} have thresholds {t.tolist()}, expected ascending positive numbers")
        if not 0.0 <= self.slack <= 1.0:
            raise ValueError(f"statistics: tails {name!r} have slack {self.slack}, expected a number from 0 to 1")
        if self.largest.shape != shape:
            raise ValueError(f"statistics: tails {name!r} have shape {self.largest.shape}, expected {shape}")
        # From no threshold to one at infinity.
        counts = np.column_stack((against, self.largest, np.zeros_like(against)))
        if (np.diff(counts, axis=1) > 0).any():
            raise ValueError(f"statistics: tails {name!r} grow with the threshold, or are more than the votes against")


def none_counted(n: int) -> Counts:
    """Class columns of n inputs whose classes were not counted: shape (n, 0)."""
    return np.empty((n, 0), dtype=np.int64)
