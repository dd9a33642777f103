"""Counts beyond thresholds, against the same in plain NumPy; on the CPU and by the route of other devices."""

import numpy as np
import pytest
import torch

from certlut.sampling.tails import TailTally
from certlut.threats.families import Family

THRESHOLDS = np.array([0.5, 1.0, 1.7, 2.5, 3.1])
CPU = torch.device("cpu")


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def families(d: int, rng: np.random.Generator) -> dict[str, Family]:
    mask = np.zeros(d, dtype=bool)
    mask[rng.permutation(d)[:2]] = True
    return {"all": Family(), "mask": Family(mask=mask), "net": Family(vectors=unit(rng.normal(size=(4, d))))}


def naive(u: np.ndarray, family: Family) -> np.ndarray:
    """Largest count over the directions, written out."""
    d = u.shape[1]
    axes = np.concatenate([np.eye(d), -np.eye(d)])
    if family.mask is not None:
        axes = axes[np.tile(family.mask, 2)]
    along = u @ (axes if family.vectors is None else family.vectors).T
    return np.array([(along >= tau).sum(axis=0).max() for tau in THRESHOLDS])


@pytest.mark.parametrize("d", [2, 5, 64])
def test_the_largest_counts_are_those_of_plain_numpy_however_rows_are_cut(d: int) -> None:
    rng = np.random.default_rng(d)
    u, kinds = rng.normal(size=(500, d)), families(d, rng)
    tally = TailTally(kinds, d, THRESHOLDS, CPU)
    for part in np.split(u, [0, 1, 130, 499]):
        tally.add(torch.from_numpy(part))
    for name, counts in tally.largest().items():
        np.testing.assert_array_equal(counts, naive(u, kinds[name]))
        assert counts.dtype == np.int64


def test_a_number_on_a_threshold_counts_and_signs_are_apart() -> None:
    tally = TailTally({"all": Family()}, 2, THRESHOLDS, CPU)
    tally.add(torch.tensor([[1.0, 0.0], [1.7, -0.0], [-1.7, 0.3], [np.nextafter(2.5, 0), 0.5]], dtype=torch.float64))
    assert tally.largest()["all"].tolist() == [3, 3, 2, 0, 0]


def test_other_devices_count_the_same() -> None:
    rng = np.random.default_rng(3)
    u = torch.from_numpy(rng.normal(size=(300, 7)))
    u[0, 0], u[1, 1] = 1.0, -3.1
    one, other = (TailTally({"all": Family()}, 7, THRESHOLDS, CPU) for _ in range(2))
    one.add(u)
    other._add_on_device(u)
    np.testing.assert_array_equal(one.largest()["all"], other.largest()["all"])


def test_no_votes_against_leave_zeros() -> None:
    kinds = families(3, np.random.default_rng(0))
    tally = TailTally(kinds, 3, THRESHOLDS, CPU)
    tally.add(torch.empty((0, 3), dtype=torch.float64))
    assert all(counts.tolist() == [0] * 5 for counts in tally.largest().values())


def test_families_are_told_apart() -> None:
    mask = np.array([True, False, True])
    keys = [Family(), Family(mask=mask), Family(mask=~mask), Family(vectors=np.eye(3)), Family(vectors=-np.eye(3))]
    assert len({family.key for family in keys}) == len(keys)
    assert Family(mask=mask).key == Family(mask=mask.copy()).key
