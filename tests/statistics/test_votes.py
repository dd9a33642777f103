from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from certlut.statistics.summary import Statistics, summarise
from certlut.statistics.votes import COLUMNS, REST, Tail, kept_classes
from certlut.threats.sets import L2
from reference.naive_statistics import half_space

# Three inputs of 100 samples.
AGAINST = np.array([40, 7, 0])


def _statistics(**changes: Any) -> Statistics:
    moments = half_space(np.array([0.6, 0.8]), 0.5).moments(np.random.default_rng(3), 3, 100)
    count = np.stack([50 - AGAINST // 2, 50 - (AGAINST + 1) // 2], axis=1)
    return replace(summarise(moments, (L2,), 1.0), count=count, **changes)


# Classes


@pytest.mark.parametrize("classes", [2, 3, COLUMNS, COLUMNS + 1, 1000])
def test_the_certified_class_comes_first_then_the_others_by_their_votes(classes: int) -> None:
    rng = np.random.default_rng(classes)
    for label in (0, classes - 1, int(rng.integers(classes))):
        votes = rng.multinomial(500, rng.dirichlet(np.full(classes, 0.3)))
        ids, counts = kept_classes(votes, label)
        assert len(ids) == len(counts) == min(classes, COLUMNS)
        assert counts.sum() == 500
        assert (ids[0], counts[0]) == (label, votes[label])
        named = ids[ids != REST]
        assert counts[: len(named)].tolist() == votes[named].tolist()
        others = np.delete(votes, label)
        # What has no column is not above any that has.
        assert counts[1 : len(named)].tolist() == sorted(others, reverse=True)[: len(named) - 1]
        assert (REST in ids) == (classes > COLUMNS)


def test_a_class_without_a_vote_is_counted_too() -> None:
    ids, counts = kept_classes(np.array([0, 10, 0]), 2)
    assert (ids.tolist(), counts.tolist()) == ([2, 1, 0], [0, 10, 0])


CLASSES = np.array([[4, 1, REST], [0, 1, REST], [2, 5, REST]])
COUNTS = np.stack([100 - AGAINST, AGAINST // 2, AGAINST - AGAINST // 2], axis=1)


def test_class_counts_that_agree_with_the_votes_are_accepted() -> None:
    _statistics(classes=CLASSES, class_count=COUNTS).check((L2,))
    # Padded where an input has fewer columns.
    _statistics(classes=np.column_stack((CLASSES, [REST] * 3)), class_count=np.column_stack((COUNTS, [0] * 3))).check((L2,))


@pytest.mark.parametrize(
    ("classes", "counts", "message"),
    [
        (CLASSES[:2], COUNTS[:2], "classes have shape"),
        (CLASSES[:, :2], COUNTS, "classes have shape"),
        (CLASSES[:, 0], COUNTS[:, 0], "classes have shape"),
        (CLASSES[:, [0, 0, 2]], COUNTS, "every class once"),
        (CLASSES[:, [2, 1, 0]], COUNTS, "every class once"),
        (CLASSES - 2, COUNTS, "every class once"),
        (CLASSES, COUNTS[:, [1, 0, 2]], "add up to n, first that of the certified class"),
        (CLASSES, COUNTS + np.array([0, 1, 0]), "add up to n"),
        (CLASSES, COUNTS + np.array([0, -60, 60]), "add up to n"),
    ],
)
def test_class_counts_that_cannot_be_are_refused(classes: Any, counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _statistics(classes=classes, class_count=counts).check((L2,))


# Tails

THRESHOLDS = np.array([0.5, 1.0, 2.0])
LARGEST = np.array([[40, 20, 3], [7, 0, 0], [0, 0, 0]])


def test_tails_that_fall_with_the_threshold_are_accepted() -> None:
    _statistics(tails={"coordinates": Tail("axes", THRESHOLDS, LARGEST)}).check((L2,))


@pytest.mark.parametrize(
    ("thresholds", "largest", "message"),
    [
        (THRESHOLDS, LARGEST + np.array([[1, 0, 0]]), "more than the votes against"),
        (THRESHOLDS, LARGEST[:, [1, 0, 2]], "grow with the threshold"),
        (THRESHOLDS, LARGEST - [[0, 0, 4], [0, 0, 0], [0, 0, 0]], "grow with the threshold"),
        (THRESHOLDS, LARGEST[:2], "have shape"),
        (THRESHOLDS[:2], LARGEST, "have shape"),
        (THRESHOLDS[[1, 0, 2]], LARGEST, "ascending positive numbers"),
        (THRESHOLDS - 0.5, LARGEST, "ascending positive numbers"),
        (np.array([0.5, 1.0, np.inf]), LARGEST, "ascending positive numbers"),
        (np.array([0.5, np.nan, 1.0]), LARGEST, "ascending positive numbers"),
        (THRESHOLDS[:0], LARGEST[:, :0], "ascending positive numbers"),
    ],
)
def test_tails_that_cannot_be_are_refused_by_name(thresholds: Any, largest: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"tails 'coordinates' .*{message}"):
        _statistics(tails={"coordinates": Tail("axes", thresholds, largest)}).check((L2,))


def test_looks_that_cannot_be_are_refused() -> None:
    _statistics(looks=np.array([1, 8, 0])).check((L2,))
    for looks in (np.array([1, -1, 0]), np.array([1])):
        with pytest.raises(ValueError, match="looks have shape"):
            _statistics(looks=looks).check((L2,))


def test_selection_votes_that_cannot_be_are_refused() -> None:
    _statistics(selection=np.array([[3, 7], [7, 7], [0, 0]])).check((L2,))
    for selection in ([[8, 7], [7, 7], [0, 0]], [[-1, 7], [7, 7], [0, 0]], [[3, 7], [7, 7]]):
        with pytest.raises(ValueError, match="statistics: selection has shape"):
            _statistics(selection=np.array(selection)).check((L2,))
